"""The engine: a model made ready for attribution, and put back as it was afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kntrace.attribution.ablation import ablate, check_neurons
from kntrace.attribution.adaptive import integrate_adaptively
from kntrace.attribution.borrowing import at_rest, refuse_half_on_cpu
from kntrace.attribution.encoding import Reader
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.greedy import written_by
from kntrace.attribution.integrate import Integral, Tolerance, integrate
from kntrace.attribution.joint import (
    Answered,
    Intervention,
    intervene,
    mean_over_tokens,
    token_by_token,
)
from kntrace.attribution.memory import Memory, cost_of_rows, usual_budget
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.precision import products_in
from kntrace.attribution.replays import Recording
from kntrace.attribution.result import Attribution, mean_of
from kntrace.attribution.rules import ADAPTIVE, quadrature
from kntrace.attribution.selftest import fastest_replay
from kntrace.errors import ModelError, SettingsError
from kntrace.models.feedforward import Stack, find_stack, refuse_unsupported
from kntrace.models.placement import home
from kntrace.models.tokens import AnswerForm, Encoded
from kntrace.settings import Settings

__all__ = ["Engine"]


class Engine:
    """Scores the neurons of one model. A context manager: the model is borrowed inside it.

    Parameters
    ----------
    model, tokenizer
        Any Hugging Face language model, decoder or masked, with plain or gated feed-forward
        layers, and its tokenizer. Inside the `with` it is in evaluation mode with its weights
        frozen; on leaving, its mode, its weights' `requires_grad`, its attention implementation and
        its hooks are what they were, also after an exception.
    settings
        Rule, nodes and site. `settings.dtype` is the business of whoever loads the model.
    memory
        Bytes that the rows of one replay may take; `memory.usual_budget` of the device unless
        given.
    baseline
        Where the paths start, (layer, neuron); zero, the paper's, unless given.

    Raises
    ------
    ModelError
        On entering, if the model is of a kind whose neurons are not defined here.
    SettingsError
        On entering, if rule, nodes or site are unknown or do not fit the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: Settings | None = None,
        *,
        memory: int | None = None,
        baseline: Any = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings or Settings()
        self._memory_given = memory
        self._given = baseline
        self._costs: dict[tuple[int, int], tuple[float, float]] = {}
        self._exit = ExitStack()
        self._stack: Stack | None = None

    def __enter__(self) -> Self:
        refuse_unsupported(self._model)
        refuse_half_on_cpu(self._model)
        named = self._settings.rule.replace("-", "_")
        find_objective(self._settings.objective)
        # Unknown rules and numbers of nodes are refused before the model is touched.
        self._rule = None if named == ADAPTIVE else quadrature(named, self._settings.nodes)
        with ExitStack() as stack:
            stack.enter_context(at_rest(self._model))
            stack.enter_context(products_in(self._settings.dtype))
            self._stack = find_stack(self._model)
            device = home(self._model)
            given = self._memory_given
            self._budget = usual_budget(device) if given is None else given
            if self._budget < 1:
                raise SettingsError(f"memory = {given} bytes", expected="a positive number")
            self._reader = Reader(self._model, self._tokenizer, self._settings)
            self.baseline = self._given
            self._replay = fastest_replay(self._model, self._stack, self._settings, stack)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self._entered)

    @property
    def width(self) -> int:
        """Neurons in one layer."""
        return self._entered.width

    @property
    def replay(self) -> str:
        """Which way of replaying the model passed the self-test."""
        return self._replay.name

    @property
    def _entered(self) -> Stack:
        if self._stack is None:
            raise RuntimeError("an Engine is used inside its `with` statement")
        return self._stack

    @property
    def baseline(self) -> NDArray[np.float32] | None:
        """Where the paths start, (layer, neuron); None for zero."""
        return None if self._baseline is None else self._baseline.float().cpu().numpy()

    @baseline.setter
    def baseline(self, given: Any) -> None:
        self._baseline: Tensor | None = None
        if given is None:
            return
        values = torch.as_tensor(np.asarray(given))
        shape = (self.layers, self.width)
        if tuple(values.shape) != shape or not bool(torch.isfinite(values).all()):
            raise SettingsError(
                f"a baseline of shape {tuple(values.shape)}"
                if tuple(values.shape) != shape
                else "a baseline that holds values that are not finite",
                expected=f"finite numbers, (layer, neuron) = {shape}",
            )
        weight = self._model.get_input_embeddings().weight
        self._baseline = values.to(home(self._model), weight.dtype)

    def encode(
        self,
        prompt: str,
        answer: str,
        form: AnswerForm | str = "as_follows",
        alternatives: Sequence[str] = (),
    ) -> Encoded:
        """Tokenise a prompt and its answer and check that this model can read them.

        Parameters
        ----------
        prompt, answer, form
            See `kntrace.models.tokens.encode`.
        alternatives
            Other answers, for the objective `logit_difference` alone.

        Raises
        ------
        ModelError
            If the answer has several tokens, the prompt is too long for the model, the two
            cannot be told apart once tokenised, or a masked model's prompt has not one mask.
        """
        self._entered  # noqa: B018  (raises outside `with`)
        return self._reader.encode(prompt, answer, form, alternatives)

    def mean_activation(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        """The neurons' mean over prompts, each at its scored position, (layer, neuron).

        Cost: one ordinary forward pass per prompt.
        """
        self._entered  # noqa: B018  (raises outside `with`)
        total = np.zeros((self.layers, self.width))
        # One by one, so that the mean does not depend on how prompts are grouped.
        for one in encoded:
            total += self._replay.record([one]).activation[0].cpu().double().numpy()
        return (total / len(encoded)).astype(np.float32)

    def attribute_many(self, encoded: Sequence[Encoded]) -> list[Attribution]:
        """Score the neurons for several prompts, replayed together.

        Cost: about nodes x layers / 2 one-token passes of the whole model per prompt, forward
        and backward, plus one ordinary forward pass.

        Raises
        ------
        ModelError
            If a score is not a finite number.
        """
        self._entered  # noqa: B018  (raises outside `with`)
        if self._settings.answer_tokens in ("mean", "greedy"):
            return self._token_by_token(encoded)
        found: dict[int, Attribution] = {}
        # Rows of one pass have equally many tokens.
        for length in dict.fromkeys(len(one.answer) for one in encoded):
            places = [place for place, one in enumerate(encoded) if len(one.answer) == length]
            some = self._in_groups([encoded[place] for place in places])
            found |= dict(zip(places, some, strict=True))
        return [found[place] for place in range(len(encoded))]

    def ablate(
        self, encoded: Encoded, neurons: Sequence[tuple[int, int]] | None = None
    ) -> NDArray[np.float64]:
        """Set single neurons to the baseline, one at a time: the paper's equation 3 read literally.

        Parameters
        ----------
        neurons
            (layer, neuron) pairs; all of the model's unless given.

        Returns
        -------
        numpy.ndarray
            The answer's probability as it is minus that without the neuron: one number a
            pair, in their order, or (layer, neuron) for all.

        Raises
        ------
        SettingsError
            If a pair names no neuron of the model.

        Notes
        -----
        Cost: one one-token forward pass from its layer upward per neuron, streamed within the
        memory budget.
        """
        layers, width = self.layers, self.width
        pairs = torch.cartesian_prod(torch.arange(layers), torch.arange(width))
        if neurons is not None:
            pairs = torch.tensor(list(neurons), dtype=torch.long).reshape(-1, 2)
            check_neurons(pairs, layers, width)
        recording = self._replay.record([encoded])
        layer, neuron = pairs.to(recording.activation.device).T
        origin, memory = self._origin(recording), self._memory([encoded])
        lost = ablate(self._replay, recording, layer, neuron, origin, memory)[0]
        found: NDArray[np.float64] = lost.cpu().numpy()
        return found.reshape(layers, width) if neurons is None else found

    def intervene(
        self,
        encoded: Encoded,
        interventions: Sequence[Intervention],
        *,
        elsewhere: Sequence[Sequence[int]] = (),
        everywhere: bool = False,
    ) -> Answered:
        """Change neurons jointly at the scored position, or at every token; see `joint`.

        An answer of several tokens is read as the settings say it is attributed.
        """
        replay = self._replay
        if everywhere:
            objective = find_objective(self._settings.objective)
            replay = FullForward(self._model, self._entered, self._settings.site, objective)
        how: dict[str, Any] = {"elsewhere": elsewhere, "everywhere": everywhere}
        mean = self._settings.answer_tokens in ("mean", "greedy")
        return mean_over_tokens(
            intervene(replay, replay.record([part]), interventions, self._memory([part]), **how)
            for part in (self._parts(encoded) if mean else [encoded])
        )

    def _token_by_token(self, encoded: Sequence[Encoded]) -> list[Attribution]:
        """Attribute every token of every answer at its own last position; means per answer."""
        parts = [part for one in encoded for part in self._parts(one)]
        found = iter(self._in_groups(parts))
        return [mean_of([next(found) for _ in one.answer]) for one in encoded]

    def _parts(self, encoded: Encoded) -> list[Encoded]:
        """Each of the answer's tokens after what comes before it."""
        if len(encoded.answer) > 1 and self._settings.answer_tokens == "greedy":
            return written_by(self._model, self._reader, encoded)
        return token_by_token(encoded)

    def _in_groups(self, encoded: Sequence[Encoded]) -> list[Attribution]:
        """As many prompts at once as what is kept of each fits into a quarter of the budget."""
        memory = self._memory(encoded)
        number = self._model.get_input_embeddings().weight.element_size()
        # Gradients at some nodes and sums over them in double precision; the logits while it is
        # recorded; and the row in which nothing is replaced, which runs through all layers.
        kept = self.layers * self.width * (16 * number + 160)
        kept += 2 * memory.per_row + self.layers * memory.per_row_layer
        most = max(int(self._budget / 4 / kept), 1)
        found: list[Attribution] = []
        while len(found) < len(encoded):
            some = encoded[len(found) : len(found) + most]
            try:
                found += self._attribute(some, memory)
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                most = len(some) // 2
        return found

    def _attribute(self, encoded: Sequence[Encoded], memory: Memory) -> list[Attribution]:
        recording = self._replay.record(encoded)
        found = self._integrate(recording, memory)
        self._refuse_non_finite(recording, found)
        dtype = recording.activation.dtype
        stored = dtype if dtype.itemsize >= 4 else torch.float32
        score, gap, activation = (
            tensor.to(stored).cpu().numpy()
            for tensor in (found.score, found.gap, recording.activation)
        )
        return [
            Attribution(
                score[index],
                gap[index],
                float(recording.probability[index]),
                int(recording.rank[index]),
                activation[index],
                found.nodes[index].cpu().numpy(),
                found.converged[index].cpu().numpy(),
            )
            for index in range(len(encoded))
        ]

    def _refuse_non_finite(self, recording: Recording, found: Integral) -> None:
        """A rank or a mean of numbers that are none would look like a result."""
        layers = torch.isfinite(found.score).all(-1) & torch.isfinite(found.gap)
        whole = layers.all(-1) & torch.isfinite(recording.probability)
        if bool(whole.all()):
            return
        index = int((~whole).nonzero()[0])
        ids = list(recording.prompts[index].ids)
        prompt = ids if self._tokenizer is None else self._tokenizer.decode(ids)
        bad = (~layers[index]).nonzero()
        place = f"layer {int(bad[0])}" if len(bad) else "the output"
        raise ModelError(
            f"scores that are not finite numbers, in {place}",
            where=f"prompt {prompt!r}",
            fix="Compute in a wider number format, or leave this model or checkpoint out.",
        )

    def _integrate(self, recording: Recording, memory: Memory) -> Integral:
        origin = self._origin(recording)
        eps = torch.finfo(recording.activation.dtype).eps
        tolerance = Tolerance(self._settings.tolerance, eps)
        if self._rule is None:
            return integrate_adaptively(self._replay, recording, origin, tolerance, memory)
        return integrate(self._replay, recording, self._rule, origin, tolerance, memory)

    def _origin(self, recording: Recording) -> Tensor:
        activation = recording.activation
        if self._baseline is None:
            return torch.zeros_like(activation)
        return self._baseline.to(activation.dtype).expand_as(activation)

    def _memory(self, encoded: Sequence[Encoded]) -> Memory:
        """Two fifths of the budget, and a row's cost: measured once for each size of prompts."""
        longest = max(encoded, key=lambda one: len(one.ids))
        tokens = 2 ** math.ceil(math.log2(len(longest.ids)))
        answer = max(len(one.answer) for one in encoded)
        if (tokens, answer) not in self._costs:
            # The cost is that of a made-up prompt at the upper end of the size.
            times = -(-tokens // len(longest.ids))
            ids = (longest.ids * times)[: self._reader.fitting(tokens, answer)]
            made_up = replace(longest, ids=ids, answer=longest.answer[:1] * answer)
            self._costs[tokens, answer] = cost_of_rows(
                self._replay,
                self._replay.record([made_up]),
                self._model.get_input_embeddings().weight.shape[0],
            )
        return Memory(int(0.4 * self._budget), *self._costs[tokens, answer])
