"""Pretrain a small model on the windows of a text, keeping a state from which to go on."""

from __future__ import annotations

import csv
import io
import time
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from kntrace.errors import SuiteError
from kntrace.grow.corpus import Windows
from kntrace.grow.folder import folder_of, keep_checkpoint, write_whole
from kntrace.grow.learner import Learner, token_loss
from kntrace.grow.network import Shape, new_model
from kntrace.grow.recipe import TextRecipe
from kntrace.grow.state import Workplace
from kntrace.grow.tokenizer import size_of
from kntrace.progress import Progress

__all__ = ["CURVE", "TextPretraining"]

CURVE = "loss.csv"


class TextPretraining:
    """One training of a recipe, in one go or in several.

    Each number belongs to the weights after `step` updates: the loss is that of the batch they
    are changed by next, so that a checkpoint's row says how good that checkpoint is.

    Parameters
    ----------
    recipe
        What is grown.
    windows, tokenizer
        What is learnt from.
    folder, workplace
        Where the checkpoints and the state of training are kept.
    threads
        For the record.
    every
        After how many seconds the state is kept anew; it is also kept at each checkpoint.
    """

    def __init__(
        self,
        recipe: TextRecipe,
        windows: Windows,
        tokenizer: PreTrainedTokenizerFast,
        folder: Path,
        workplace: Workplace,
        *,
        threads: int,
        every: float,
    ) -> None:
        self._recipe, self._windows, self._tokenizer = recipe, windows, tokenizer
        self._folder, self._workplace, self._every = folder, workplace, every
        # The caller's default device may be another one.
        with torch.device("cpu"):
            self._model = new_model(recipe.architecture, _shape(recipe, tokenizer))
        self._learner = Learner(self._model, recipe.learning_rate, recipe.steps)
        self._step = 0
        self._losses = array("d")
        self._held_out: dict[int, float] = {}
        self._sessions: list[dict[str, Any]] = []
        self._began, self._saved = time.monotonic(), time.monotonic()
        self._go_on()
        self._session: dict[str, Any] = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": self._step,
            "threads": threads,
        }

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(tensor.numel() for tensor in self._model.parameters())

    @property
    def states(self) -> list[dict[str, Any]]:
        """For each checkpoint its step, the tokens learnt from by then and its held-out loss."""
        return [
            {"step": step, "tokens": self._tokens(step), "held_out_loss": loss}
            for step, loss in self._held_out.items()
        ]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """When training was at work, up to the last state kept in each."""
        mine = {"to_step": self._step, "seconds": round(time.monotonic() - self._began, 1)}
        return [*self._sessions, self._session | mine]

    def run(self, progress: Progress) -> None:
        """Train to the last checkpoint from where training stands."""
        last = self._recipe.marks[-1]
        with torch.device("cpu"):
            while True:
                if self._step in self._recipe.marks and self._step not in self._held_out:
                    self._keep()
                elif time.monotonic() - self._saved >= self._every:
                    self._save()
                progress("grow", self._step, last, self._said())
                if self._step == last:
                    return
                batch = self._windows.batch(self._step, self._recipe.batch)
                self._losses.append(self._learner.learn(batch, self._step))
                self._step += 1

    def _keep(self) -> None:
        """Keep a checkpoint, and then the state, which says that the checkpoint is there."""
        self._held_out[self._step] = self._held_out_loss()
        keep_checkpoint(folder_of(self._folder, self._step), self._model, self._tokenizer)
        self._save()

    def _save(self) -> None:
        write_whole(self._folder / CURVE, self._curve())
        self._workplace.save(
            {
                "step": self._step,
                "losses": torch.tensor(self._losses, dtype=torch.float64),
                "held_out": self._held_out,
                "sessions": self.sessions,
                **self._learner.state(),
            }
        )
        self._saved = time.monotonic()

    def _go_on(self) -> None:
        """Take up the state that was kept last, if there is one."""
        state = self._workplace.load()
        if state is None:
            return
        self._learner.restore(state)
        self._step = state["step"]
        self._losses = array("d", state["losses"].tolist())
        self._held_out = state["held_out"]
        self._sessions = state["sessions"]
        for step in self._held_out:
            if not folder_of(self._folder, step).is_dir():
                raise SuiteError(
                    f"{folder_of(self._folder, step).name} is gone, though training went on to "
                    f"step {self._step}",
                    where=self._folder,
                    expected="every checkpoint that was kept",
                    fix="Put it back, or remove the whole folder to begin anew.",
                )

    def _held_out_loss(self) -> float:
        """Mean cross entropy (nats) of a token in the windows that are not learnt from."""
        self._model.eval()
        total = 0.0
        with torch.no_grad():
            for batch in self._windows.held_out_batches(self._recipe.batch):
                total += float(token_loss(self._model, batch)) * len(batch)
        return total / self._windows.held_out

    def _tokens(self, step: int) -> int:
        return step * self._recipe.batch * self._recipe.context

    def _said(self) -> str:
        loss = f"loss {self._losses[-1]:.2f}" if self._losses else "untrained"
        return (
            f"{loss}, held out {list(self._held_out.values())[-1]:.2f}" if self._held_out else loss
        )

    def _curve(self) -> str:
        """The losses as a table: one row a step, and one for the weights as they now are."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("step", "tokens", "loss", "held_out_loss", "learning_rate"))
        for step in range(self._step + 1):
            learnt = step < self._step
            rows.writerow(
                (
                    step,
                    self._tokens(step),
                    self._losses[step] if learnt else "",
                    self._held_out.get(step, ""),
                    self._learner.rate(step) if learnt else "",
                )
            )
        return text.getvalue()


def _shape(recipe: TextRecipe, tokenizer: PreTrainedTokenizerFast) -> Shape:
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    tokens = size_of(tokenizer)
    return Shape(recipe.layers, recipe.hidden, recipe.heads, tokens, recipe.context, special)
