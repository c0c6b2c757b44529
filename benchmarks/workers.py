"""How much faster several workers are: `python benchmarks/workers.py --workers 1 2`.

Checkpoints of Pythia-70M's shape with random weights and a small vocabulary are scored for made
up words, by as many workers as asked for, one thread each, in turns. Said are seconds by the
clock from the first block on (starting a process, which takes as long however long the run is,
left out), seconds of the processor in all, and how busy the machine was with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GROUPS, WORDS, PROMPTS = 4, 6, 2


def make(home: Path, checkpoints: int) -> None:
    """Write a study and a suite that fits it."""
    import tokenizers
    import torch
    import transformers

    groups: dict[str, dict[str, list[str]]] = {}
    vocabulary = ["<unk>", "<end>", *"abcdefgh"]
    for group in range(GROUPS):
        words = [f"w{group}x{number}" for number in range(WORDS)]
        vocabulary += words
        groups[f"g{group}"] = {
            word: [" ".join("abcdefgh"[: 6 + place]) for place in range(PROMPTS)] for word in words
        }
    (home / "study.json").write_text(json.dumps({"name": "workers", "groups": groups}))
    raw = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {text: place for place, text in enumerate(vocabulary)}, unk_token="<unk>"
        )
    )
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    config = transformers.GPTNeoXConfig(
        vocab_size=len(vocabulary),
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=64,
    )
    for step in range(checkpoints):
        torch.manual_seed(step)
        folder = home / "suite" / f"step{step}"
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def processor() -> float:
    """Seconds of the processor that this process and its ended children have taken."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(home: Path, workers: int, number: int) -> dict[str, Any]:
    """Time one run."""
    import kntrace

    first: list[float] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage == "sweep" and done:
            first.append(time.monotonic())

    before, busy = processor(), os.getloadavg()[0]
    study, suite = kntrace.load_study(home / "study.json"), kntrace.load_suite(home / "suite")
    kntrace.run(study, suite, home / f"run{number}", workers=workers, threads=1, progress=progress)
    blocks = len(study.words) * len(suite)
    seconds = first[-1] - first[0]
    return {
        "workers": workers,
        "blocks": blocks,
        "seconds": round(seconds, 1),
        "blocks_per_second": round((blocks - 1) / seconds, 2),
        "processor_seconds": round(processor() - before, 1),
        "load_before": round(busy, 1),
    }


def main() -> int:
    """Measure them all, and print one line each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--checkpoints", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="kntrace-workers-") as home:
        make(Path(home), given.checkpoints)
        number = 0
        for _ in range(given.rounds):
            for workers in given.workers:
                print(json.dumps(measure(Path(home), workers, number)), flush=True)
                number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
