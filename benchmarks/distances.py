"""Time the exact distances of all pairs of words against POT, and one process against two.

Words are drawn, not measured: 1,000 neurons each over 20 checkpoints. `heavy`: sizes with heavy
tails, checkpoints independent of one another. `alike`: neurons rise along learning curves, those
of all words at about the same time. `apart`: the same at any time, so that many neurons of one
word compete for few of another. Or a run's own words, by its folder. All ways take the same
pairs; POT's way is `ot.dist` and `ot.emd2`, as in the paper's public code.

One process and POT are compared by processor time, which other work on the machine hardly
touches; one process and two by the clock, for which the machine has to be quiet, and by the
processor time of both together, which says what sharing the work costs.

    OMP_NUM_THREADS=1 python benchmarks/distances.py [--run RUN]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

import kntrace
from kntrace.distance import pairwise_distances


def drawn(kind: str, words: int, neurons: int, checkpoints: int, seed: int = 0) -> xr.DataArray:
    """Formation processes (word, rank, checkpoint) that no model ever had."""
    rng = np.random.default_rng(seed)
    shape = (words, neurons, checkpoints)
    if kind == "heavy":
        size = 1e-4 * np.exp(2 * rng.standard_normal((words, neurons, 1)))
        values = size * np.exp(0.5 * rng.standard_normal(shape))
    else:
        spread = {"alike": 0.02, "apart": 0.2}[kind]
        learnt = 0.5 + spread * rng.standard_normal((words, 1, 1))
        learnt = learnt + 0.05 * rng.standard_normal((words, neurons, 1))
        rise = 1 / (1 + np.exp((learnt - np.linspace(0, 1, checkpoints)) / 0.06))
        size = 1e-4 * np.exp(1.2 * rng.standard_normal((words, neurons, 1)))
        values = size * (rise + 0.03 * rng.standard_normal(shape))
    names = [f"word {place}" for place in range(words)]
    return xr.DataArray(
        values,
        dims=("word", "rank", "checkpoint"),
        coords={"word": names, "group": ("word", names)},
    )


def by_pot(paths: xr.DataArray) -> list[float]:
    """All pairs by POT, without scaling or fallback."""
    import ot  # not at the top, where every process that shares our work would load it too

    count, neurons, _ = paths.shape
    mass = np.full(neurons, 1 / neurons)
    return [
        float(ot.emd2(mass, mass, ot.dist(paths.values[i], paths.values[j]), numItermax=10**8))
        for i, j in combinations(range(count), 2)
    ]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of processors, ended child processes included, of the clock, and the result."""
    used, start = sum(os.times()[:4]), time.perf_counter()
    found = work()
    return sum(os.times()[:4]) - used, time.perf_counter() - start, found


def row(kind: str, paths: xr.DataArray) -> str:
    """One line of the table."""
    pairwise_distances(paths[:2, :50], "emd")  # nobody's first call is timed
    one, clock, alone = timed(lambda: pairwise_distances(paths, "emd"))
    pot, _, expected = timed(lambda: by_pot(paths))
    both, shared_clock, shared = timed(lambda: pairwise_distances(paths, "emd", workers=2))
    sliced, _, _ = timed(lambda: pairwise_distances(paths, "sliced"))
    if not alone.equals(shared):
        raise SystemExit("two processes gave other numbers than one")
    upper = np.triu_indices(len(paths), 1)
    differ = float(np.abs(alone.values[upper] / np.array(expected) - 1).max())
    proved = f"{alone.attrs['proved']} of {alone.attrs['pairs']}, {alone.attrs['largest_gap']:.0e}"
    return (
        f"| {kind} | {paths.sizes['rank']} x {paths.sizes['checkpoint']} | {pot:.1f} | {one:.1f} | "
        f"{pot / one:.2f} | {both:.1f} | {clock / shared_clock:.2f} | "
        f"{differ:.0e} | {proved} | {sliced:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--words", type=int, default=38)
    parser.add_argument("--neurons", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--kinds", default="heavy,alike,apart")
    parser.add_argument("--run", help="A run folder, whose words are taken.")
    size = parser.parse_args()
    if size.run:
        scores = kntrace.open_run(size.run).scores
        chosen = kntrace.knowledge_neurons(scores, size.neurons).isel(word=slice(size.words))
        sets = {"a run's": kntrace.formation_processes(scores, chosen)}
    else:
        sets = {
            kind: drawn(kind, size.words, size.neurons, size.checkpoints)
            for kind in size.kinds.split(",")
        }
    print(
        "| words | neurons x checkpoints | POT, s | one process, s | ratio | two processes, s | "
        "ratio by the clock | largest difference | proved, largest gap | sliced, s |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for kind, paths in sets.items():
        print(row(kind, paths), flush=True)


if __name__ == "__main__":
    main()
