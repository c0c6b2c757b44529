"""Hold the statistics against grown worlds whose truth is known.

For every case and seed: grow a suite, score it, analyse it, and keep what each distance and the
verdict say. One JSON line a suite; a suite that is in the file is not done again, so that this
can be stopped at any time and gone on with. `error_rates.py` makes the tables of the lines.

    nice -n 19 python benchmarks/validate.py --seeds 100:172 --out build/validate
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

# One thread a process, set before torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import xarray as xr

from cases import CASES, FIRST_SEED, FROZEN, FROZEN_FILES, RECIPE, SETTINGS, Case, order
from kntrace.analysis import Analysis, analyse_scores
from kntrace.attribution import Attribution, Engine
from kntrace.grow.isolation import own_torch
from kntrace.grow.pretrain import Pretraining
from kntrace.grow.recipe import Recipe
from kntrace.grow.worlds import World, make_world
from kntrace.models.tokens import Encoded
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.verdict import VerdictRule
from kntrace.wording import read_wording, wordings_of

HOME = Path(__file__).parents[1]
RECORD = "suites.jsonl"
# What of a verdict is kept; the rest follows from it or is the same for all.
JUDGED = (
    *("answer", "p", "auc", "null_mean", "null_sd", "adjusted_auc", "low", "high"),
    *("leverage", "time_share"),
)
CONTRASTED = ("auc", "p", "share_above", "chance", "share_p")


class Scored(Pretraining):
    """A suite that is scored while it grows, so that no checkpoint is written and read.

    The scores are those of `kntrace grow` and `kntrace run` up to rounding: all prompts of a
    checkpoint are replayed together rather than word by word.

    Attributes
    ----------
    found
        For each checkpoint the attributions, word by word and prompt by prompt.
    """

    def __init__(self, recipe: Recipe, world: World, settings: Settings) -> None:
        super().__init__(recipe, world, Path())
        self.study = world.study()
        self.found: list[list[Attribution]] = []
        self._settings = settings
        self._encoded: list[Encoded] = []

    def keep(self, step: int) -> None:
        """Score the model as it stands."""
        with Engine(self.model, self.tokenizer, self._settings) as engine:
            # Every checkpoint has the same tokenizer.
            self._encoded = self._encoded or [
                engine.encode(prompt, word.answer, self.study.answer_form)
                for word in self.study.words
                for prompt in self.study.rendered(word)
            ]
            self.found.append(engine.attribute_many(self._encoded))

    def scores(self) -> xr.Dataset:
        """What analysis needs, in the form of `Run.scores`."""
        study, marks = self.study, self._recipe.marks
        words, slots = study.words, [wording for wording, _ in study.slots]
        shape = len(marks), len(words), len(slots)
        first = self.found[0][0].score
        flat = [one for checkpoint in self.found for one in checkpoint]
        cell = ("checkpoint", "word", "prompt")
        score = np.stack([one.score for one in flat]).reshape(*shape, *first.shape)
        return xr.Dataset(
            {
                "score": ((*cell, "layer", "neuron"), score),
                "probability": (cell, np.reshape([one.probability for one in flat], shape)),
                "rank": (cell, np.reshape([one.rank for one in flat], shape)),
            },
            coords={
                "checkpoint": [f"step{step}" for step in marks],
                "step": ("checkpoint", list(marks)),
                "word": [word.text for word in words],
                "group": ("word", [word.group for word in words]),
                "prompt": list(range(len(slots))),
                "wording": ("prompt", slots),
                "layer": list(range(first.shape[0])),
                "neuron": list(range(first.shape[1])),
            },
        )


def grown(case: Case, seed: int, quick: Mapping[str, Any]) -> xr.Dataset:
    """The scores of one suite."""
    recipe = Recipe.of(
        world=case.world, world_seed=seed, seed=seed, **{**RECIPE, **case.recipe, **quick}
    )
    settings = Settings.of(**{**SETTINGS, **case.settings})
    with own_torch(recipe.seed, 1):
        training = Scored(recipe, make_world(case.world, seed), settings)
        training.run(silent)
    return training.scores()


def one(name: str, seed: int, folder: Path, quick: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    """Grow, score and analyse one suite; returns its line."""
    case, start = CASES[name], time.perf_counter()
    scores = grown(case, seed, quick)
    found = analyse_scores(scores)
    main, *others = found.verdicts
    overall = {main: numbers_of(found), **{other: alone(scores, other) for other in others}}
    if keep:
        keep_means(scores, folder / "means" / f"{name}-{seed}.npz")
    return {
        "case": name,
        "seed": seed,
        "verdict": found.verdict.answer,
        "verdicts": {
            wording: {key: rounded(verdict.to_dict()[key]) for key in JUDGED}
            for wording, verdict in found.verdicts.items()
        },
        "overall": overall,
        "learnt": {wording: learnt(scores, wording) for wording in found.verdicts},
        "recipe": {"world": case.world, **RECIPE, **case.recipe, **quick},
        "settings": {**SETTINGS, **case.settings},
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time(), 1),
    }


def alone(scores: xr.Dataset, wording: str) -> dict[str, dict[str, float]]:
    """The numbers of every distance on the prompts of one wording."""
    own = np.flatnonzero(scores["wording"].values == wording)
    return numbers_of(analyse_scores(scores.isel(prompt=own)))


def numbers_of(found: Analysis) -> dict[str, dict[str, float]]:
    """AUC, share above and both p-values of every distance, with and without correction."""
    return {
        name: {key: rounded(contrast.overall[key]) for key in CONTRASTED}
        for name, contrast in found.contrasts.items()
    }


def learnt(scores: xr.Dataset, wording: str) -> float:
    """Mean P(answer) at the last checkpoint."""
    return float(rounded(float(read_wording(scores, wording).probability()[-1].mean())))


def rounded(value: Any) -> Any:
    """Six digits are more than a permutation test gives."""
    return round(value, 6) if isinstance(value, float) else value


def keep_means(scores: xr.Dataset, file: Path) -> None:
    """Keep the mean scores of each word and wording, so that other distances can be tried."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {}
    for wording in wordings_of(scores):
        view = read_wording(scores, wording)
        sizes = scores.sizes["checkpoint"], scores.sizes["word"]
        means = np.stack(
            [[view.mean(place, word) for word in range(sizes[1])] for place in range(sizes[0])]
        )
        # Half precision has few exponents: each word's largest score at a checkpoint is 1.
        scale = np.abs(means).max(axis=(2, 3)).astype(np.float32)
        kept[f"{wording}_scale"] = scale
        kept[f"{wording}_scores"] = (means / scale[..., None, None]).astype(np.float16)
        kept[f"{wording}_probability"] = view.probability().values.astype(np.float32)
    groups, words = scores["group"].values.astype(str), scores["word"].values.astype(str)
    partial = file.with_name(f".{file.name}")
    np.savez(partial, groups=groups, words=words, **kept)
    partial.replace(file)


def state_of_code() -> dict[str, Any]:
    """Which rule and which code the lines are of; ends here if the rule is not the frozen one."""
    git = ("git", "-C", str(HOME))
    changed = subprocess.run(
        [*git, "diff", "--quiet", FROZEN, "--", *FROZEN_FILES], capture_output=True, check=False
    )
    if changed.returncode == 1:
        sys.exit(f"the rule is no longer that of commit {FROZEN}: freeze it anew, with new seeds")
    # Without git (128), as from an archive of the files, nothing can be said.
    described = subprocess.run(
        [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "rule": {
            "commit": FROZEN if changed.returncode == 0 else "unknown",
            **asdict(VerdictRule()),
        },
        "code": described.stdout.strip() or "unknown",
        "torch": torch.__version__,
    }


def read(record: Path) -> list[dict[str, Any]]:
    """The lines there are; a last one that a kill cut short is left out, and the file mended."""
    if not record.exists():
        return []
    text = record.read_text()
    whole, _, rest = text.rpartition("\n")
    if rest:
        record.write_text(whole + "\n" * bool(whole))
    return [json.loads(line) for line in whole.splitlines()]


def numbers(text: str) -> list[int]:
    """`from:to`, or a list such as `100,105`."""
    first, colon, last = text.partition(":")
    return list(range(int(first), int(last))) if colon else [int(one) for one in text.split(",")]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=numbers, default=f"{FIRST_SEED}:{FIRST_SEED + 72}")
    parser.add_argument("--out", type=Path, default=Path("build/validate"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", type=json.loads, default={}, help="recipe, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the mean scores (3 MB a suite)")
    return parser.parse_args()


def main() -> None:
    """Grow what is missing, in order."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another process is at work in {given.out}")
        work(given)


def work(given: argparse.Namespace) -> None:
    """Do all suites that have no line yet."""
    code = state_of_code()
    record = given.out / RECORD
    done = {(line["case"], line["seed"]) for line in read(record)}
    todo = [key for key in order(given.cases, given.seeds) if key not in done]
    print(f"{len(done)} suites are there, {len(todo)} to grow", flush=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, mp_context=spawn) as pool:
        waiting = {pool.submit(one, *key, given.out, given.quick, given.keep): key for key in todo}
        for number, future in enumerate(as_completed(waiting), 1):
            name, seed = waiting[future]
            failure = future.exception()
            if failure is not None:
                # A broken suite must be seen, and must not end a run of days.
                print(f"{number}/{len(todo)} {name} {seed} FAILED: {failure!r}", flush=True)
                continue
            line = {**future.result(), **code}
            with record.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            print(
                f"{number}/{len(todo)} {name} {seed}: {line['verdict']} {line['seconds']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
