"""What every way of replaying a model has in common.

A replay answers one question: with these vectors in place of some layer's neurons at the
scored position, what is the objective (by default the answer's probability), and what is its
gradient? `shared_prefix` answers it fast; `full_forward` answers it slowly with nothing but an
ordinary forward pass, which is what the fast one is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from kntrace.models.tokens import Encoded

__all__ = ["Changes", "Read", "Recording", "Replay", "Replayed", "Rows"]

Read = Callable[[Tensor], Tensor]
"""From logits (row, position, token) to what is wanted of each row, (row, ...)."""


@dataclass(frozen=True)
class Recording:
    """What one ordinary pass over some prompts left behind.

    Attributes
    ----------
    prompts
        The prompts, in the order of every first dimension below.
    activation
        The site's values at the scored position, (prompt, layer, neuron).
    objective, probability
        Of each prompt's answer, (prompt,), float64.
    rank
        How many tokens are more probable than the answer's first token, (prompt,).
    state
        What the replay that made this recording needs to start from.
    """

    prompts: tuple[Encoded, ...]
    activation: Tensor
    objective: Tensor
    probability: Tensor
    rank: Tensor
    state: Any = field(repr=False)


@dataclass(frozen=True)
class Rows:
    """Replacements to try, one a row, sorted by layer.

    Attributes
    ----------
    prompt, layer
        Index of the prompt and of the layer whose neurons are replaced, (row,).
    value
        What the layer's neurons are replaced by at the scored position, (row, neuron).
    """

    prompt: Tensor
    layer: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Changes:
    """Joint changes of one prompt's neurons to try: any neurons in any layers, one set a row.

    Attributes
    ----------
    first
        The lowest layer that each row changes, (row,), ascending; a row that changes nothing
        has the last layer.
    row, layer, neuron
        Which neuron of which row each change is about, (change,); each of them once.
    factor, offset
        What becomes of it, (change,): `factor` times what it is in this very pass, in which
        the layers below may have been changed, plus `offset`.
    """

    first: Tensor
    row: Tensor
    layer: Tensor
    neuron: Tensor
    factor: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def rows(self, start: int, stop: int) -> Changes:
        """Those of some rows, which are counted from 0 again."""
        held = (self.row >= start) & (self.row < stop)
        parts = (self.layer, self.neuron, self.factor, self.offset)
        return Changes(
            self.first[start:stop], self.row[held] - start, *(part[held] for part in parts)
        )

    def at(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Row, neuron, factor and offset of the changes in one layer, if there are any."""
        held = self.layer == layer
        if not bool(held.any()):
            return None
        return self.row[held], self.neuron[held], self.factor[held], self.offset[held]


@dataclass(frozen=True)
class Replayed:
    """What a replay found.

    Attributes
    ----------
    objective
        Of each row, float64.
    gradient
        Of each row's objective by the values that the row put in, (row, neuron).
    at_activation
        Gradient of each prompt's objective by its neurons as they are, with nothing replaced,
        (prompt, layer, neuron).
    """

    objective: Tensor
    gradient: Tensor | None = None
    at_activation: Tensor | None = None

    @property
    def slopes(self) -> Tensor:
        """The gradient, where it was asked for."""
        return _given(self.gradient)

    @property
    def slopes_at_activation(self) -> Tensor:
        """The gradient at the activation, where it was asked for."""
        return _given(self.at_activation)


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise RuntimeError("these rows were replayed without that gradient")
    return tensor


class Replay(Protocol):
    """A way to run a model again from a layer's neurons upward."""

    name: str

    def record(self, prompts: Sequence[Encoded]) -> Recording:
        """Run the prompts as they are and keep what later replays start from.

        All answers must have the same number of tokens.
        """

    def evaluate(
        self,
        recording: Recording,
        rows: Rows,
        *,
        gradient: bool = True,
        at_activation: bool = False,
    ) -> Replayed:
        """Run the model with each row's replacement.

        With `at_activation` one row more a prompt, in which nothing is replaced, gives the
        gradient at the end of every layer's path at once.
        """

    def change(self, recording: Recording, changes: Changes, read: Read) -> Tensor:
        """Run the only prompt of a recording once a row, with that row's changes.

        Returns what `read` makes of the logits, in the order of the rows. No gradients.
        """
