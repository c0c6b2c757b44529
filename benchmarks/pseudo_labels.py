"""The verdict on labels that mean nothing, many sets of them on each suite.

A suite is dear and a set of labels is cheap. So each suite in which groups mean nothing is judged
again with labels dealt out at random, and with labels that follow learning time, as they would if
one group were learnt before the other. Reads what `validate.py --keep` kept; one JSON line a
suite, done once.

    python benchmarks/pseudo_labels.py build/validate
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cases import CASES
from kntrace.distance import pairwise_distances
from kntrace.verdict import VerdictRule, combine
from kntrace.wording import read_wording, wordings_of

RECORD = "labels.jsonl"
SETS = 20
# Learning time, and as much noise again: a correlation of about .7 with the order of the groups.
NOISE = 1.0


def labels(
    kind: str, groups: Mapping[str, list[str]], time: np.ndarray, rng: np.random.Generator
) -> dict[str, list[str]]:
    """Deal the words to groups of the same sizes, `random` or by learning `time`."""
    words = [word for members in groups.values() for word in members]
    if kind == "random":
        order = rng.permutation(len(words))
    else:
        order = np.argsort(-(time + NOISE * time.std() * rng.standard_normal(len(words))))
    dealt = [words[place] for place in order]
    ends = np.cumsum([len(members) for members in groups.values()])
    return {
        name: dealt[end - len(members) : end]
        for (name, members), end in zip(groups.items(), ends, strict=True)
    }


def judged(scores: xr.Dataset, seed: int, sets: int = SETS) -> dict[str, Any]:
    """How often the rule says what, and p of its test in the main wording, for each kind."""
    groups: dict[str, list[str]] = {}
    for word, group in zip(scores["word"].values, scores["group"].values, strict=True):
        groups.setdefault(str(group), []).append(str(word))
    views = {
        wording: (
            pairwise_distances(scores, "identity", wording=wording),
            read_wording(scores, wording).probability(),
        )
        for wording in wordings_of(scores)
    }
    main, *_ = views
    time = views[main][1].values.mean(axis=0)
    rule, found = VerdictRule(), {}
    for number, kind in enumerate(("random", "time")):
        rng = np.random.default_rng([seed, number])
        answers, ps = [], []
        for _ in range(sets):
            dealt = labels(kind, groups, time, rng)
            verdicts = {
                wording: rule.judge(distance, probability, dealt)
                for wording, (distance, probability) in views.items()
            }
            answers.append(combine(verdicts).answer)
            ps.append(round(verdicts[main].p, 3))
        found[kind] = {
            "yes": answers.count("yes"),
            "no": answers.count("no"),
            "cannot tell": answers.count("cannot tell"),
            "p": ps,
        }
    return found


def kept(file: Path) -> xr.Dataset:
    """The mean scores that `grown.keep_means` kept, as if each wording had one prompt."""
    with np.load(file) as arrays:
        wordings = [name.removesuffix("_scale") for name in arrays if name.endswith("_scale")]
        scores = np.stack(
            [
                arrays[f"{one}_scores"].astype(np.float32) * arrays[f"{one}_scale"][..., None, None]
                for one in wordings
            ],
            axis=2,
        )
        probability = np.stack([arrays[f"{one}_probability"] for one in wordings], axis=2)
        words, groups = arrays["words"], arrays["groups"]
    cell = ("checkpoint", "word", "prompt")
    return xr.Dataset(
        {
            "score": ((*cell, "layer", "neuron"), scores),
            "probability": (cell, probability),
            "rank": (cell, np.zeros(probability.shape, dtype=np.int32)),
        },
        coords={
            "checkpoint": [str(place) for place in range(len(scores))],
            "word": words,
            "group": ("word", groups),
            "prompt": list(range(len(wordings))),
            "wording": ("prompt", wordings),
            "layer": list(range(scores.shape[3])),
            "neuron": list(range(scores.shape[4])),
        },
    )


def todo(folder: Path, record: Path) -> Iterator[tuple[str, int, Path]]:
    """Suites without a line, of the cases in which groups mean nothing."""
    lines = record.read_text().splitlines() if record.exists() else []
    done = {(line["case"], line["seed"]) for line in map(json.loads, lines)}
    for file in sorted((folder / "means").glob("*.npz"), key=lambda file: file.stat().st_mtime):
        name, _, seed = file.stem.rpartition("-")
        if CASES[name].truth == "nothing" and (name, int(seed)) not in done:
            yield name, int(seed), file


def main() -> None:
    """Judge what has not been judged."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `validate.py --out` was given")
    folder = parser.parse_args().folder
    for name, seed, file in todo(folder, folder / RECORD):
        line = {"case": name, "seed": seed, **judged(kept(file), seed)}
        with (folder / RECORD).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(name, seed, {kind: line[kind]["yes"] for kind in ("random", "time")}, flush=True)


if __name__ == "__main__":
    main()
