"""Making a run folder, leftovers, the lock, and disks that say no."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from archives import (  # noqa: F401  (fixtures)
    FINGERPRINT,
    PROMPTS,
    copied_run,
    make,
    random_block,
    study,
    suite,
    tree,
    whole_run,
)
from kntrace.archive import (
    Block,
    Run,
    create_run,
    open_run,
    resume_run,
    save_array,
    status,
    writing,
)
from kntrace.errors import RunError
from kntrace.settings import Settings


def test_a_creation_cut_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole", fill=False)
    path = tmp_path / "run"

    def cut(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kntrace.archive.opening.write_record", cut)
        with pytest.raises(KeyboardInterrupt):
            make(path)
    with pytest.raises(RunError, match="stopped while it was being made"):
        open_run(path)
    assert resume_run(path, study(), suite(), Settings()) is None
    run = make(path, fill=False)
    assert tree(run.path) == tree(whole.path)


def test_leftovers_of_killed_writers_go(run: Run) -> None:
    before = tree(run.path)
    scores = run.path / "scores.zarr"
    for leftover in (
        *(scores / "score" / "c.0.0.0.0.deadbeef.partial", scores / "gap" / "zarr.beef.partial"),
        *(run.path / "study.yaml.partial", scores / "zarr.ab.partial"),
    ):
        leftover.write_bytes(b"half")
    (run.path / "analysis" / "formation.zarr.new.partial").mkdir()
    with writing(run.path):
        assert resume_run(run.path, study(), suite(), Settings()) is not None
    assert tree(run.path) == before
    assert list((run.path / "analysis").iterdir()) == []


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with writing(path):
        with pytest.raises(RunError, match=rf"another kntrace run.*process {os.getpid()}"):
            writing(path).__enter__()
        make(path)
    with writing(path):
        pass
    assert not (path / ".lock").exists()


def test_a_lock_on_a_file_that_is_gone_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder leaves just between a newcomer's opening the file and locking it."""
    path, flock = tmp_path / "run", fcntl.flock

    def late(held: int, how: int) -> None:
        monkeypatch.undo()
        (path / ".lock").unlink()
        flock(held, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with writing(path), pytest.raises(RunError, match="another kntrace run"):
        writing(path).__enter__()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys, time; from kntrace.archive import writing\n"
        "with writing(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    ).replace("sys.argv[1]", f"__import__('pathlib').Path({str(path)!r})")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"process {holder.pid}"):
            writing(path).__enter__()
        holder.kill()
    assert (path / ".lock").exists()
    with writing(path):
        make(path)


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with writing(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with writing(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


@pytest.fixture
def locked_out(tmp_path: Path) -> Iterator[Path]:
    """A folder with a finished run that this process may read but not write."""
    home = Path(tempfile.mkdtemp())
    make(home / "run").scores[
        "score"
    ].load()  # what is imported late may lie where root alone reads
    folders = [home, *(item for item in home.rglob("*") if item.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # whom no mode stops
        os.seteuid(65534)
    yield home / "run"
    if root:
        os.seteuid(0)
    for folder in folders:
        folder.chmod(0o755)
    shutil.rmtree(home)


def test_a_read_only_run_can_be_read_but_not_written(locked_out: Path) -> None:
    run = open_run(locked_out)
    assert status(run).complete
    assert run.fingerprint(0) == FINGERPRINT
    np.testing.assert_array_equal(
        run.scores["score"].isel(checkpoint=2, word=1).values, random_block(201).score
    )
    refused = r"no permission to write.*writable"
    with pytest.raises(RunError, match=refused):
        writing(locked_out).__enter__()
    with pytest.raises(RunError, match=refused):
        run.write_block(0, 0, random_block(0))
    with pytest.raises(RunError, match=refused):
        run.update_provenance({})
    with pytest.raises(RunError, match=refused):
        make(locked_out.parent / "another")
    with pytest.raises(RunError, match=refused):
        save_array(locked_out / "analysis" / "x.zarr", xr.DataArray([1.0], dims="a"))


def test_a_write_that_fails_loses_nothing(run: Run) -> None:
    """The kernel itself cuts the write, as it does when a quota is used up."""
    before = tree(run.path)
    larger = create_run(
        run.path.parent / "larger", study(), suite(), Settings(), layers=40, width=100
    )
    larger.write_fingerprint(0, FINGERPRINT)
    rng = np.random.default_rng(0)
    block = Block(
        rng.standard_normal((PROMPTS, 40, 100)).astype(np.float32),
        np.zeros((PROMPTS, 40), np.float32),
        np.zeros(PROMPTS, np.float32),
        np.zeros(PROMPTS, np.int32),
        np.full((PROMPTS, 40), 5, np.int32),
        np.ones((PROMPTS, 40), np.int8),
        np.zeros((PROMPTS, 40, 100), np.float32),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"could not be written: File too large.*is kept"):
            larger.write_block(0, 3, block)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (0, 3) in larger.missing()
    assert not list(larger.path.rglob("*.partial"))
    larger.write_block(0, 3, block)
    assert larger.damaged() == []
    assert tree(run.path) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """On a real file system of half a megabyte, where this process may mount one."""
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_archive_folder import *
disk = Path(sys.argv[1])
run = create_run(disk / "run", study(), suite(), Settings(), layers=40, width=100)
rng = np.random.default_rng(0)
block = Block(rng.standard_normal((PROMPTS, 40, 100)).astype("f4"), np.zeros((PROMPTS, 40), "f4"),
              np.zeros(PROMPTS, "f4"), np.zeros(PROMPTS, "i4"),
              np.full((PROMPTS, 40), 5, "i4"), np.ones((PROMPTS, 40), "i1"),
              np.zeros((PROMPTS, 40, 100), "f4"))
done = 0
try:
    for checkpoint, word in run.missing():
        run.write_fingerprint(checkpoint, FINGERPRINT)
        run.write_block(checkpoint, word, block)
        done += 1
except RunError as error:
    assert "the disk is full" in str(error), error
else:
    raise SystemExit("never full")
try:
    run.update_provenance({"note": "x" * 10**6})
except RunError as error:
    assert "the disk is full" in str(error), error
assert run.provenance == {}
assert not list(disk.rglob("*.partial"))
assert done > 0 and len(run.missing()) == 24 - done and run.damaged() == []
print("kept", done)
"""
    mount = f"mount -t tmpfs -o size=900k none {tmp_path} && exec "
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    inside = mount + " ".join(subprocess.list2cmdline([part]) for part in ('"$@"',))
    inside = mount + '"$@"'
    result = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", inside, "sh", *command], capture_output=True, text=True
    )
    if "kept" not in result.stdout and "Traceback" not in result.stderr:
        pytest.skip(f"no mounts here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr


def test_a_full_disk_is_said_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(RunError, match=r"the disk is full.*every finished block is kept"):
        run.write_block(0, 0, random_block(5))
