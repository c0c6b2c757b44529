"""Scores as one long labelled table: parquet and csv.

One row a score, in the order checkpoint, word, prompt, layer, neuron, with the columns

| column | type | what |
| --- | --- | --- |
| checkpoint | text | its label |
| step | int64 | its step; empty where the suite has none |
| word, group | text | of the study |
| wording | text | wording of the prompt |
| prompt | int32 | number of the prompt in its wording, from 0 |
| layer, neuron | int32 | both from 0 |
| score | float32 | attribution score |

In parquet the texts are dictionary-encoded, so that labels cost next to nothing; the file's
metadata says what the run was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from kntrace.archive import Run
from kntrace.export.blocks import ScoredBlock, blocks
from kntrace.progress import Progress, silent

__all__ = ["SCHEMA", "write_csv", "write_parquet"]

_TEXT = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        ("checkpoint", _TEXT),
        ("step", pa.int64()),
        ("word", _TEXT),
        ("group", _TEXT),
        ("wording", _TEXT),
        ("prompt", pa.int32()),
        ("layer", pa.int32()),
        ("neuron", pa.int32()),
        ("score", pa.float32()),
    ]
)
"""Columns of the table."""

# Rows that are collected before they are written: small blocks would make a file of small groups.
_ROWS = 2**19


def write_parquet(run: Run, file: Path, progress: Progress = silent) -> None:
    """Write the table as parquet, compressed with zstd."""
    about = {
        "kntrace.study": run.study.digest,
        "kntrace.suite": run.suite.digest,
        "kntrace.settings": json.dumps(run.settings.model_dump(mode="json")),
    }
    schema = SCHEMA.with_metadata(about)
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in _tables(run, progress):
            writer.write_table(table.replace_schema_metadata(about), row_group_size=len(table))


def write_csv(run: Run, file: Path, progress: Progress = silent) -> None:
    """Write the table as csv; scores have as many digits as their float32 needs."""
    plain = pa.schema([(f.name, pa.string() if f.type == _TEXT else f.type) for f in SCHEMA])
    with pa.csv.CSVWriter(file, plain) as writer:
        for table in _tables(run, progress):
            writer.write_table(table.cast(plain))


def _tables(run: Run, progress: Progress) -> Iterator[pa.Table]:
    labels = _Labels(run)
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for block in blocks(run, progress=progress):
        waiting.append(labels.batch(block))
        rows += block.score.size
        if rows >= _ROWS:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


class _Labels:
    """The labels of a run as arrow dictionaries, shared by all blocks."""

    def __init__(self, run: Run) -> None:
        self._steps = [checkpoint.step for checkpoint in run.suite.checkpoints]
        self._checkpoints = pa.array([item.label for item in run.suite.checkpoints], pa.string())
        self._words = pa.array([word.text for word in run.study.words], pa.string())
        self._group_names = pa.array(list(run.study.groups), pa.string())
        place = {group: number for number, group in enumerate(run.study.groups)}
        self._groups = [place[word.group] for word in run.study.words]
        self._wording_names = pa.array(list(run.study.wordings), pa.string())
        named = {wording: number for number, wording in enumerate(run.study.wordings)}
        self._wordings = np.array([named[wording] for wording, _ in run.study.slots], np.int32)
        self._numbers = np.array([number for _, number in run.study.slots], np.int32)
        layers, neurons = run.layers, run.width
        self._per_prompt = layers * neurons
        self._layer = np.repeat(np.arange(layers, dtype=np.int32), neurons)
        self._neuron = np.tile(np.arange(neurons, dtype=np.int32), layers)

    def batch(self, block: ScoredBlock) -> pa.RecordBatch:
        rows, prompts = block.score.size, len(block.prompts)
        step = self._steps[block.checkpoint]
        columns = [
            _same(block.checkpoint, rows, self._checkpoints),
            pa.nulls(rows, pa.int64()) if step is None else pa.array(np.full(rows, step, np.int64)),
            _same(block.word, rows, self._words),
            _same(self._groups[block.word], rows, self._group_names),
            _coded(self._each(self._wordings[block.prompts]), self._wording_names),
            pa.array(self._each(self._numbers[block.prompts])),
            pa.array(np.tile(self._layer, prompts)),
            pa.array(np.tile(self._neuron, prompts)),
            pa.array(np.ascontiguousarray(block.score, np.float32).reshape(-1)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)

    def _each(self, values: Any) -> Any:
        """Repeat one value a prompt for all of the prompt's scores."""
        return np.repeat(values, self._per_prompt)


def _same(code: int, rows: int, names: pa.Array) -> pa.DictionaryArray:
    return _coded(np.full(rows, code, np.int32), names)


def _coded(codes: Any, names: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), names)
