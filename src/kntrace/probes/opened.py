"""The checkpoints of a run, opened one after the other for what their weights can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kntrace.archive import Run
from kntrace.attribution.encoding import Reader
from kntrace.documents import read_text
from kntrace.effects.statistics import jackknife
from kntrace.errors import AnalysisError, ModelError
from kntrace.models.feedforward import Stack, find_stack
from kntrace.models.load import LoadedCheckpoint
from kntrace.models.scored import checkpoints_of, load_scored
from kntrace.models.tokens import Encoded
from kntrace.probes.asking import Answers, ask, text_losses
from kntrace.probes.firing import TextRead, corpus_of, read_corpus
from kntrace.probes.read_out import ReadOut, read_out
from kntrace.probes.spikes import spikes
from kntrace.probes.surgery import Change, changed, value_vectors
from kntrace.progress import Progress, silent
from kntrace.suite import Suite
from kntrace.suite.schedules import Steps
from kntrace.threads import torch_threads

__all__ = ["OpenedCheckpoint", "Weights"]


class Weights:
    """The checkpoints of a run whose weights a view may read; see `kntrace.views.base.Weights`.

    Parameters
    ----------
    run
        A finished run, whose checkpoints can still be loaded.
    steps
        Which checkpoints, as `load_suite` takes them; those that a view looks at by itself
        unless given.
    suite
        The run's suite, if its checkpoints were moved.
    device, threads
        Where, and with how many processor threads; changes no number beyond rounding.
    progress
        Told of the checkpoints done, in the stage `weights`.
    """

    def __init__(
        self,
        run: Run,
        *,
        steps: Steps = None,
        suite: Suite | None = None,
        device: str = "cpu",
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self._run, self._steps, self._suite = run, steps, suite
        self._device, self._threads, self._progress = device, threads, progress

    def opened(
        self, otherwise: str, *, backwards: bool = False
    ) -> Iterator[tuple[int, OpenedCheckpoint]]:
        """One checkpoint after the other, with its position in the run.

        Its weights are loaded when something is asked of it, and not before.

        Parameters
        ----------
        otherwise
            Which ones where nobody said so: `all`, `last`, `ends` (the first and the last), or
            others as `steps`.
        backwards
            Begin with the last one.

        Raises
        ------
        RunError
            If the weights are not those that were scored.
        SuiteError
            If a checkpoint is not there.
        """
        steps = self._steps if self._steps is not None else otherwise
        ends = steps == "ends"
        how = None if steps == "last" else "all" if ends else steps
        chosen = checkpoints_of(self._run, self._suite, how)
        if ends:
            chosen = {place: chosen[place] for place in dict.fromkeys((min(chosen), max(chosen)))}
        with torch_threads(self._threads):
            items = list(chosen.items())
            for done, (place, checkpoint) in enumerate(items[::-1] if backwards else items):
                self._progress("weights", done, len(chosen), checkpoint.label)
                load = partial(load_scored, self._run, place, checkpoint, device=self._device)
                yield place, OpenedCheckpoint(self._run, load)
        self._progress("weights", len(chosen), len(chosen))


def _a_token(losses: npt.NDArray[np.float64]) -> float:
    """Nats a token, of (text, 2) sums and numbers."""
    total, count = losses.sum(axis=0)
    return float(total / count)


def _rise(whole: npt.NDArray[np.float64], without: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Interval over texts of how much more is lost a token."""
    places = range(len(whole))
    rest = (
        [
            _a_token(np.delete(without, place, 0)) - _a_token(np.delete(whole, place, 0))
            for place in places
        ]
        if len(whole) > 2
        else []
    )
    found = jackknife(_a_token(without) - _a_token(whole), rest)
    return found.low, found.high


class OpenedCheckpoint:
    """One checkpoint in memory, as views ask it: arrays in, arrays out."""

    def __init__(
        self,
        run: Run,
        loaded: LoadedCheckpoint | Callable[[], LoadedCheckpoint],
        prompts: dict[str, list[list[Encoded]]] | None = None,
    ) -> None:
        self._run, self._given = run, loaded
        self._prompts = {} if prompts is None else prompts

    @cached_property
    def _loaded(self) -> LoadedCheckpoint:
        return self._given() if callable(self._given) else self._given

    @property
    def model(self) -> Any:
        """The model."""
        return self._loaded.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._loaded.tokenizer

    @cached_property
    def stack(self) -> Stack:
        """Its feed-forward layers."""
        return find_stack(self.model)

    @cached_property
    def vocabulary(self) -> int:
        """Tokens that have both a name and a row in the unembedding."""
        rows = int(self.model.get_output_embeddings().weight.shape[0])
        return min(rows, len(self.tokenizer))

    def prompts(self, wording: str) -> list[list[Encoded]]:
        """Every word's prompts with their answers, as the model reads them."""
        if wording not in self._prompts:
            self._prompts[wording] = self._encoded(wording)
        return self._prompts[wording]

    def _encoded(self, wording: str) -> list[list[Encoded]]:
        study = self._run.study
        reader = Reader(self.model, self.tokenizer, self._run.settings)
        columns = [place for place, (name, _) in enumerate(study.slots) if name == wording]
        found = []
        for word in study.words:
            texts = study.rendered(word)
            found.append(
                [
                    reader.encode(text, word.answer, study.answer_form, word.alternatives)
                    for column in columns
                    if (text := texts[column]) is not None
                ]
            )
        return found

    def answers(self, wording: str) -> npt.NDArray[np.int64]:
        """First token of every word's answer, as it follows the word's first prompt, (word,)."""
        return np.array([some[0].answer[0] for some in self.prompts(wording)], dtype=np.int64)

    def token(self, token: int) -> str:
        """A token as text."""
        return str(self.tokenizer.decode([token]))

    def read_out(
        self, neurons: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], top: int
    ) -> ReadOut:
        """See `kntrace.probes.read_out.read_out`."""
        return read_out(self.model, self.stack, neurons, tokens, top, self.vocabulary)

    def spikes(self, wording: str, coordinate: tuple[int, int, int] | None = None) -> pd.DataFrame:
        """See `kntrace.probes.spikes.spikes`; of every word's first prompt."""
        return spikes(self.model, self.stack, self._texts(wording), coordinate)

    def losses_without(
        self, wording: str, coordinate: tuple[int, int, int], draws: int, seed: int
    ) -> dict[str, float]:
        """Loss of every word's first prompt and answer, whole and with weights set to zero.

        Parameters
        ----------
        coordinate
            Layer, row and column of the weight in question.
        draws, seed
            Random weights of the same matrix, one after the other.

        Returns
        -------
        dict
            `loss`, nats a token; `loss_weight`, `loss_column`, `loss_largest` without the
            weight, its column, and the largest weight of the matrix; `loss_random`, the mean
            over random ones, and `random_most`, the most that any of them changes it. For each
            of the four `rise_NAME_low` and `_high`, a 95 % interval of its rise over prompts
            (jackknife). And the answers themselves: `probability` and `log_odds` as they are,
            `probability_weight` and `log_odds_weight` without the weight.
        """
        layer, row, column = coordinate
        matrix = value_vectors(self.stack.layers[layer]).detach()
        place = int(matrix.abs().argmax())
        rng = np.random.default_rng((seed, layer))
        random = [
            Change(layer, rng.integers(matrix.shape[0], size=1), 0.0, int(of))
            for of in rng.integers(matrix.shape[1], size=draws)
        ]
        texts = self._texts(wording)
        one, largest = np.array([column]), np.array([place // matrix.shape[1]])
        weight = Change(layer, one, 0.0, row)

        def losses(*changes: Change) -> npt.NDArray[np.float64]:
            with changed(self.stack, changes):
                return text_losses(self.model, texts)

        whole = losses()
        drawn = [losses(change) for change in random]
        without = {
            "weight": losses(weight),
            "column": losses(Change(layer, one)),
            "largest": losses(Change(layer, largest, 0.0, place % matrix.shape[1])),
            "random": np.mean(drawn, axis=0),
        }
        before = self.ask(texts)
        with changed(self.stack, [weight]):
            after = self.ask(texts)
        rises = {name: _rise(whole, some) for name, some in without.items()}
        return {
            "loss": _a_token(whole),
            **{f"loss_{name}": _a_token(some) for name, some in without.items()},
            "random_most": max(abs(_a_token(some) - _a_token(whole)) for some in drawn),
            **{
                f"rise_{name}_{end}": value
                for name, ends in rises.items()
                for end, value in zip(("low", "high"), ends, strict=True)
            },
            **{
                f"{name}{end}": float(value.mean())
                for end, answers in (("", before), ("_weight", after))
                for name, value in (
                    ("probability", np.exp(answers.log_probability)),
                    ("log_odds", answers.log_odds),
                )
            },
        }

    def _texts(self, wording: str) -> list[Encoded]:
        return [some[0] for some in self.prompts(wording)]

    def ask(self, prompts: Sequence[Encoded]) -> Answers:
        """See `kntrace.probes.asking.ask`."""
        return ask(self.model, prompts)

    def erased(self, neurons: npt.NDArray[np.int64]) -> AbstractContextManager[None]:
        """Inside the `with`, these neurons write nothing, at any token.

        Parameters
        ----------
        neurons
            (neuron,), counted through all layers.
        """
        layers, columns = np.divmod(neurons, self.stack.width)
        return changed(
            self.stack,
            [Change(int(layer), columns[layers == layer]) for layer in np.unique(layers)],
        )

    @property
    def tied(self) -> bool:
        """Whether unembedding and input embedding are one matrix."""
        head, table = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        return bool(head.weight.data_ptr() == table.weight.data_ptr())

    def edited(
        self,
        neurons: npt.NDArray[np.int64],
        signs: npt.NDArray[np.float64],
        tokens: tuple[int, int],
        rows: str,
        scale: tuple[float, float],
    ) -> AbstractContextManager[None]:
        """Inside the `with`, value vectors are moved from one token's row to another's.

        v becomes v + s |v| (-a e / |e| + b e' / |e'|), where e and e' are the rows of the old
        token and the new one, s the sign of the neuron's activation, and a, b the scale.

        Parameters
        ----------
        neurons, signs
            (neuron,), counted through all layers.
        tokens
            The old one and the new one.
        rows
            Of the `unembedding`, or of the input `embedding`.

        Raises
        ------
        ModelError
            If these rows are not as wide as the residual stream.

        References
        ----------
        Dai et al. 2022, with the input embedding, which BERT shares with its unembedding.
        """
        source = {
            "unembedding": self.model.get_output_embeddings,
            "embedding": self.model.get_input_embeddings,
        }[rows]()
        table = source.weight.detach()
        old, new = (table[token] / table[token].norm().clamp_min(1e-30) for token in tokens)
        layers, columns = np.divmod(neurons, self.stack.width)
        changes = []
        for layer in np.unique(layers):
            here = layers == layer
            vectors = value_vectors(self.stack.layers[layer]).detach()[columns[here]]
            if vectors.shape[1] != table.shape[1]:
                raise ModelError(
                    f"rows of the {rows} with {table.shape[1]} components",
                    where=type(self.model).__name__,
                    expected=f"the residual stream's {vectors.shape[1]}",
                )
            sign = torch.as_tensor(signs[here], device=table.device).to(vectors.dtype)[:, None]
            step = scale[1] * new - scale[0] * old
            moved = vectors + sign * vectors.norm(dim=1, keepdim=True) * step
            changes.append(Change(int(layer), columns[here], moved))
        return changed(self.stack, changes)

    def firing(
        self, corpus: str, length: int, tokens: int, share: float | None, seed: int
    ) -> TextRead:
        """See `kntrace.probes.firing`; `corpus` is a text file.

        Raises
        ------
        AnalysisError
            If it cannot be read, or is too short or too regular to judge from.
        """
        text = read_text(corpus, AnalysisError, what="a text file")
        rows = corpus_of(self.tokenizer, text, length, tokens)
        return read_corpus(self.model, self.stack, rows, share, seed)
