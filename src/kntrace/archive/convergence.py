"""How many gradients a run's integrals took, and which of them missed the tolerance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kntrace.archive.chunks import read_chunks
from kntrace.archive.folder import SCORES
from kntrace.archive.runs import Run
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.settings import Settings

__all__ = ["Convergence", "convergence"]

_ADAPTIVE = "adaptive"


@dataclass(frozen=True, eq=False, repr=False)
class Convergence(Shown):
    """The paths of a run, counted. A path is one layer for one prompt at one checkpoint.

    Attributes
    ----------
    checkpoints, words
        Labels along the first two dimensions.
    paths, unconverged, nodes
        (checkpoint, word, layer) int32, summed over the prompts of a word: paths, those not
        within the tolerance, and gradients taken. Blocks that are not done count for nothing.
    settings
        What the run was computed with.
    """

    checkpoints: tuple[str, ...]
    words: tuple[str, ...]
    paths: npt.NDArray[np.int32]
    unconverged: npt.NDArray[np.int32]
    nodes: npt.NDArray[np.int32]
    settings: Settings

    @property
    def total(self) -> int:
        """How many paths there are."""
        return int(self.paths.sum())

    @property
    def missed(self) -> int:
        """How many of them are not within the tolerance."""
        return int(self.unconverged.sum())

    @property
    def share(self) -> float:
        """The part of the paths that are not within the tolerance; 0 if there are no paths."""
        return self.missed / max(self.total, 1)

    @property
    def worst(self) -> tuple[str, int, int, int] | None:
        """Where most paths missed: checkpoint, layer, paths missed there, paths there.

        None if all converged; of equals the earliest checkpoint and then the lowest layer.
        """
        if not self.missed:
            return None
        missed, paths = self.unconverged.sum(axis=1), self.paths.sum(axis=1)
        place = np.unravel_index(missed.argmax(), missed.shape)
        checkpoint, layer = (int(index) for index in place)
        return self.checkpoints[checkpoint], layer, int(missed[place]), int(paths[place])

    def mean_nodes(self, layer: int | None = None) -> float:
        """Mean gradients per path, of one layer or of all; NaN if there are no paths."""
        which = slice(None) if layer is None else slice(layer, layer + 1)
        paths = int(self.paths[..., which].sum())
        return int(self.nodes[..., which].sum()) / paths if paths else float("nan")

    @property
    def advice(self) -> str:
        """What brings paths within the tolerance, in a new run."""
        if self.settings.rule == _ADAPTIVE:
            return (
                "They reached the most nodes that a path may take. A larger --tolerance, or "
                "--dtype float64 if rounding is in the way, and another --out would mend it."
            )
        return (
            f"--rule {_ADAPTIVE} takes as many nodes as each path needs; or give more than "
            f"--nodes {self.settings.nodes}, or a larger --tolerance. Either is a new run with "
            "another --out."
        )

    @property
    def warning(self) -> str:
        """One line for whoever uses the scores; "" if all paths converged."""
        worst = self.worst
        if worst is None:
            return ""
        label, layer, missed, paths = worst
        return (
            f"{self.missed:,} of {self.total:,} paths ({self.share:.1%}) did not converge to a "
            f"relative error of {self.settings.tolerance:g}; worst is layer {layer} at {label} "
            f"({missed:,} of {paths:,}). {self.advice}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The totals as what JSON can express; means are None if there are no paths."""
        worst = self.worst
        names = ("checkpoint", "layer", "unconverged", "paths")
        return {
            "paths": self.total,
            "unconverged": self.missed,
            "share": self.share,
            "worst": None if worst is None else dict(zip(names, worst, strict=True)),
            "nodes": self.mean_nodes() if self.total else None,
            "nodes_first_layer": self.mean_nodes(0) if self.total else None,
        }

    def _card(self) -> Card:
        facts = {"paths": self.total, "not converged": self.missed, "nodes": self.mean_nodes()}
        return Card("Convergence", facts, notes=[self.warning] if self.missed else ())

    def __str__(self) -> str:
        if not self.total:
            return "nodes: no path yet"
        said = (
            f"nodes: {self.mean_nodes():.1f} per path in the mean, "
            f"{self.mean_nodes(0):.1f} in the first layer"
        )
        if self.missed:
            return f"{said}\nnot converged: {self.warning}"
        return f"{said}; all {self.total:,} paths converged"


def convergence(
    run: Run, *, leave_out: Collection[tuple[int, int]] = (), progress: Progress = silent
) -> Convergence:
    """Count the paths of a run's finished blocks.

    Parameters
    ----------
    run
        The run, finished or not.
    leave_out
        Blocks, as (checkpoint, word) positions, not to look at: those known to be damaged.
    progress
        Told of the checkpoints read, in the stage `paths`.

    Raises
    ------
    RunError
        If a block is damaged that was not to be left out.

    Notes
    -----
    Reads two small chunks a block and no scores.
    """
    checkpoints, words = run.shape
    done = np.ones(run.shape, dtype=np.bool_)
    for pair in (*run.missing(), *leave_out):
        done[pair] = False
    counts = np.zeros((3, checkpoints, words, run.layers), dtype=np.int32)
    shape = (run.sizes["prompt"], run.layers)
    labels = tuple(checkpoint.label for checkpoint in run.suite)
    for place, label in enumerate(labels):
        progress("paths", place, checkpoints, label)
        there = np.flatnonzero(done[place])
        state, nodes = (
            read_chunks(run.path / SCORES, name, place, there.tolist(), shape)
            for name in ("converged", "nodes")
        )
        counts[:, place, there] = (state >= 0).sum(1), (state == 0).sum(1), nodes.sum(1)
    progress("paths", checkpoints, checkpoints)
    asked = tuple(word.text for word in run.study.words)
    return Convergence(labels, asked, counts[0], counts[1], counts[2], run.settings)
