"""Write the seeds that fuzzing begins with: one sound file or more for every reader."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import readers

from kntrace.settings import Settings
from kntrace.study import load_study

STUDY = """\
name: pets
template: "Q. {question} A."
answer_form: as_follows
groups:
  Pets:
    Cat: [which pet purrs, &q what hunts mice]
    Dog:
      answer: dog
      alternatives: [wolf, fox]
      prompts: {main: [what barks], plain: ["name it: dog?"]}
  Hues:
    Red: [which hue is blood]
"""
SUITE = """\
name: mine
checkpoints:
- {label: start, folder: a/step0, step: 0, tokens: 5}
- {repository: owner/name, revision: step10, step: 10, stage: stage1}
- {file: x.gguf, step: 20}
"""
MANY = "checkpoints:\n- {folder: model, steps: 'log:3', pattern: 'run-(?P<step>[0-9]+)'}\n"
LRE = {"name": "r", "prompt_templates": ["{} is in"], "samples": [{"subject": "a", "object": "b"}]}
CASE = {"prompt": "{} is in", "subject": "a", "relation_id": "P1", "target_true": {"str": "b"}}
RECORD = {
    "sessions": [{"started": "2026-01-01", "seconds": 1.5, "blocks": 3}],
    "checkpoints": {"step0": {"commit": None, "config": "ab", "files": "cd"}},
    "versions": {"python": "3.11"},
}
CONFIG = {"model_type": "gpt_neox", "num_hidden_layers": 2, "rope": {"n_heads": 4, "theta": 1e4}}
TOKENIZER = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
    "model": {"type": "BPE", "vocab": {"a": 0, "{": 1}, "merges": [["a", "{"]]},
}


def seeds() -> dict[str, list[bytes]]:
    """Inputs for every reader that it accepts, or nearly."""
    array = io.BytesIO()
    np.save(array, np.arange(6, dtype=np.float32).reshape(2, 3))
    run = readers._made("run")
    rows = '{"word": "Cat", "group": "Pets", "prompt": "what purrs", "answer": "cat"}\n'
    as_json = json.dumps(load_study("similar-words").model_dump(mode="json"))[:100]
    study = json.dumps(
        {"name": "p", "groups": {"A": {"Cat": ["q"], "Dog": {"answer": "d", "prompts": ["r"]}}}}
    )
    return {
        "study-yaml": [STUDY.encode(), b"groups: {A: {Cat: [q, r]}, B: {Dog: {x: [s], y: [t]}}}"],
        "study-json": [study.encode(), as_json.encode()],
        "plain": [b"Cat: [a, b]\nDog: [c]\nRed: [d]\n"],
        "groups": [b"A: [Cat, Dog]\nB: [Red]\n"],
        "suite": [SUITE.encode(), MANY.encode()],
        "settings": [Settings().to_yaml().encode()],
        "csv": [
            b'word,group,prompt,answer,wording\nCat,Pets,"what, purrs",cat,main\nDog,Pets,q,,\n'
        ],
        "jsonl": [rows.encode()],
        "lre": [json.dumps(LRE).encode()],
        "counterfact": [json.dumps([{"requested_rewrite": CASE}]).encode()],
        "pararel": [
            b'{"pattern": "[X] is in [Y] ."}\n--\n{"sub_label": "a", "obj_label": "b"}\n',
        ],
        "names": [b"run-12\nrun-(?P<step>\\d+)", b"stage1-step20k-tokens3B\n(?P<tokens>[0-9]+B)"],
        "record": [json.dumps(RECORD).encode()],
        "baseline": [array.getvalue()],
        "model-folder": [b'{"weight_map": {"a": "model.safetensors"}, "global_step": 5}'],
        "beside": [
            bytes([n]) + json.dumps(content).encode()
            for n, content in enumerate((CONFIG, TOKENIZER, {"model_max_length": 10**30}, {"a": 1}))
        ],
        "recipe": [
            json.dumps({"world": "flat", "seed": 0, "layers": 1, "checkpoints": 2}).encode()
        ],
        "run": [bytes([n]) + _content(run / name) for n, name in enumerate(readers._RUN_FILES)],
        "analysis": [
            bytes([n]) + _content(run / "analysis" / name)
            for n, name in enumerate(readers._ANALYSIS_FILES)
            if (run / "analysis" / name).exists()
        ],
        "array": [
            bytes([n]) + (run / "analysis/formation.zarr" / name / "zarr.json").read_bytes()
            for n, name in enumerate(("formation", "word", "rank", "step"))
        ],
    }


def _content(file: Path) -> bytes:
    """A file as its reader's input: chunks without their checksum, which the reader adds."""
    data = file.read_bytes()
    return data[:-4] if "/c/" in file.as_posix() or file.name.startswith("c.") else data


if __name__ == "__main__":
    for name, contents in seeds().items():
        folder = readers.CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents):
            (folder / f"seed-{number:02}").write_bytes(content)
