"""The engine: a model made ready for attribution, and put back as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kntrace.attribution.ablation import ablate
from kntrace.attribution.adaptive import integrate_adaptively
from kntrace.attribution.integrate import Integral, Memory, Tolerance, integrate
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.replays import Recording
from kntrace.attribution.result import Attribution, mean_of
from kntrace.attribution.rules import ADAPTIVE, quadrature
from kntrace.attribution.selftest import fastest_replay
from kntrace.errors import ModelError, SettingsError
from kntrace.models.feedforward import Stack, find_stack, refuse_unsupported
from kntrace.models.tokens import AnswerForm, Encoded, encode
from kntrace.settings import Settings

__all__ = ["DEFAULT_MEMORY", "Engine", "attribute"]

DEFAULT_MEMORY = 2 * 2**30
"""Bytes that the rows of one replay may take unless the caller says otherwise."""


class Engine:
    """Scores the neurons of one model. A context manager: the model is borrowed inside it.

    Parameters
    ----------
    model, tokenizer
        Any Hugging Face decoder language model with plain or gated feed-forward layers, and
        its tokenizer. Inside the `with` it is in evaluation mode with its weights frozen;
        on leaving, its mode, its weights' `requires_grad`, its attention implementation and
        its hooks are what they were, also after an exception.
    settings
        Rule, nodes and site. `settings.dtype` is the business of whoever loads the model.
    memory
        Bytes that the rows of one replay may take.

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
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings or Settings()
        self._budget = memory
        self._exit = ExitStack()
        self._stack: Stack | None = None

    def __enter__(self) -> Self:
        refuse_unsupported(self._model)
        _refuse_half_on_cpu(self._model)
        named = self._settings.rule.replace("-", "_")
        find_objective(self._settings.objective)
        # Unknown rules and numbers of nodes are refused before the model is touched.
        self._rule = None if named == ADAPTIVE else quadrature(named, self._settings.nodes)
        with ExitStack() as stack:
            stack.enter_context(_at_rest(self._model))
            self._stack = find_stack(self._model)
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

    def encode(self, prompt: str, answer: str, form: AnswerForm | str = "as_follows") -> Encoded:
        """Tokenise a prompt and its answer and check that this model can read them.

        Raises
        ------
        ModelError
            If the answer has several tokens, the prompt is too long for the model, or the
            two cannot be told apart once tokenised.
        """
        encoded = encode(self._tokenizer, prompt, answer, form)
        where = f"prompt {prompt!r}"
        policy = self._settings.answer_tokens
        if len(encoded.answer) > 1 and policy == "error":
            tokens = self._tokenizer.convert_ids_to_tokens(list(encoded.answer))
            raise ModelError(
                f"the answer {answer!r} has {len(tokens)} tokens ({' '.join(map(repr, tokens))})",
                where=where,
                expected="an answer of one token",
                fix="Choose another word or answer form, or say by the setting answer_tokens "
                "(first, mean or joint) what to do with several.",
            )
        if policy == "first":
            encoded = Encoded(encoded.ids, encoded.answer[:1])
        longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        length = len(encoded.ids) + len(encoded.answer) - 1
        if longest is not None and length > longest:
            raise ModelError(
                f"the prompt has {length} tokens",
                where=where,
                expected=f"at most the model's {longest}",
                fix="Shorten it; kntrace never cuts a prompt.",
            )
        rows = self._model.get_input_embeddings().weight.shape[0]
        if (highest := max(encoded.ids + encoded.answer)) >= rows:
            raise ModelError(
                f"token {highest}, but the model has embeddings for {rows} tokens",
                where=where,
                expected="the tokenizer that belongs to the model",
            )
        return encoded

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
        if self._settings.answer_tokens == "mean":
            return self._token_by_token(encoded)
        found: dict[int, Attribution] = {}
        # Rows of one pass have equally many tokens.
        for length in dict.fromkeys(len(one.answer) for one in encoded):
            places = [place for place, one in enumerate(encoded) if len(one.answer) == length]
            some = self._attribute([encoded[place] for place in places])
            found |= dict(zip(places, some, strict=True))
        return [found[place] for place in range(len(encoded))]

    def ablate(
        self, encoded: Encoded, neurons: Sequence[tuple[int, int]] | None = None
    ) -> NDArray[np.float64]:
        """Set single neurons to zero, one at a time: equation 3 of the paper read literally.

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
            inside = (pairs >= 0).all(1) & (pairs < torch.tensor([layers, width])).all(1)
            if not bool(inside.all()):
                layer, neuron = pairs[~inside][0].tolist()
                raise SettingsError(
                    f"neuron {neuron} of layer {layer}",
                    expected=f"layers 0 to {layers - 1} and neurons 0 to {width - 1}",
                )
        recording = self._replay.record([encoded])
        pairs = pairs.to(recording.activation.device)
        lost = ablate(self._replay, recording, pairs[:, 0], pairs[:, 1], self._memory())[0]
        found: NDArray[np.float64] = lost.cpu().numpy()
        return found.reshape(layers, width) if neurons is None else found

    def _token_by_token(self, encoded: Sequence[Encoded]) -> list[Attribution]:
        """Attribute every token of every answer after those before it; means per answer."""
        parts = [
            Encoded(one.ids + one.answer[:place], one.answer[place : place + 1])
            for one in encoded
            for place in range(len(one.answer))
        ]
        found = iter(self._attribute(parts))
        return [mean_of([next(found) for _ in one.answer]) for one in encoded]

    def _attribute(self, encoded: Sequence[Encoded]) -> list[Attribution]:
        recording = self._replay.record(encoded)
        found = self._integrate(recording)
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

    def _integrate(self, recording: Recording) -> Integral:
        zero = torch.zeros_like(recording.activation)
        tolerance = Tolerance(self._settings.tolerance, torch.finfo(zero.dtype).eps)
        if self._rule is None:
            return integrate_adaptively(self._replay, recording, zero, tolerance, self._memory())
        return integrate(self._replay, recording, self._rule, zero, tolerance, self._memory())

    def _memory(self) -> Memory:
        """Estimate what a row costs: activations that the backward pass keeps."""
        config = self._model.config.get_text_config()
        weight = self._model.get_input_embeddings().weight
        number = weight.element_size()
        return Memory(
            self._budget,
            per_row_layer=number * (12 * config.hidden_size + 6 * self.width),
            per_row=max(number, 4) * 4 * weight.shape[0],
        )


def _refuse_half_on_cpu(model: Any) -> None:
    weight = model.get_input_embeddings().weight
    if weight.device.type == "cpu" and weight.dtype in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"weights of {str(weight.dtype).removeprefix('torch.')} on a CPU",
            where=type(model).__name__,
            expected="float32 or float64",
            fix="CPUs compute in half precision slowly and coarsely; call model.float() first.",
        )


@contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """Put the model in evaluation mode with frozen weights, and back afterwards."""
    training = {part: part.training for part in model.modules()}
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for part, mode in training.items():
            part.training = mode


def attribute(
    model: Any,
    tokenizer: Any,
    prompt: str,
    answer: str,
    rule: str = "gauss_legendre",
    nodes: int = 8,
    site: str = "post_activation",
    tolerance: float = 1e-3,
    objective: str = "probability",
    answer_tokens: str = "error",
    answer_form: AnswerForm | str = "as_follows",
) -> Attribution:
    """Score every feed-forward neuron of `model` for one prompt and its answer.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face decoder language model, in any state; it is left exactly as it was.
    prompt
        What the model reads. The neurons are those at its last token.
    answer
        What it should produce next, as it follows the prompt in running text (a missing space
        between the two is supplied).
    rule, nodes
        The integration rule (`kntrace.attribution.rules.RULES`) and its number of points; or
        `adaptive`, which takes as many as each layer needs.
    site
        Which tensor is "the neuron" (`kntrace.models.feedforward.SITES`).
    tolerance
        Relative error of a layer's scores at which `adaptive` stops, and above which a layer
        counts as not converged.
    objective, answer_tokens
        What is attributed, and what to do with an answer of several tokens; see
        `kntrace.Settings`.
    answer_form
        `as_follows`, `space` or `no_space`; see `kntrace.models.tokens.encode`.

    Returns
    -------
    Attribution
        `.score` (layer, neuron), `.gap` (layer,), `.probability`, `.rank`,
        `.activation` (layer, neuron).

    Raises
    ------
    ModelError, SettingsError
        With one line that says what does not fit.
    """
    settings = Settings.of(
        rule=rule,
        nodes=nodes,
        site=site,
        tolerance=tolerance,
        objective=objective,
        answer_tokens=answer_tokens,
    )
    with Engine(model, tokenizer, settings) as engine:
        return engine.attribute_many([engine.encode(prompt, answer, answer_form)])[0]
