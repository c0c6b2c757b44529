"""Scores in the layout of the paper's public code, so that its scripts read them.

The public code (GitHub tomokiariyama/knowledge-neuron-sim) keeps one file a checkpoint,

    OUT/step{N}/nt_4_at_-10.0_mw_30/attribution_scores.jsonl

where the name of the inner folder, which its scripts look for, stands for its own options (at
least 4 prompts a word, a threshold of -10 times the largest score, at most 30 words a prompt).
Each line is one word:

    {"Cat": {"0_0": {"IGs": [s1, s2, s3, s4]}, "0_1": {"IGs": [...]}, ...}}

The keys are `layer_neuron`, both from 0; the list holds the score for each prompt in its
order. The scripts take the mean of the list and multiply it by 1e6, so that scores are written
in units of probability, as they are. Where the public code itself writes the file, strongly
negative scores are absent from the lists; here all are there.

Give `OUT` to the scripts as their results path.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa

from kntrace.archive import Run
from kntrace.errors import RunError
from kntrace.export.blocks import ScoredBlock, blocks
from kntrace.progress import Progress, silent

__all__ = ["FILE", "write_public_code"]

FILE = "nt_4_at_-10.0_mw_30/attribution_scores.jsonl"
"""Where a checkpoint's file lies in the folder `step{N}`."""


def write_public_code(run: Run, folder: Path, progress: Progress = silent) -> None:
    """Write the folder; of a study with several wordings the first one is taken.

    Raises
    ------
    RunError
        If the step of a checkpoint is not known, since the folders are named by it.
    """
    steps = [checkpoint.step for checkpoint in run.suite.checkpoints]
    if None in steps:
        label = run.suite.checkpoints[steps.index(None)].label
        raise RunError(
            f"the step of {label!r} is not known, and this layout names its folders by it",
            where=run.path,
            expected="a step for every checkpoint",
            fix="Export to parquet instead.",
        )
    first = run.study.wordings[0]
    wanted = np.array([wording == first for wording, _ in run.study.slots])
    keys = [f"{layer}_{neuron}" for layer in range(run.layers) for neuron in range(run.width)]
    with ExitStack() as stack:
        file, at = None, -1
        for block in blocks(run, prompts=wanted, progress=progress):
            if file is None or block.checkpoint != at:
                stack.close()
                file, at = _open(folder, steps[block.checkpoint], stack), block.checkpoint
            file.write(_line(run.study.words[block.word].text, keys, block))


def _open(folder: Path, step: int | None, stack: ExitStack) -> TextIO:
    path = folder / f"step{step}" / FILE
    path.parent.mkdir(parents=True)
    return stack.enter_context(path.open("w", encoding="utf-8"))


def _line(word: str, keys: list[str], block: ScoredBlock) -> str:
    """Put one word into JSON by hand, which takes a fifth of the time that `json` takes."""
    by_neuron = np.ascontiguousarray(block.score.reshape(len(block.prompts), -1).T)
    # The shortest digits that give the same float32 back.
    digits = pa.array(by_neuron.reshape(-1)).cast(pa.string()).to_pylist()
    lists = zip(*[iter(digits)] * len(block.prompts), strict=True)
    entries = (
        f'"{key}": {{"IGs": [{", ".join(each)}]}}' for key, each in zip(keys, lists, strict=True)
    )
    return f"{{{json.dumps(word, ensure_ascii=False)}: {{{', '.join(entries)}}}}}\n"
