"""Grow a suite on a text of one's own; killed at any moment, the same call goes on."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

from kntrace.errors import SettingsError, SuiteError
from kntrace.grow.corpus import Windows, id_type, write_tokens
from kntrace.grow.folder import (
    RECIPE,
    RECORD,
    SUITE,
    clear,
    is_finished,
    partial_of,
    suite_of,
    write_whole,
)
from kntrace.grow.isolation import own_torch, quiet_transformers
from kntrace.grow.recipe import TextRecipe, marks_of
from kntrace.grow.state import Workplace
from kntrace.grow.text import FileFacts, Text
from kntrace.grow.text_training import CURVE, TextPretraining
from kntrace.grow.tokenizer import load_tokenizer, size_of, train_tokenizer
from kntrace.progress import Progress, silent
from kntrace.suite import Suite, load_suite

__all__ = ["grow_text"]

_PACKAGES = ("kntrace", "torch", "transformers", "tokenizers", "safetensors", "numpy")

_VOCABULARY = 4096

# A tokenizer learns nothing more from more text than this; of a longer one it is shown evenly
# spaced pieces.
_TOKENIZER_BYTES = 2**30


def grow_text(
    out: Path | str,
    corpus: Path | str | Sequence[Path | str],
    *,
    tokenizer: str | None = None,
    vocabulary: int | None = None,
    architecture: str = "gpt_neox",
    layers: int = 4,
    hidden: int = 128,
    heads: int = 4,
    context: int = 128,
    steps: int = 1500,
    batch: int = 16,
    checkpoints: str | int | Sequence[int] = "log:20",
    learning_rate: float = 1e-3,
    held_out: float = 0.02,
    seed: int = 0,
    threads: int = 1,
    save_every: float = 60.0,
    progress: Progress = silent,
) -> Suite:
    """Pretrain a small model on a text: one Hugging Face folder a checkpoint.

    Beside the folders `step0` ... lie `suite.yaml`, `loss.csv` (for each step the tokens learnt
    from, the loss, the learning rate, and at checkpoints the held-out loss), `recipe.json` (what
    was asked for) and `training.json` (the text and its hashes, the tokenizer, the versions, the
    sessions).

    Parameters
    ----------
    out
        A folder that does not exist or is empty, or that holds this suite, finished or not.
    corpus
        Text files in UTF-8, or folders of them; they are read a piece at a time.
    tokenizer
        One to use: a folder, or the id of a hub repository.
    vocabulary
        Otherwise, how many tokens the byte-level tokenizer has that is trained on the text;
        4096 if neither is given.
    architecture
        `gpt_neox` or `llama`.
    layers, hidden, heads
        Shape of the model; a layer has 4 x hidden neurons.
    context
        The longest text the model can read, in tokens.
    steps, batch
        Optimizer steps, and windows of `context` predicted tokens in each.
    checkpoints
        At which steps the state is kept, see `marks_of`. Training ends at the last one.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    held_out
        Share of the text that is not learnt from, at most 512 windows, evenly spread.
    seed
        Of the initial weights and of the order of the windows.
    threads
        CPU threads. The same call gives the same weights, bit for bit, on the same machine with
        the same versions of the libraries and the same number of threads, however often it was
        killed and given again.
    save_every
        Seconds between two states of training from which a later call can go on.
    progress
        Told what is read, and the step, the loss and the last held-out loss.

    Returns
    -------
    Suite
        The checkpoints, as `load_suite` reads them from the folder.

    Raises
    ------
    SettingsError
        If this cannot be grown, or the text cannot be read.
    ModelError
        If the tokenizer cannot be loaded.
    SuiteError
        If the folder holds something else, or a suite of another recipe or text, or cannot be
        written, or if another process is growing it.

    Notes
    -----
    Cost: 6 operations a parameter and token; as it stands, some 10 minutes on one core for the
    3 million tokens of 1500 steps. Disk: 2 bytes a token of the text while it grows (4 from a
    vocabulary of 65537), 4 a parameter in each checkpoint, 12 in the state of training.
    """
    places = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    folder = Path(out)
    _check_places(folder, places, threads, save_every)
    if tokenizer is None and vocabulary is None:
        vocabulary = _VOCABULARY
    text = Text.of(places)
    settings = {
        "tokenizer": tokenizer,
        "vocabulary": vocabulary,
        "architecture": architecture,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "context": context,
        "seed": seed,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "held_out": held_out,
        "checkpoints": _marks(checkpoints, steps),
    }
    # What cannot be grown is said before a long text is read.
    TextRecipe.of(text="", **settings)
    facts = text.survey(progress)
    recipe = TextRecipe.of(text=_digest(facts), **settings)
    if is_finished(folder, recipe, (RECORD, CURVE, SUITE)):
        Workplace(folder).remove()
        last = recipe.marks[-1]
        progress("grow", last, last, "this suite was there already")
        return load_suite(folder)
    try:
        _grow_into(folder, recipe, text, facts, threads, save_every, progress)
    except (OSError, SafetensorError) as failure:
        raise SuiteError(
            f"could not be written ({failure})",
            where=folder,
            fix="Make room and give the same command again: it goes on from the last saved state.",
        ) from failure
    return load_suite(folder)


def _grow_into(
    folder: Path,
    recipe: TextRecipe,
    text: Text,
    facts: list[FileFacts],
    threads: int,
    save_every: float,
    progress: Progress,
) -> None:
    workplace = Workplace(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The first file of all: it says whose folder this is.
    write_whole(folder / RECIPE, json.dumps(recipe.model_dump(mode="json"), indent=2))
    with workplace.held(), own_torch(recipe.seed, threads), quiet_transformers():
        if workplace.load() is None:
            clear(folder, recipe.marks)
        tokenizer = _tokenizer(recipe, text, workplace, progress)
        if not workplace.tokens.is_file():
            write_tokens(text, tokenizer, workplace.tokens, progress)
        windows = Windows(
            workplace.tokens,
            id_type(tokenizer),
            recipe.context,
            held_out=recipe.held_out,
            seed=recipe.seed,
        )
        training = TextPretraining(
            recipe, windows, tokenizer, folder, workplace, threads=threads, every=save_every
        )
        training.run(progress)
        record = _record(recipe, facts, tokenizer, windows, training)
        write_whole(folder / RECORD, json.dumps(record, indent=1))
        # Written last: a folder with a suite.yaml is finished.
        suite = suite_of(folder, _name(text), training.states)
        write_whole(folder / SUITE, suite.to_yaml(relative_to=folder.absolute()))
    workplace.remove()


def _tokenizer(
    recipe: TextRecipe, text: Text, workplace: Workplace, progress: Progress
) -> PreTrainedTokenizerFast:
    """The suite's tokenizer, made or fetched once and kept with the unfinished suite."""
    if not workplace.tokenizer.is_dir():
        if recipe.vocabulary is not None:
            made = train_tokenizer(_shown(text, progress), recipe.vocabulary)
        else:
            made = load_tokenizer(recipe.tokenizer or "")
        partial = partial_of(workplace.tokenizer)
        shutil.rmtree(partial, ignore_errors=True)
        made.save_pretrained(partial)
        partial.rename(workplace.tokenizer)
    return load_tokenizer(str(workplace.tokenizer))


def _shown(text: Text, progress: Progress) -> Iterator[str]:
    """The pieces from which a tokenizer is trained."""
    stride = -(-text.bytes // _TOKENIZER_BYTES)
    done = 0
    for number, (file, piece) in enumerate(text.pieces()):
        done += len(piece.encode())
        progress("vocabulary", min(done, text.bytes), text.bytes, text.files[file].name)
        if number % stride == 0:
            yield piece


def _record(
    recipe: TextRecipe,
    facts: list[FileFacts],
    tokenizer: PreTrainedTokenizerFast,
    windows: Windows,
    training: TextPretraining,
) -> dict[str, Any]:
    written = tokenizer.backend_tokenizer.to_str()
    learnt = recipe.marks[-1] * recipe.batch
    return {
        "recipe": recipe.model_dump(mode="json"),
        "text": {
            "files": [asdict(fact) for fact in facts],
            "tokens": windows.tokens,
            "windows": {"learnt": windows.taught, "held_out": windows.held_out},
            "rounds": round(learnt / windows.taught, 3),
        },
        "tokenizer": {
            "tokens": size_of(tokenizer),
            "sha256": hashlib.sha256(written.encode()).hexdigest(),
        },
        "parameters": training.parameters,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": platform.platform(),
        "sessions": training.sessions,
        "seconds": round(sum(session["seconds"] for session in training.sessions), 1),
        "checkpoints": training.states,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        # Run from a source tree that was never installed.
        return "not installed"


def _digest(facts: list[FileFacts]) -> str:
    return hashlib.sha256("".join(fact.sha256 for fact in facts).encode()).hexdigest()


def _name(text: Text) -> str:
    first = text.files[0].stem
    return first if len(text.files) == 1 else f"{first} and {len(text.files) - 1} more"


def _marks(checkpoints: str | int | Sequence[int], steps: int) -> tuple[int, ...]:
    if not isinstance(steps, int) or steps < 1:
        raise SettingsError(f"steps = {steps!r}", expected="a whole number, 1 or more")
    return marks_of(checkpoints, steps)


def _check_places(
    folder: Path, places: Sequence[Path | str], threads: int, save_every: float
) -> None:
    if threads < 1:
        raise SettingsError(f"threads = {threads}", expected="1 or more")
    if not save_every >= 0:
        raise SettingsError(f"save_every = {save_every}", expected="seconds, 0 or more")
    for place in places:
        if folder.absolute().resolve().is_relative_to(Path(place).absolute().resolve()):
            raise SettingsError(
                f"lies in the text's folder {place}",
                where=folder,
                fix="Give a folder elsewhere: what is grown would be taken for text.",
            )
