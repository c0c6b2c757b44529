"""Which words the model does not know in the end."""

from __future__ import annotations

import numpy as np

from kntrace.analysis import Analysis
from kntrace.archive import Run

__all__ = ["unknown_words"]


def unknown_words(run: Run, analysis: Analysis) -> list[str]:
    """Words whose answer the last checkpoint does not put first in most of their prompts."""
    scores = run.scores
    mine = np.flatnonzero(scores["wording"].values == analysis.wording)
    last = scores["rank"].isel(checkpoint=-1, prompt=mine).transpose("word", "prompt").values
    right = (last == 0).sum(axis=1) / np.maximum((last >= 0).sum(axis=1), 1)
    return [str(word) for word in scores["word"].values[right < 0.5]]
