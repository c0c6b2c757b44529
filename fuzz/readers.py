"""Everything of kntrace that reads what a stranger may have made, each as a function of bytes.

A reader may refuse its input with a `KntraceError`, of which the message is one short line that
any terminal can show. Whatever else it raises is a fault of kntrace, and so is taking long or
much memory. The fuzzer (fuzz.py) and the tests (tests/test_untrusted.py) call these.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from unchanged import Unchanged

from kntrace.analysis import analyse
from kntrace.archive import convergence, load_array, open_run, source_config, status
from kntrace.archive.provenance import read_record
from kntrace.documents import read_text
from kntrace.errors import InputError, KntraceError
from kntrace.grow.folder import is_finished
from kntrace.grow.recipe import Recipe
from kntrace.models.beside import check_beside
from kntrace.settings import Settings
from kntrace.study import load_study
from kntrace.study.importing import import_study
from kntrace.suite import Checkpoint, load_suite
from kntrace.suite.names import read_name, reader
from kntrace.suite.weights import find_weights
from kntrace.sweep.baselines import given_baseline
from kntrace.testing import synthetic_run, synthetic_scores

__all__ = ["READERS", "prepare", "read"]

CORPUS = Path(__file__).parent / "corpus"

# What xarray and numpy say of odd files on the way is nobody's concern here.
warnings.simplefilter("ignore")

_HOME = tempfile.TemporaryDirectory(
    prefix="kntrace-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_PLACE = Path(_HOME.name)


def _file(name: str, data: bytes) -> Path:
    path = _PLACE / name
    path.write_bytes(data)
    return path


def _study(suffix: str) -> Callable[[bytes], object]:
    def study(data: bytes) -> None:
        found = load_study(_file(f"study{suffix}", data))
        _ = found.digest, found.groups, found.slots
        for word in found.words:
            found.rendered(word)
        # What was read can be written, and reads as the same.
        again = load_study(_file("again.yaml", found.to_yaml().encode()))
        if again.digest != found.digest:
            raise AssertionError(f"{found.to_yaml()!r} reads as another study")

    return study


def _plain(data: bytes) -> None:
    load_study(_file("plain.yaml", data), groups={"A": ["Cat", "Dog"], "B": ["Red"]})


def _groups(data: bytes) -> None:
    plain = _file("questions.yaml", b"Cat: [which pet]\nDog: [what barks]\nRed: [which hue]\n")
    load_study(plain, groups=_file("groups.yaml", data))


def _suite(data: bytes) -> None:
    found = load_suite(_file("suite.yaml", data))
    _ = found.digest
    again = load_suite(_file("again-suite.yaml", found.to_yaml().encode()))
    if again.digest != found.digest:
        raise AssertionError(f"{found.to_yaml()!r} reads as another suite")


def _settings(data: bytes) -> None:
    text = read_text(_file("settings.yaml", data), InputError, what="settings")
    found = Settings.from_yaml(text)
    if Settings.from_yaml(found.to_yaml()) != found:
        raise AssertionError(f"{found} reads as other settings")


def _imported(name: str, format_name: str | None) -> Callable[[bytes], object]:
    return lambda data: import_study([_file(name, data)], format_name, shared="rename")


def _pararel(data: bytes) -> None:
    one, _, other = data.partition(b"\n--\n")
    files = [_file("patterns.jsonl", one), _file("facts.jsonl", other)]
    import_study(files, "pararel", shared="drop")


def _names(data: bytes) -> None:
    name, _, pattern = data.decode(errors="replace").partition("\n")
    # No file or branch has a longer name.
    read_name(name[:255])
    reader(pattern)(name[:255])


def _record(data: bytes) -> None:
    _file("provenance.json", data)
    read_record(_PLACE)


def _baseline(data: bytes) -> None:
    given_baseline(Settings(), _file("baseline.npy", data))


def _model_folder(data: bytes) -> None:
    """The small files that lie beside weights: all of them hold `data`."""
    folder = _PLACE / "model"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "trainer_state.json", "model.safetensors.index.json"):
        (folder / name).write_bytes(data)
    here = Checkpoint("here", 1, None, str(folder), None)
    source_config(here)
    find_weights([here], {}, ask=False)
    load_suite(_PLACE / "model")


def _beside(data: bytes) -> None:
    """What transformers would read, before it does; the first byte says which file."""
    folder = _PLACE / "beside"
    folder.mkdir(exist_ok=True)
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
    file = folder / names[data[0] % len(names)] if data else folder / names[0]
    try:
        file.write_bytes(data[1:])
        check_beside(folder, "checkpoint here")
    finally:
        file.unlink()


def _recipe(data: bytes) -> None:
    folder = _PLACE / "grown"
    folder.mkdir(exist_ok=True)
    (folder / "recipe.json").write_bytes(data)
    shape = {"world": "flat", "world_seed": 0, "seed": 0, "layers": 1, "hidden": 16, "heads": 2}
    recipe = Recipe.of(**shape, steps=4, batch=4, checkpoints=2, learning_rate=0.01)
    is_finished(folder, recipe, ())


_RUN_FILES = (
    *("study.yaml", "suite.yaml", "settings.yaml", "provenance.json", "scores.zarr/zarr.json"),
    *("scores.zarr/score/zarr.json", "scores.zarr/gap/zarr.json", "scores.zarr/word/zarr.json"),
    *("scores.zarr/word/c/0", "scores.zarr/layer/c/0", "scores.zarr/nodes/c.0.0.0.0"),
    *("scores.zarr/score/c.0.0.0.0.0", "scores.zarr/fingerprint/c.0.0"),
)
_ANALYSIS_FILES = (
    *("analysis.json", "neurons.parquet", "distances.csv", "overlap.csv", "contrast.csv"),
    *("contrast.json", "overlap.json", "verdict.json", "formation.zarr/formation/zarr.json"),
    *("formation.zarr/zarr.json", "formation.zarr/word/zarr.json", "formation.zarr/word/c/0"),
    *("formation.zarr/formation/c/0/0/0", "formation.zarr/rank/zarr.json", "tests.csv"),
    *("reliability.csv", "overlap_by_layer.csv", "early.csv", "times.csv", "statistics.json"),
    "formation_times.parquet",
)


def _made(name: str) -> Path:
    """A finished and analysed run, made once."""
    path = _PLACE / name
    if not path.exists():
        words = {"Pets": ("cat", "dog", "fox"), "Hues": ("red", "blue", "grey")}
        scores = synthetic_scores(groups=words, checkpoints=2, prompts=2, layers=2, width=4)
        # One distance beside the baseline, or its files would be longer than inputs are.
        analyse(synthetic_run(path, scores), k=2, permutations=19, distances=["identity"])
    return path


@cache
def _unchanged() -> Unchanged:
    return Unchanged(_made("run"))


def _sealed(data: bytes) -> bytes:
    """Give a chunk the checksum that it needs to be looked into."""
    import google_crc32c

    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _run(data: bytes) -> None:
    """The first byte says which file of a run folder the others are."""
    run = _made("run")
    file = run / _RUN_FILES[data[0] % len(_RUN_FILES)] if data else run / _RUN_FILES[0]
    before = file.read_bytes()
    try:
        chunk = "/c" in file.as_posix().partition("scores.zarr")[2]
        file.write_bytes(_sealed(data[1:]) if chunk else data[1:])
        opened = open_run(run)
        status(opened)
        convergence(opened)
        opened.scores.load()
    finally:
        file.write_bytes(before)


def _analysis(data: bytes) -> None:
    """The first byte says which file of an analysis the others are; its checksum is right."""
    unchanged = _unchanged()
    folder = _made("run") / "analysis"
    file = folder / _ANALYSIS_FILES[data[0] % len(_ANALYSIS_FILES)] if data else folder / "x"
    if not file.exists():
        return
    head = (folder / "analysis.json").read_bytes()
    before = file.read_bytes()
    try:
        file.write_bytes(_sealed(data[1:]) if "/c/" in file.as_posix() else data[1:])
        content = json.loads(head)
        if file.name in content["files"]:
            content["files"][file.name] = hashlib.sha256(data[1:]).hexdigest()
            (folder / "analysis.json").write_text(json.dumps(content))
        unchanged.read(file)
    finally:
        file.write_bytes(before)
        (folder / "analysis.json").write_bytes(head)


def _array(data: bytes) -> None:
    folder = _PLACE / "array.zarr"
    if not folder.exists():
        shutil.copytree(_made("run") / "analysis" / "formation.zarr", folder)
    names = ("formation", "word", "rank", "step")
    place = folder / names[data[0] % len(names)] / "zarr.json" if data else folder / "zarr.json"
    if not place.exists():
        return
    before = place.read_bytes()
    try:
        place.write_bytes(data[1:])
        load_array(folder)
    finally:
        place.write_bytes(before)


READERS: dict[str, Callable[[bytes], object]] = {
    "study-yaml": _study(".yaml"),
    "study-json": _study(".json"),
    "plain": _plain,
    "groups": _groups,
    "suite": _suite,
    "settings": _settings,
    "csv": _imported("table.csv", "csv"),
    "jsonl": _imported("table.jsonl", "jsonl"),
    "lre": _imported("relation.json", "lre"),
    "counterfact": _imported("cases.json", "counterfact"),
    "pararel": _pararel,
    "names": _names,
    "record": _record,
    "baseline": _baseline,
    "model-folder": _model_folder,
    "beside": _beside,
    "recipe": _recipe,
    "run": _run,
    "analysis": _analysis,
    "array": _array,
}


def prepare(name: str) -> None:
    """Make what a reader needs before its first input."""
    if name in ("run", "analysis", "array"):
        _made("run")
    if name == "analysis":
        _unchanged()


def read(name: str, data: bytes) -> str | None:
    """Give `data` to a reader; return the message with which it is refused, if it is."""
    try:
        READERS[name](data)
    except KntraceError as error:
        message = str(error)
        message.encode()
        if "\n" in message or len(message) > 5000:
            raise AssertionError(f"a message of {len(message)} characters") from error
        return message
    return None
