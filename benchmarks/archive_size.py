"""Bytes of a run's scores with fewer bits, what that changes, and what a long study would take.

python benchmarks/archive_size.py demo/run --study 2000,154,98304
"""

from __future__ import annotations

import argparse

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

import kntrace
from kntrace.archive.rounding import with_bits

LEVEL = 3
TOP = 50


def packed(scores: NDArray[np.float32]) -> int:
    """Bytes of all blocks as the archive compresses them, each by itself."""
    return sum(len(Zstd(LEVEL).encode(np.ascontiguousarray(block))) for block in scores)


def same_neurons(mine: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Share of each block's strongest neurons, by the mean over prompts, that are the same."""
    shares = []
    for one, other in zip(mine, true, strict=True):
        best = [
            set(np.argpartition(-np.nanmean(part, 0).ravel(), TOP)[:TOP]) for part in (one, other)
        ]
        shares.append(len(best[0] & best[1]) / TOP)
    return float(np.mean(shares))


def main() -> None:
    """Print a table with one line for each number of bits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 12, 10, 7, 4])
    parser.add_argument("--study", help="words,checkpoints,neurons of a study to come")
    given = parser.parse_args()
    run = kntrace.open_run(given.run)
    whole = run.scores["score"].values
    prompts = whole.shape[2]
    blocks = whole.reshape(-1, *whole.shape[2:])
    blocks = blocks[np.isfinite(blocks).any((1, 2, 3))]
    print("| bits kept | bytes a score | of float32 | same 50 neurons | largest change |")
    print("| --- | --- | --- | --- | --- |")
    for bits in [None, *given.bits]:
        mine = blocks if bits is None else with_bits(blocks, bits)
        each = packed(mine) / blocks.size
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.nanmax(np.abs(mine / blocks - 1))
        same = same_neurons(mine, blocks)
        print(f"| {bits or 'all 23'} | {each:.2f} | {each / 4:.0%} | {same:.2%} | {moved:.1e} |")
        if given.study:
            words, checkpoints, neurons = map(int, given.study.split(","))
            total = words * checkpoints * neurons * prompts * each / 1e12
            print(f"  {given.study} with {prompts} prompts a word: {total:.2f} TB")


if __name__ == "__main__":
    main()
