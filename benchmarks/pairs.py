"""Exact distances a second by neurons and checkpoints, and what the bound does to an AUC.

Without a run: words are drawn (`alike` and `apart`, see distances.py); projects 2,000 words'
1,999,000 pairs in one process. With a run: AUC and ranks by `emd_bound`, and by `sliced`, against
those by `emd`, over all pairs.

    OMP_NUM_THREADS=1 python benchmarks/pairs.py
    OMP_NUM_THREADS=1 python benchmarks/pairs.py --run demo/run --k 20,50,100
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, spearmanr

import kntrace
from distances import drawn
from kntrace.distance import EarthMoverBound, earth_movers_distance, pairwise_distances
from kntrace.distance.base import process_sets
from kntrace.progress import silent

WORDS, PAIRS = (40, 240), 4
PLACES = range(0, 2 * PAIRS, 2)


def projected(kinds: list[str], sizes: list[str], words: int) -> None:
    """Print one line for each kind of words and size."""
    pairs = comb(words, 2)
    print(f"| words | neurons x checkpoints | pairs a second | {pairs:,} pairs | by `emd_bound` |")
    print("| --- | --- | --- | --- | --- |")
    for kind in kinds:
        for size in sizes:
            k, checkpoints = map(int, size.split("x"))
            few, many = (drawn(kind, count, k, checkpoints) for count in WORDS)
            sets = process_sets(few)[: 2 * PAIRS]
            each = used(lambda sets=sets: [earth_movers_distance(*sets[i : i + 2]) for i in PLACES])
            each /= PAIRS
            # Sorting grows with the words and comparing with their pairs.
            times = [used(lambda p=p: EarthMoverBound().pairwise(p, silent)) for p in (few, many)]
            grows = np.array([[count, comb(count, 2)] for count in WORDS])
            by_word, by_pair = np.linalg.solve(grows, times)
            bound = by_word * words + by_pair * pairs
            print(
                f"| {kind} | {k:,} x {checkpoints} | {1 / each:.3g} | {each * pairs / 3600:.1f} h "
                f"| {bound / 60:.0f} min |",
                flush=True,
            )


def used(work: Callable[[], object]) -> float:
    """Seconds of the processor, which other work on the machine hardly touches."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def auc(values: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Probability that a pair within groups is nearer than one between them."""
    near, far = values[same], values[~same]
    return float(mannwhitneyu(far, near).statistic) / (len(near) * len(far))


def errors(run: str, sizes: list[int]) -> None:
    """Print one line for each number of neurons."""
    scores = kntrace.open_run(run).scores
    print("| k | AUC by `emd` | by | AUC | apart | ranks | share of `emd` |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for k in sizes:
        paths = kntrace.formation_processes(scores, kntrace.knowledge_neurons(scores, k))
        groups, upper = paths["group"].values, np.triu_indices(paths.sizes["word"], 1)
        same = (groups[:, None] == groups)[upper]
        exact = pairwise_distances(paths, "emd").values[upper]
        for name, power in (("emd_bound", 1), ("sliced", 2)):
            values = pairwise_distances(paths, name).values[upper] ** power
            rho = spearmanr(values, exact).statistic
            low, middle, high = np.quantile(values / exact, [0.05, 0.5, 0.95])
            mine, true = auc(values, same), auc(exact, same)
            print(
                f"| {k} | {true:.4f} | `{name}` | {mine:.4f} | {mine - true:+.4f} | {rho:.4f} | "
                f"{middle:.0%} ({low:.0%} to {high:.0%}) |",
                flush=True,
            )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run")
    parser.add_argument("--k", default="20,50,100")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--kinds", default="alike,apart")
    parser.add_argument("--sizes", default="100x20,1000x20,100x154,1000x154")
    given = parser.parse_args()
    if given.run:
        errors(given.run, [int(k) for k in given.k.split(",")])
    else:
        projected(given.kinds.split(","), given.sizes.split(","), given.words)


if __name__ == "__main__":
    main()
