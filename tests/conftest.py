"""What several test files share: a suite of tiny random models with a study that fits them."""

from __future__ import annotations

import os
import signal

# Models here are tiny and tests run side by side: one thread each, set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Jobs in the background of a shell ignore Ctrl-C, and so would the commands that tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asks the real hub: what would is answered at once that nobody is there.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hub_server import HubServer
from kntrace.archive import Run
from kntrace.study import Study, load_study
from kntrace.suite import Suite, load_suite

STEPS = (0, 10, 100)

STUDY = """\
name: tiny
template: "Q. {question} A."
groups:
  Pets:
    cat: [which pet says meow, what hunts mice]
    dog: [which pet says woof]
  Hues:
    red: [which hue has blood, what hue stops cars]
    blue: [which hue has the sky, what hue has water]
"""


@dataclass(frozen=True)
class TinySuite:
    """Three checkpoints of a random GPT-NeoX (2 layers x 24 neurons) and a study of 4 words."""

    folder: Path
    study_file: Path

    @property
    def study(self) -> Study:
        return load_study(self.study_file)

    @property
    def suite(self) -> Suite:
        return load_suite(self.folder)


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> TinySuite:
    """Made once a session: never change it, copy it."""
    home = tmp_path_factory.mktemp("tiny")
    study_file = home / "study.yaml"
    study_file.write_text(STUDY)
    for seed, step in enumerate(STEPS):
        save_checkpoint(home / "suite" / f"step{step}", seed=seed)
    return TinySuite(home / "suite", study_file)


@pytest.fixture(scope="session")
def tiny_run(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The study scored over the suite, nothing else. Made once a session: copy it, as above."""
    import kntrace
    from kntrace.progress import silent

    folder = tmp_path_factory.mktemp("tiny run") / "run"
    return kntrace.run(tiny_suite.study, tiny_suite.suite, folder, threads=1, progress=silent)


def save_checkpoint(folder: Path, *, seed: int, layers: int = 2) -> None:
    """Save a random GPT-NeoX with a word-level tokenizer that knows the words of `STUDY`."""
    import tokenizers
    import torch
    import transformers

    from kntrace.study import load_study

    text = folder.parent / "vocabulary.yaml"
    folder.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(STUDY)
    study = load_study(text)
    text.unlink()
    prompts = [prompt for word in study.words for prompt in study.rendered(word) if prompt]
    words = sorted({piece for prompt in prompts for piece in prompt.replace(".", " . ").split()})
    vocabulary = ["<unk>", "<end>", *words, *(word.answer for word in study.words)]

    raw = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {piece: place for place, piece in enumerate(dict.fromkeys(vocabulary))},
            unk_token="<unk>",
        )
    )
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<end>"
    )
    config = transformers.GPTNeoXConfig(
        vocab_size=len(dict.fromkeys(vocabulary)),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def word_tokenizer():
    """Knows the words w1 to w95, each a token of that number: for the models of `families`."""
    import tokenizers
    import transformers

    words = {"<unk>": 0, **{f"w{i}": i for i in range(1, 96)}}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on this machine that huggingface_hub in this process asks, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        home = tmp_path / "home of the hub"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


@pytest.fixture(scope="session")
def run_with_suite(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """That run with its checkpoints beside it, so that it can be copied with them."""
    import kntrace
    from kntrace.progress import silent

    home = tmp_path_factory.mktemp("tiny-run")
    suite = kntrace.load_suite(shutil.copytree(tiny_suite.folder, home / "suite"))
    return kntrace.run(tiny_suite.study, suite, home / "run", threads=1, progress=silent)


@pytest.fixture
def tiny_run_copy(run_with_suite: Run, tmp_path: Path) -> Run:
    """A copy of that run to write into, with its checkpoints beside it."""
    from kntrace.archive import open_run

    return open_run(shutil.copytree(run_with_suite.path.parent, tmp_path / "home") / "run")
