"""What `kntrace plan --untried` reckons, beside what a trial block measures where one can be had.

Random weights of Pythia's shapes, with the tokenizer of a grown suite and the study that was
grown with it (all its words are one token). Of shapes that do not fit, the configuration alone.

    python benchmarks/reckoned.py demo/suite --shapes 70m 410m 12b
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

import kntrace
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.suite import Checkpoint, Suite
from kntrace.sweep.estimate import plan
from kntrace.sweep.trial import Trial

# layers, hidden size, heads, whether it is tried
SHAPES = {
    "70m": (6, 512, 8, True),
    "410m": (24, 1024, 16, True),
    "12b": (36, 5120, 40, False),
}
VOCABULARY = 50304


def checkpoint(shape: str, tokenizer: Path, home: Path) -> Checkpoint:
    """A checkpoint of this shape; without weights if it is not to be tried."""
    layers, hidden, heads, tried = SHAPES[shape]
    config = GPTNeoXConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=VOCABULARY,
    )
    if tried:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(home)
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, home)
    config.save_pretrained(home)
    return Checkpoint("step143000", 143_000, None, str(home), None)


def main() -> None:
    """Print the plan of every shape, and a table of reckoned against tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite", type=Path, help="A grown suite.")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--nodes", type=int, help="A fixed rule's; adaptive unless given.")
    asked = parser.parse_args()
    study = kntrace.load_study(asked.suite / "study.yaml")
    last = kntrace.load_suite(asked.suite).checkpoints[-1]
    settings = Settings(rule="gauss_legendre", nodes=asked.nodes) if asked.nodes else Settings()
    rows = ["| shape | reckoned, s a block | tried, s a block | tried / reckoned |"]
    rows.append("| --- | --- | --- | --- |")
    for shape in asked.shapes:
        with tempfile.TemporaryDirectory(prefix="shape-") as home:
            suite = Suite(shape, (checkpoint(shape, Path(last.source), Path(home)),))
            reckoned = plan(study, suite, settings=settings, tried=False, progress=silent)
            print(f"{shape}\n{reckoned}\n")
            seconds = 3600 * reckoned.kinds[0].hours / len(study.words)
            row = f"| {shape} | {seconds:.3g} |"
            if SHAPES[shape][3]:
                trial = plan(study, suite, settings=settings, progress=silent).trial
                assert isinstance(trial, Trial)
                row += f" {trial.scoring:.3g} | {trial.scoring / seconds:.2f} |"
            else:
                row += " | |"
            rows.append(row)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
