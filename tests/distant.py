"""Words to measure distances between."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

from kntrace.distance import DISTANCES
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("ant", "bat", "cat"), "B": ("blue", "red"), "C": ("chad", "fiji", "iran")}


def scores(**changes: Any) -> xr.Dataset:
    sizes: dict[str, Any] = {"groups": GROUPS, "checkpoints": 4, "layers": 2, "width": 12}
    return synthetic_scores(**(sizes | changes))


def material(name: str, data: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """What the distance of this name needs."""
    if DISTANCES[name].needs == "scores":
        return data
    return formation_processes(data, knowledge_neurons(data, 6))


@pytest.fixture(name="name", params=sorted(DISTANCES))
def fixture_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
