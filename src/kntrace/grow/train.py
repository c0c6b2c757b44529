"""Pretrain a tiny GPT-NeoX on a world and keep its checkpoints."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from kntrace.documents import write_yaml
from kntrace.errors import SettingsError, SuiteError
from kntrace.grow.tokenizer import SPECIAL, START, word_tokenizer
from kntrace.grow.worlds import World, make_plan, make_world
from kntrace.progress import Progress, silent
from kntrace.study import Study
from kntrace.suite import Suite, load_suite

__all__ = ["Recipe", "grow", "schedule"]

# Early training changes most, so the first checkpoints lie close together.
_EARLY = (0, 1, 4, 16, 32, 64)
_CONTEXT_LENGTH = 64


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a suite's weights, besides the machine.

    Attributes
    ----------
    world, world_seed
        What is learnt: the world's name, and the seed of its dealing.
    seed
        Of the corpus drawn from the world, and of the initial weights.
    layers, hidden, heads
        Shape of the model; a layer has 4 x hidden neurons.
    steps, batch
        Optimizer steps, and sentences in each.
    checkpoints
        How many states are kept, the first and the last among them.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    """

    world: str = "structured"
    world_seed: int = 0
    seed: int = 0
    layers: int = 4
    hidden: int = 128
    heads: int = 4
    steps: int = 600
    batch: int = 64
    checkpoints: int = 20
    learning_rate: float = 1e-3

    def check(self) -> None:
        """Raise `SettingsError` if this cannot be grown."""
        make_plan(self.world)
        for name in ("layers", "hidden", "heads", "steps", "batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} = {getattr(self, name)}", expected="1 or more")
        if self.hidden % (2 * self.heads):
            raise SettingsError(
                f"hidden = {self.hidden} with heads = {self.heads}",
                expected="an even number of channels in each head",
            )
        if not 2 <= self.checkpoints <= self.steps + 1:
            raise SettingsError(
                f"checkpoints = {self.checkpoints} with steps = {self.steps}",
                expected="at least 2, and at most one a step and one before the first",
            )


def schedule(steps: int, checkpoints: int) -> list[int]:
    """Steps at which the state is kept: 0, some early ones, then evenly to the last."""
    early = [step for step in _EARLY if step < steps][: max(1, checkpoints // 3)]
    later = np.linspace(early[-1], steps, checkpoints - len(early) + 1)[1:]
    kept = sorted({*early, *(round(step) for step in later)})
    # Rounding may let two fall together; the gaps are filled from the steps that are left.
    spare = (step for step in range(steps + 1) if step not in kept)
    return sorted([*kept, *(next(spare) for _ in range(checkpoints - len(kept)))])


def grow(
    out: Path | str,
    *,
    progress: Progress = silent,
    threads: int = 1,
    **recipe: Any,
) -> Suite:
    """Pretrain a tiny GPT-NeoX suite: one Hugging Face folder a checkpoint.

    Beside the folders `step0` ... lie `suite.yaml`, the matching `study.yaml` (questions in
    phrasings that the corpus does not hold), `world.yaml` (the truth) and `training.json`
    (loss, and how well the held-out questions were answered at each checkpoint).

    Parameters
    ----------
    out
        A folder that does not exist or is empty. If it holds a finished suite of the same
        recipe, nothing is done; an unfinished one is begun anew.
    threads
        CPU threads. The same recipe gives the same weights, bit for bit, on the same machine
        with the same number of threads.
    recipe
        Fields of `Recipe`.

    Raises
    ------
    SettingsError
        If the recipe cannot be grown.
    SuiteError
        If the folder holds something else, or a suite of another recipe.

    Notes
    -----
    Cost: the default recipe takes about a minute on one core and 70 MB of disk.
    """
    unknown = sorted(set(recipe) - set(Recipe.__dataclass_fields__))
    if unknown:
        known = ", ".join(Recipe.__dataclass_fields__)
        raise SettingsError(f"unknown setting {unknown[0]!r}", expected=f"one of {known}")
    chosen = Recipe(**recipe)
    chosen.check()
    folder = Path(out)
    if _is_finished(folder, chosen):
        return load_suite(folder)
    world = make_world(chosen.world, chosen.world_seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "recipe.json", json.dumps(asdict(chosen), indent=2))
    _write(folder / "study.yaml", world.study().to_yaml())
    _write(folder / "world.yaml", write_yaml(world.truth()))
    with _own_torch(chosen.seed, threads), _quiet_transformers():
        kept = _Training(chosen, world, folder).run(progress)
    # Written last: a folder with a suite.yaml is finished.
    _write(folder / "suite.yaml", write_yaml({"name": folder.name, "checkpoints": kept}))
    return load_suite(folder)


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / "recipe.json"
    if not folder.is_dir() or not record.is_file():
        raise SuiteError("exists and is not a grown suite", where=folder, fix="Give a new folder.")
    there = json.loads(record.read_text(encoding="utf-8"))
    wanted = asdict(recipe)
    differing = [name for name in wanted if there.get(name) != wanted[name]]
    if differing:
        changes = ", ".join(f"{name} {there.get(name)} -> {wanted[name]}" for name in differing)
        raise SuiteError(
            f"holds a suite grown otherwise ({changes})", where=folder, fix="Give a new folder."
        )
    if (folder / "suite.yaml").is_file():
        return True
    for part in folder.glob("step*"):
        shutil.rmtree(part)
    return False


class _Training:
    """One run of the recipe."""

    def __init__(self, recipe: Recipe, world: World, folder: Path) -> None:
        self._recipe = recipe
        self._folder = folder
        vocabulary = world.vocabulary()
        self._tokenizer = word_tokenizer(vocabulary)
        rng = np.random.default_rng([recipe.seed, 1])
        self._rows = _encode(
            world.corpus(recipe.steps * recipe.batch, rng), (*SPECIAL, *vocabulary)
        )
        self._model = _new_model(recipe, len(SPECIAL) + len(vocabulary))
        self._questions = _Questions(world.study(), self._tokenizer)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
        )

    def run(self, progress: Progress) -> list[dict[str, Any]]:
        """Train; returns the entries of suite.yaml."""
        recipe = self._recipe
        losses: list[float] = []
        states: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        marks = set(schedule(recipe.steps, recipe.checkpoints))
        tokens = 0
        for step in range(recipe.steps + 1):
            if step in marks:
                states.append({"step": step, **self._questions.ask(self._model)})
                self._keep(step)
                label = f"step{step}"
                kept.append({"label": label, "step": step, "tokens": tokens, "folder": label})
            if step < recipe.steps:
                loss, seen = self._train(step)
                losses.append(loss)
                tokens += seen
            right = states[-1]["accuracy"]["grouped"]
            detail = f"loss {losses[-1]:.2f}, {right:.0%} answered" if losses else ""
            progress("grow", step, recipe.steps, detail)
        record = {
            "recipe": asdict(recipe),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "loss": losses,
            "checkpoints": states,
        }
        _write(self._folder / "training.json", json.dumps(record, indent=1))
        return kept

    def _train(self, step: int) -> tuple[float, int]:
        recipe = self._recipe
        batch = self._rows[step * recipe.batch : (step + 1) * recipe.batch]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _pace(step, recipe.steps)
        self._model.train()
        logits = self._model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), int((ids[:, 1:] != 0).sum())

    def _keep(self, step: int) -> None:
        """Save a complete Hugging Face folder; it has its name only once it is whole."""
        folder = self._folder / f"step{step}"
        partial = self._folder / f".step{step}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        self._model.save_pretrained(partial)
        self._tokenizer.save_pretrained(partial)
        partial.rename(folder)


class _Questions:
    """The study's held-out questions, asked of the model in training."""

    def __init__(self, study: Study, tokenizer: PreTrainedTokenizerFast) -> None:
        slots = [wording for wording, _ in study.slots]
        asked = [
            (word.group, wording, text, word.answer)
            for word in study.words
            for wording, text in zip(slots, study.rendered(word), strict=True)
            if text is not None
        ]
        self._group = np.array([group for group, _, _, _ in asked])
        self._wording = np.array([wording for _, wording, _, _ in asked])
        rows = [torch.tensor(tokenizer(text)["input_ids"]) for _, _, text, _ in asked]
        self._last = torch.tensor([len(row) - 1 for row in rows])
        self._ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._answer = torch.tensor(tokenizer.convert_tokens_to_ids([a for *_, a in asked]))

    def ask(self, model: GPTNeoXForCausalLM) -> dict[str, Any]:
        """Share of right answers and mean P(answer), by wording and by group."""
        model.eval()
        rows = torch.arange(len(self._ids))
        with torch.no_grad():
            logits = model(self._ids, use_cache=False).logits[rows, self._last]
        right = (logits.argmax(-1) == self._answer).numpy()
        probability = logits.softmax(-1)[rows, self._answer].numpy()

        def means(values: Any, keys: Any) -> dict[str, float]:
            return {str(key): float(values[keys == key].mean()) for key in dict.fromkeys(keys)}

        return {
            "accuracy": means(right, self._wording),
            "probability": means(probability, self._wording),
            "probability_by_group": means(probability, self._group),
        }


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
        pad_token_id=0,
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


@contextmanager
def _own_torch(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its threads, and leave both as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text + "\n" * (not text.endswith("\n")), encoding="utf-8")
    partial.replace(path)
