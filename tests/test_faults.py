"""Work that is killed, runs out of disk, or is carried elsewhere: nothing committed is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # last: it has a conftest too

import faults
import kntrace
from conftest import TinySuite
from kntrace.analysis import analyse, load_analysis
from kntrace.archive import Run, Session, open_run, status
from kntrace.archive.chunks import chunk_name
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.cli import app
from kntrace.errors import KntraceError, RunError
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"Pets": ("cat", "dog", "fox"), "Hues": ("red", "blue", "grey")}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scores = synthetic_scores(groups=GROUPS, checkpoints=2, prompts=2, layers=2, width=4)
    run = synthetic_run(tmp_path_factory.mktemp("faults") / "run", scores)
    analyse(run, k=2, permutations=19)
    return run.path


@pytest.fixture
def run(tmp_path: Path, master: Path) -> Path:
    """A finished and analysed run that the test may do anything to."""
    return Path(shutil.copytree(master, tmp_path / "run"))


# Killed, or out of disk: a few of what `make faults` does by the hundred


@pytest.mark.parametrize("name", ["grow", "analyse", "compact"])
def test_killed_at_random_moments(tmp_path: Path, run: Path, name: str) -> None:
    """`run` is killed often in test_sweep.py."""
    assert run == tmp_path / "run"
    count = faults.kill_often(tmp_path, name, 1)
    assert (count.kills, count.identical) == (1, 1)


@pytest.mark.slow
def test_a_disk_that_runs_full(tmp_path: Path) -> None:
    """Real ones, where this process may mount them."""
    command = ["unshare", "-Urm", sys.executable, str(faults.__file__), "--full-disk"]
    command += ["--part", "grow", "--part", "run"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"no mounts here: {tried.stderr.strip()}")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [json.loads(line)["identical"] for line in ended.stdout.splitlines()] == [True] * 2


# Damaged or stale: said before anything is told of it


@pytest.mark.parametrize("fault", ["missing", "damaged"])
@pytest.mark.parametrize("command", ["analyse", "report", "export"])
def test_nothing_is_told_of_a_run_that_lacks_a_block(run: Path, fault: str, command: str) -> None:
    chunk = run / "scores.zarr" / "score" / "c.1.2.0.0.0"
    if fault == "missing":
        chunk.unlink()
    else:
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
    options = ["--format", "csv"] if command == "export" else []
    ended = CliRunner().invoke(app, [command, str(run), *options])
    assert isinstance(ended.exception, RunError)
    assert fault in str(ended.exception)
    assert "`kntrace run` with the same study" in str(ended.exception)
    assert not (run / "report.html").exists()


def test_a_report_without_looking_at_the_scores_has_to_be_asked_for(run: Path) -> None:
    (run / "scores.zarr" / "score" / "c.1.2.0.0.0").write_bytes(b"torn")
    assert CliRunner().invoke(app, ["report", str(run), "--no-verify"]).exit_code == 0
    assert (run / "report.html").exists()


def test_an_analysis_of_weights_that_are_no_longer_these(run: Path) -> None:
    for file in (run / "scores.zarr" / "fingerprint").glob("c.*"):
        file.unlink()
    opened = open_run(run)
    for place in range(2):
        opened.write_fingerprint(place, "ab" * 32)
    with pytest.raises(KntraceError, match="other weights"):
        load_analysis(opened)
    assert len(opened.missing()) == 12


# Against a loss of power


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was forced to the disk, in order."""
    names: list[str] = []
    real = os.fsync

    def fsync(opened: int) -> None:
        names.append(Path(f"/proc/self/fd/{opened}").readlink().name)
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "sync", lambda: names.append("all"))
    return names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to read names from")
def test_every_chunk_is_forced_to_the_disk_before_the_next(
    tiny_suite: TinySuite, tmp_path: Path, forced: list[str]
) -> None:
    study, suite = tiny_suite.study, tiny_suite.suite
    kntrace.run(study, suite, tmp_path / "plain", threads=1, progress=silent)
    assert not [name for name in forced if name.startswith("c.")]
    forced.clear()
    kntrace.run(study, suite, tmp_path / "synced", threads=1, progress=silent, sync=True)
    assert forced.count("all") == 1
    chunks = [
        (forced[place], forced[place + 1])
        for place, name in enumerate(forced)
        if name.startswith("c.")
    ]
    blocks = 3 * 4
    assert len(chunks) == len(BLOCK_VARIABLES) * blocks + 3  # and a fingerprint a checkpoint
    assert chunks[: 1 + len(BLOCK_VARIABLES)] == [
        ("c.0.0", "fingerprint"),
        *((chunk_name(name, 0, 0), name) for name in BLOCK_VARIABLES),
    ]
    assert chunks[len(BLOCK_VARIABLES)] == ("c.0.0.0.0.0", "score")  # by which a block is done
    assert faults.tree(tmp_path / "synced") == faults.tree(tmp_path / "plain")


def test_a_disk_that_fails_to_sync_is_said_in_words(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_run(run)
    opened.sync()

    def fails(opened: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (run / "scores.zarr" / "fingerprint" / "c.0.0").unlink()
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError, match="Input/output error"):
        opened.write_fingerprint(0, "ab" * 32)


# Clocks and places


def test_a_clock_that_goes_backwards(
    tiny_suite: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second session is dated before the first, whose chunks are from the future."""
    out, study, suite = tmp_path / "run", tiny_suite.study, tiny_suite.suite
    whole = kntrace.run(study, suite, out, threads=1, progress=silent)
    wanted = faults.tree(out)
    future = datetime.now(UTC) + timedelta(days=400)
    for file in out.rglob("*"):
        os.utime(file, (future.timestamp(), future.timestamp()))
    (out / "scores.zarr" / "score" / "c.1.1.0.0.0").unlink()
    kept = faults._chunks(out)

    def earlier(device: str) -> Session:
        return Session(device, started=datetime(1970, 1, 2, tzinfo=UTC))

    monkeypatch.setattr("kntrace.sweep.work.Session", earlier)
    again = kntrace.run(study, suite, out, threads=1, progress=silent)
    assert faults.tree(out) == wanted
    assert kept.items() <= faults._chunks(out).items()
    sessions = again.provenance["sessions"]
    assert [item["blocks"] for item in sessions] == [12, 1]
    assert all(item["seconds"] >= 0 for item in sessions)
    assert isinstance(whole, Run)


def test_a_run_that_was_copied_goes_on_in_both_places(
    tiny_suite: TinySuite, tmp_path: Path
) -> None:
    out, study, suite = tmp_path / "run", tiny_suite.study, tiny_suite.suite
    kntrace.run(study, suite, out, threads=1, progress=silent)
    wanted = faults.tree(out)
    (out / "scores.zarr" / "score" / "c.2.3.0.0.0").unlink()
    shutil.copytree(out, tmp_path / "elsewhere" / "copy")
    shutil.copytree(tiny_suite.folder, tmp_path / "elsewhere" / "suite")
    moved = kntrace.load_suite(tmp_path / "elsewhere" / "suite")
    for folder, series in ((out, suite), (tmp_path / "elsewhere" / "copy", moved)):
        kept = faults._chunks(folder)
        finished = kntrace.run(study, series, folder, threads=1, progress=silent)
        assert status(finished).complete
        assert {k: v for k, v in faults.tree(folder).items() if k != "suite.yaml"} == {
            k: v for k, v in wanted.items() if k != "suite.yaml"
        }
        assert kept.items() <= faults._chunks(folder).items()


def test_settings_are_read_as_they_were_written() -> None:
    for settings in (Settings(), Settings(tolerance=1e-9, rule="simpson", nodes=9)):
        assert Settings.from_yaml(settings.to_yaml()) == settings
