"""Pretrain a tiny GPT-NeoX on the corpus of a world."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from kntrace.grow.questions import Questions
from kntrace.grow.recipe import Recipe
from kntrace.grow.tokenizer import PAD, SPECIAL, START, word_tokenizer
from kntrace.grow.worlds import World
from kntrace.progress import Progress

__all__ = ["Pretraining", "folder_of", "partial_of"]

_CONTEXT_LENGTH = 64
_IGNORED = SPECIAL.index(PAD)


def folder_of(suite: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return suite / f"step{step}"


def partial_of(path: Path) -> Path:
    """What a file or folder is called until it is complete."""
    return path.with_name(f".{path.name}.partial")


class Pretraining:
    """One run of a recipe on its world, saving its checkpoints under `folder`.

    Attributes
    ----------
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
        self._tokenizer = word_tokenizer(vocabulary)
        corpus = world.corpus(recipe.steps * recipe.batch, np.random.default_rng([recipe.seed, 1]))
        # The caller's default device may be another one.
        with torch.device("cpu"):
            self._rows = _encode(corpus, (*SPECIAL, *vocabulary))
            self._model = _new_model(recipe, len(SPECIAL) + len(vocabulary))
            self._questions = Questions(world.study(), self._tokenizer)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
        )

    def run(self, progress: Progress) -> None:
        """Train from the first step to the last checkpoint."""
        marks = self._recipe.marks
        tokens, answered = 0, ""
        for step in range(marks[-1] + 1):
            if step in marks:
                state = {"step": step, "tokens": tokens, **self._questions.ask(self._model)}
                self.states.append(state)
                self._keep(step)
                answered = f", {state['accuracy']['grouped']:.0%} answered"
            loss = f"loss {self.losses[-1]:.2f}" if self.losses else "untrained"
            progress("grow", step, marks[-1], loss + answered)
            if step < marks[-1]:
                tokens += self._train(step)

    def _train(self, step: int) -> int:
        """Take one step; returns the number of tokens it learnt from."""
        recipe = self._recipe
        batch = self._rows[step * recipe.batch : (step + 1) * recipe.batch]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=_IGNORED)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _pace(step, recipe.steps)
        self._model.train()
        logits = self._model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=_IGNORED
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.losses.append(float(loss.detach()))
        return int((ids[:, 1:] != _IGNORED).sum())

    def _keep(self, step: int) -> None:
        """Save a complete Hugging Face folder; it has its name only once it is whole."""
        folder = folder_of(self._folder, step)
        partial = partial_of(folder)
        shutil.rmtree(partial, ignore_errors=True)
        self._model.save_pretrained(partial)
        self._tokenizer.save_pretrained(partial)
        partial.rename(folder)


def _pace(step: int, steps: int) -> float:
    """Share of the full learning rate: a linear start over a tenth, then a cosine to a tenth."""
    rise = min(1.0, (step + 1) / max(1, steps // 10))
    return rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _new_model(recipe: Recipe, vocabulary: int) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=4 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=_CONTEXT_LENGTH,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(START),
        eos_token_id=SPECIAL.index(START),
    )
    return GPTNeoXForCausalLM(config)


def _encode(sentences: Sequence[str], tokens: Sequence[str]) -> list[Tensor]:
    """Token ids of each sentence, with the start token before and after it."""
    ids = {token: index for index, token in enumerate(tokens)}
    edge = ids[START]
    return [
        torch.tensor([edge, *(ids[token] for token in sentence.split()), edge])
        for sentence in sentences
    ]
