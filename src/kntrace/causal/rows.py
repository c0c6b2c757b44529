"""One prompt's rows: which changes to try, and the table of what they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kntrace.attribution import Answered, Engine, Intervention
from kntrace.causal.sets import Ranking, shared
from kntrace.effects import AblationSettings, read_method
from kntrace.models.tokens import Encoded

__all__ = ["Asked", "rows_of", "singles_of"]

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """One prompt of a word.

    Attributes
    ----------
    prompt
        Its column in the run's archive.
    encoded
        As the model reads it.
    activation
        Its neurons as they are, (neuron,) through all layers.
    """

    prompt: int
    encoded: Encoded
    activation: _Floats


@dataclass(frozen=True)
class _Row:
    ranking: Ranking
    method: str
    dose: int
    neurons: npt.NDArray[np.int64]


def rows_of(
    engine: Engine,
    asked: Asked,
    rankings: Sequence[Ranking],
    settings: AblationSettings,
    replacements: dict[str, _Floats],
    elsewhere: Sequence[Sequence[int]],
) -> pd.DataFrame:
    """Run one prompt with every source, method and dose.

    Parameters
    ----------
    replacements
        For `mean` and `resample`, what every neuron would be set to, (neuron,).
    elsewhere
        First tokens of the answers of other words of the group, and of other groups.
    """
    rows = list(_rows(rankings, settings))
    nothing = Intervention(*_places(np.empty(0, dtype=np.int64), engine.width))
    found = engine.intervene(
        asked.encoded,
        [
            nothing,
            *(_intervention(row, engine.width, replacements) for row in rows),
        ],
        elsewhere=elsewhere,
        everywhere=settings.positions == "all",
    )
    own = {row.dose: row.neurons for row in rows if row.ranking.source == "own"}
    size = np.abs(asked.activation)
    count = len(rows)
    table = pd.DataFrame(
        {
            "source": [row.ranking.source for row in rows],
            "of": [row.ranking.of for row in rows],
            "draw": [row.ranking.draw for row in rows],
            "method": [row.method for row in rows],
            "dose": [row.dose for row in rows],
            "neurons": [len(row.neurons) for row in rows],
            "shared": [shared(row.neurons, own[row.dose]) for row in rows],
            "size": [float(size[row.neurons].mean()) if len(row.neurons) else 0.0 for row in rows],
        }
    )
    for name, values in _columns(found).items():
        table[name] = values[1:]
        table[f"{name}_before"] = np.repeat(values[0], count)
    return table.assign(prompt=asked.prompt)


def singles_of(
    engine: Engine,
    asked: Asked,
    neurons: npt.NDArray[np.int64],
    *,
    everywhere: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the answer loses in P and in log-odds when each neuron is silenced alone."""
    ones = [Intervention(*_places(one, engine.width)) for one in (neurons[:0], *neurons[:, None])]
    found = engine.intervene(asked.encoded, ones, everywhere=everywhere)
    return (
        found.probability[0] - found.probability[1:],
        found.log_odds[0] - found.log_odds[1:],
    )


def _rows(rankings: Sequence[Ranking], settings: AblationSettings) -> Iterator[_Row]:
    for ranking in rankings:
        for dose in settings.doses:
            neurons = ranking.dose(dose)
            for method in settings.methods:
                yield _Row(ranking, method, dose, neurons)


def _intervention(row: _Row, width: int, replacements: dict[str, _Floats]) -> Intervention:
    places = _places(row.neurons, width)
    factor = read_method(row.method)[1]
    if factor is None:
        return Intervention(*places, 0.0, replacements[row.method][row.neurons])
    return Intervention(*places, factor)


def _places(
    neurons: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    layer, neuron = np.divmod(neurons, width)
    return layer, neuron


def _columns(found: Answered) -> dict[str, npt.NDArray[Any]]:
    return {
        "probability": found.probability,
        "log_odds": found.log_odds,
        "rank": found.rank,
        "same_group": found.elsewhere[:, 0],
        "other_groups": found.elsewhere[:, 1],
    }
