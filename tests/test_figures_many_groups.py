"""Figures with a panel a group, of as many groups as a study of 2,000 words has."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from kntrace.figures import render
from kntrace.figures.probability_prompts import PromptBands


@pytest.mark.slow
@pytest.mark.parametrize("groups", [4, 100])
def test_counts_stay_within_their_panels(groups: int) -> None:
    curve = np.linspace(0.1, 0.6, 4) * np.ones((groups, 1))
    parts = {"mean": 1.0, "low": 0.9, "high": 1.1, "lowest": 0.5, "highest": 1.5}
    table = xr.Dataset(
        {name: (("of_group", "checkpoint"), curve * by) for name, by in parts.items()}
        | {"prompts": ("of_group", [1040] * groups), "words": ("of_group", [20] * groups)},
        coords={
            "of_group": [f"group {place}" for place in range(groups)],
            "checkpoint": [f"step{place}" for place in range(4)],
            "step": ("checkpoint", range(4)),
        },
        attrs={"unit": "probability", "wording": "main", "draws": 500},
    )
    figure = PromptBands().draw(table)
    render(figure, "png")
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(panels) == groups
    for ax in panels:
        room = ax.get_window_extent()
        [counts] = ax.texts
        assert "1040 prompts" in counts.get_text()
        assert counts.get_window_extent().x1 <= room.x1
