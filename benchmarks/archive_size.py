"""Bytes of a run's scores with fewer bits, only means, or only neurons ever chosen kept.

And what that changes, and what it comes to in a study to come:

python benchmarks/archive_size.py demo/run --study 2000,154,98304,1000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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


def means_of(blocks: NDArray[np.float32], wordings: Sequence[str]) -> NDArray[np.float32]:
    """(block, wording, layer, neuron): what `--keep means` stores of blocks of every prompt."""
    names = np.array(wordings)
    parts = [
        np.nanmean(blocks[:, names == name], axis=1, dtype=np.float64)
        for name in dict.fromkeys(wordings)
    ]
    return np.stack(parts, axis=1).astype(np.float32)


def chosen_of(
    means: NDArray[np.float32], words: NDArray[np.intp], top: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What `kntrace compact --top` stores of means, (block, wording, kept), and how many a word.

    The last of the numbers is of all words together.
    """
    flat = means.reshape(*means.shape[:2], -1)
    strongest = np.argpartition(-np.nan_to_num(flat, nan=-np.inf), top, axis=-1)[..., :top]
    ever = [np.unique(strongest[words == word]) for word in range(words.max() + 1)]
    counts = np.array([len(neurons) for neurons in (*ever, np.unique(np.concatenate(ever)))])
    kept = np.full((*flat.shape[:2], counts[:-1].max()), -np.inf, dtype=np.float32)
    for block, word in enumerate(words):
        kept[block, :, : counts[word]] = flat[block][:, ever[word]]
    return kept, counts


def same_neurons(mine: NDArray[np.float32], true: NDArray[np.float64]) -> float:
    """Share of each block's strongest neurons, by the mean over its first axis, that are true."""
    shares = []
    for one, other in zip(mine, true, strict=True):
        mean = np.nanmean(one, axis=0, dtype=np.float64)
        best = [set(np.argpartition(-part.ravel(), TOP)[:TOP]) for part in (mean, other)]
        shares.append(len(best[0] & best[1]) / TOP)
    return float(np.mean(shares))


def main() -> None:
    """Print a table with one line for each thing to keep and number of bits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 12, 10, 7, 4])
    parser.add_argument("--top", type=int, default=TOP, help="neurons a word that can be chosen")
    parser.add_argument("--evenly", type=int, help="only so many checkpoints, evenly taken")
    parser.add_argument("--study", help="words,checkpoints,neurons,top of a study to come")
    given = parser.parse_args()
    scores = kntrace.open_run(given.run).scores
    if given.evenly is not None:
        at = np.linspace(0, scores.sizes["checkpoint"] - 1, given.evenly).round().astype(int)
        scores = scores.isel(checkpoint=np.unique(at))
    wordings = [str(name) for name in scores["wording"].values]
    every_prompt = "score" in scores
    whole = scores["score" if every_prompt else "mean_score"].values
    blocks = whole.reshape(-1, *whole.shape[2:])
    there = np.isfinite(blocks).any((1, 2, 3))
    words = np.tile(np.arange(whole.shape[1]), whole.shape[0])[there]
    blocks = blocks[there]
    # The main wording's, to the last bit that there is.
    main_wording = np.array(wordings if every_prompt else scores["mean_over"]) == wordings[0]
    true = np.nanmean(blocks[:, main_wording], axis=1, dtype=np.float64)
    neurons = true[0].size
    means = means_of(blocks, wordings) if every_prompt else blocks
    chosen, (*counts, of_all) = chosen_of(means, words, given.top)
    mean = float(np.mean(counts))
    kinds = {"prompts": blocks} if every_prompt else {}
    kinds |= {"means": means, "chosen": chosen}
    print(
        f"ever among the {given.top} strongest of a word: {mean:.0f} of {neurons:,} neurons "
        f"({mean / given.top:.2f} times as many), {max(counts)} at most; of any word: {of_all:,}\n"
    )
    head = ["kept", "bits", "numbers a neuron", "bytes each", "same 50", "largest change", "of all"]
    head += [given.study] if given.study else []
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    first = packed(blocks)
    for keep, full in kinds.items():
        of_main = main_wording if keep == "prompts" else np.arange(full.shape[1]) == 0
        # Numbers of a block, but for what only fills it up.
        numbers = full[0].size if keep != "chosen" else full.shape[1] * mean
        for bits in [None, *given.bits]:
            mine = full if bits is None else with_bits(full, bits)
            size = packed(mine)
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = np.nanmax(np.abs(mine / full - 1))
            same = same_neurons(mine[:, of_main], true if keep != "chosen" else full[:, 0])
            row = f"| {keep} | {bits or 'all 23'} | {numbers / neurons:.3g} | "
            row += f"{size / len(full) / numbers:.2f} | {same:.2%} | {moved:.1e} | "
            row += f"{size / first:.1%} |"
            if given.study:
                asked = [int(part) for part in given.study.split(",")]
                share = asked[3] / given.top if keep == "chosen" else asked[2] / neurons
                row += f" {asked[0] * asked[1] * share * size / len(full) / 1e12:.3f} TB |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
