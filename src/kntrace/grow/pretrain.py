"""Pretrain a tiny model on the corpus of a world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kntrace.grow.folder import folder_of, keep_checkpoint
from kntrace.grow.learner import Learner
from kntrace.grow.network import Shape, new_model
from kntrace.grow.questions import Questions
from kntrace.grow.recipe import Recipe
from kntrace.grow.tokenizer import PAD, SPECIAL, START, word_tokenizer
from kntrace.grow.worlds import World
from kntrace.progress import Progress

__all__ = ["Pretraining"]

_CONTEXT_LENGTH = 64
_IGNORED = SPECIAL.index(PAD)


class Pretraining:
    """One run of a recipe on its world, saving its checkpoints under `folder`.

    Attributes
    ----------
    model, tokenizer
        As they stand.
    losses
        Mean cross entropy of a token, in nats, for each step taken.
    states
        For each checkpoint its step, the tokens seen, and how the questions were answered.
    """

    def __init__(self, recipe: Recipe, world: World, folder: Path) -> None:
        self.losses: list[float] = []
        self.states: list[dict[str, Any]] = []
        self._recipe, self._folder = recipe, folder
        vocabulary = world.vocabulary()
        self.tokenizer = word_tokenizer(vocabulary)
        corpus = world.corpus(recipe.steps * recipe.batch, np.random.default_rng([recipe.seed, 1]))
        # The caller's default device may be another one.
        with torch.device("cpu"):
            self._rows = _encode(corpus, (*SPECIAL, *vocabulary))
            shape = _shape(recipe, len(SPECIAL) + len(vocabulary))
            self.model = new_model(recipe.architecture, shape)
            self._questions = Questions(world.study(), self.tokenizer)
        self._learner = Learner(self.model, recipe.learning_rate, recipe.steps)

    def run(self, progress: Progress) -> None:
        """Train from the first step to the last checkpoint."""
        marks = self._recipe.marks
        tokens, answered = 0, ""
        for step in range(marks[-1] + 1):
            if step in marks:
                state = {"step": step, "tokens": tokens, **self._questions.ask(self.model)}
                self.states.append(state)
                self.keep(step)
                answered = f", {state['accuracy']['grouped']:.0%} answered"
            loss = f"loss {self.losses[-1]:.2f}" if self.losses else "untrained"
            progress("grow", step, marks[-1], loss + answered)
            if step < marks[-1]:
                tokens += self._train(step)

    def _train(self, step: int) -> int:
        """Take one step; returns the number of tokens it learnt from."""
        size = self._recipe.batch
        batch = self._rows[step * size : (step + 1) * size]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=_IGNORED)
        self.losses.append(self._learner.learn(ids, step, ignored=_IGNORED))
        return int((ids[:, 1:] != _IGNORED).sum())

    def keep(self, step: int) -> None:
        """Save the model as it stands."""
        keep_checkpoint(folder_of(self._folder, step), self.model, self.tokenizer)


def _shape(recipe: Recipe, vocabulary: int) -> Shape:
    special = {
        "pad_token_id": SPECIAL.index(PAD),
        "bos_token_id": SPECIAL.index(START),
        "eos_token_id": SPECIAL.index(START),
    }
    return Shape(recipe.layers, recipe.hidden, recipe.heads, vocabulary, _CONTEXT_LENGTH, special)


def _encode(sentences: Sequence[str], tokens: Sequence[str]) -> list[Tensor]:
    """Token ids of each sentence, with the start token before and after it."""
    ids = {token: index for index, token in enumerate(tokens)}
    edge = ids[START]
    return [
        torch.tensor([edge, *(ids[token] for token in sentence.split()), edge])
        for sentence in sentences
    ]
