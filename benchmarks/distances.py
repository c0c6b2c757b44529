"""Time the exact distances of all pairs of words against POT, and one process against two.

Words are drawn, not measured: 1,000 neurons each over 20 checkpoints. `heavy`: sizes with heavy
tails, checkpoints independent of one another. `alike`: neurons rise along learning curves, those
of all words at about the same time. `apart`: the same at any time, so that many neurons of one
word compete for few of another. Or a run's own words, by its folder. All ways take the same
pairs; POT's way is `ot.dist` and `ot.emd2`, as in the paper's public code.

One process and POT are compared by processor time, which other work on the machine hardly
touches. How two processes share the work is another table, `--share TIMES`, by the clock, for which
the machine has to be quiet. Beside it, each time, is what the machine itself allows: how many times
as much two processes that share nothing, started together, compute in the same time as one alone;
and what others took of the processors meanwhile, where the system tells (Linux).

    OMP_NUM_THREADS=1 python benchmarks/distances.py [--run RUN] [--share 5]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import kntrace
from kntrace.distance import earth_movers_distance, pairwise_distances


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
    one, _, alone = timed(lambda: pairwise_distances(paths, "emd"))
    pot, _, expected = timed(lambda: by_pot(paths))
    sliced, _, _ = timed(lambda: pairwise_distances(paths, "sliced"))
    upper = np.triu_indices(len(paths), 1)
    differ = float(np.abs(alone.values[upper] / np.array(expected) - 1).max())
    proved = f"{alone.attrs['proved']} of {alone.attrs['pairs']}, {alone.attrs['largest_gap']:.0e}"
    return (
        f"| {kind} | {paths.sizes['rank']} x {paths.sizes['checkpoint']} | {pot:.1f} | {one:.1f} | "
        f"{pot / one:.2f} | {differ:.0e} | {proved} | {sliced:.1f} |"
    )


def busy() -> float:
    """Seconds that all processors together have been busy, or taken away, since they started."""
    try:
        fields = Path("/proc/stat").read_text().split()
    except OSError:
        return math.nan
    return sum(int(fields[place]) for place in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


def others(work: Callable[[], Any]) -> tuple[float, Any]:
    """What others took of the processors while this was done, as a share of one, and its result."""
    before = busy()
    own, clock, found = timed(work)
    return (busy() - before - own) / clock, found


def apart(values: Any, ready: Any, told: Any) -> None:
    """Compute pairs in a process that shares nothing, and tell how long it took by the clock."""
    sets = list(values)
    earth_movers_distance(sets[0], sets[1])
    ready.wait()
    start = time.perf_counter()
    for first, second in combinations(sets, 2):
        earth_movers_distance(first, second)
    told.put(time.perf_counter() - start)


def limit(values: Any) -> float:
    """How many times as much two processes compute as one, if they share nothing."""
    spawning, took = multiprocessing.get_context("spawn"), []
    for count in (1, 2):
        ready, told = spawning.Barrier(count), spawning.Queue()
        running = [spawning.Process(target=apart, args=(values, ready, told)) for _ in range(count)]
        for process in running:
            process.start()
        took.append(max(told.get() for _ in running))
        for process in running:
            process.join()
    return 2 * took[0] / took[1]


def shared(kind: str, paths: xr.DataArray) -> str:
    """One line of the table of two processes."""
    pairwise_distances(paths[:2, :50], "emd")
    meanwhile, (one, clock, alone) = others(lambda: timed(lambda: pairwise_distances(paths, "emd")))
    beside, (both, shared_clock, found) = others(
        lambda: timed(lambda: pairwise_distances(paths, "emd", workers=2))
    )
    if not alone.equals(found):
        raise SystemExit("two processes gave other numbers than one")
    # So few words that it takes seconds.
    disturbed, allowed = others(lambda: limit(paths.values[:12]))
    return (
        f"| {kind} | {one:.1f} | {both:.1f} | {clock:.1f} | {shared_clock:.1f} | "
        f"{clock / shared_clock:.2f} | {allowed:.2f} | "
        f"{meanwhile:.0%}, {beside:.0%}, {disturbed:.0%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--words", type=int, default=38)
    parser.add_argument("--neurons", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--kinds", default="heavy,alike,apart")
    parser.add_argument("--share", type=int, default=0, help="Time two processes so many times.")
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
    if size.share:
        print(
            "| words | one process, s | two, s | one, clock | two, clock | ratio | "
            "two that share nothing | others took |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- |"
        )
        for kind, paths in sets.items():
            for _ in range(size.share):
                print(shared(kind, paths), flush=True)
        return
    print(
        "| words | neurons x checkpoints | POT, s | one process, s | ratio | "
        "largest difference | proved, largest gap | sliced, s |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for kind, paths in sets.items():
        print(row(kind, paths), flush=True)


if __name__ == "__main__":
    main()
