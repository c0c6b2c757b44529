"""What every way of replaying a model has in common.

A replay answers one question: with these vectors in place of some layer's neurons at the
scored position, what is the objective (by default the answer's probability), and what is its
gradient? `shared_prefix` answers it fast; `full_forward` answers it slowly with nothing but an
ordinary forward pass, which is what the fast one is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from kntrace.models.tokens import Encoded

__all__ = ["Recording", "Replay", "Replayed", "Rows"]


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
