"""Model folders from strangers: what would unfold, loop or allocate is refused in one line."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from conftest import TinySuite
from kntrace.errors import SuiteError
from kntrace.models import load_checkpoint
from kntrace.models.beside import check_beside
from kntrace.suite import Checkpoint

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.fixture
def folder(tiny_suite: TinySuite, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_suite.folder / "step10", tmp_path / "step10"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(folder: Path) -> str:
    """The line in which a folder is refused, before transformers has read anything of it."""
    with pytest.raises(SuiteError) as caught:
        check_beside(folder, "checkpoint step10")
    message = str(caught.value)
    assert message.startswith("checkpoint step10: ")
    assert len(message) < 400
    return message


def test_the_files_of_a_model_pass(folder: Path) -> None:
    check_beside(folder, "here")
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    check_beside(folder, "here")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_brackets_by_the_thousand(folder: Path, name: str) -> None:
    (folder / name).write_text(DEEP)
    assert f"the brackets of {name} are nested more than 64 deep" in refusal(folder)


def test_brackets_in_texts_are_none(folder: Path) -> None:
    change(folder / "tokenizer_config.json", pad_token='"\\[' * 1000)
    check_beside(folder, "here")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "merges.txt", "spiece.model"])
def test_a_gigabyte_of_anything_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(2**40)
    assert f"{name} is larger than 64 MB" in refusal(folder)


def test_entries_by_the_million(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "added_tokens.json").write_text('{"a":[' + "0," * 100_000 + "0]}")
    check_beside(folder, "here")
    monkeypatch.setattr("kntrace.models.beside._MOST_SIGNS", 100_000)
    assert "added_tokens.json has millions of entries" in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "5", '{"a": ', "\xff\xfe", "nul"])
def test_what_is_no_mapping(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text, encoding="latin-1")
    assert "generation_config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *(("num_hidden_layers", "1,000"), ("n_layer", "1,000"), ("decoder_layers", "1,000")),
        *(("num_labels", "100,000"), ("num_experts", "100,000"), ("num_heads", "100,000")),
    ],
)
def test_more_of_anything_than_a_model_has(folder: Path, name: str, most: str) -> None:
    change(folder / "config.json", **{name: 10**9})
    assert f"{name} is 1000000000; expected at most {most}" in refusal(folder)
    change(folder / "config.json", **{name: 2}, text_config={"deeper": [{name: 1e300}]})
    assert f"{name} is 1e+300" in refusal(folder)


def test_tokens_without_end(folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class="T5Tokenizer", extra_ids=10**9)
    assert "extra_ids in tokenizer_config.json is 1000000000" in refusal(folder)


def test_a_tokenizer_that_unfolds_every_letter(folder: Path) -> None:
    def replace(times: int, pattern: dict[str, str]) -> dict[str, Any]:
        one = {"type": "Replace", "pattern": pattern, "content": "a" * 10}
        return {"type": "Sequence", "normalizers": [one] * times}

    for pattern in ({"String": "a"}, {"Regex": ""}):
        change(folder / "tokenizer.json", normalizer=replace(12, pattern))
        assert "more than 10,000 times as long" in refusal(folder)
    change(folder / "tokenizer.json", normalizer=replace(2, {"String": "a"}))
    check_beside(folder, "here")


# Sizes, which are held against the weights


def in_little_room(work: Callable[[], None]) -> None:
    """Let some work have a gigabyte more of addresses than there are now."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * 4096
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are limited on Linux alone")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocab_size", 10**9, "describes a model of .*, and its weights are"),
        ("intermediate_size", 10**10, "describes a model of .*, and its weights are"),
        ("hidden_size", 10**9, "cannot be loaded: RuntimeError: Storage size"),
        ("hidden_size", "many", "cannot be loaded: .*expected int, got str"),
        ("num_attention_heads", 0, "cannot be loaded: ZeroDivisionError"),
        ("vocab_size", -1, "cannot be loaded: RuntimeError: .*negative dimension"),
    ],
)
def test_sizes_that_no_weights_have(folder: Path, name: str, value: object, message: str) -> None:
    """The tensors that would be large are not even in the file, so that none contradicts."""
    file = folder / "model.safetensors"
    kept = {key: one for key, one in load_file(file).items() if "mlp" not in key}
    save_file(kept, file, metadata={"format": "pt"})
    change(folder / "config.json", **{name: value})

    def load() -> None:
        with pytest.raises(SuiteError, match=message) as caught:
            load_checkpoint(Checkpoint("step10", 10, None, str(folder), None))
        assert "\n" not in str(caught.value)

    in_little_room(load)


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(
    tiny_suite: TinySuite, folder: Path, tmp_path: Path
) -> None:
    change(folder / "config.json", num_hidden_layers=10**9)
    command = [sys.executable, "-m", "kntrace", "run", str(tiny_suite.study_file), str(folder)]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "num_hidden_layers is 1000000000" in ended.stderr
    assert "Traceback" not in ended.stderr
