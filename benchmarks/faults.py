"""Kill grow, run, analyse, report, compact at random moments, and see that nothing comes of it.

`python benchmarks/faults.py` kills them 120 times in all (`--kills` 100, and 20 of the last) with
SIGKILL, each time in a process of its own, at a moment drawn evenly from the time that the work
takes. What was left is looked at, the work is begun again, and what it ends with is held against
what it gives when nobody disturbs it, byte for byte. `unshare -Urm python benchmarks/faults.py
--full-disk` does the same with a real file system (tmpfs) that runs full half-way through each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# What the children need is imported once, in the process that they are forked from.
PRELOADED = [
    *("transformers.processing_utils", "transformers.models.gpt_neox.modeling_gpt_neox"),
    *("kntrace.attribution", "kntrace.sweep", "kntrace.grow", "kntrace.report"),
    *("kntrace.analysis", "kntrace.figures", "kntrace.compacting"),
]
# Records of when and how long, which differ from one go to the next.
_DATED = {"training.json", "provenance.json", ".lock"}


def grow(folder: Path) -> None:
    """Grow the smallest suite that a study can be run on."""
    from kntrace.grow import grow as grow_suite

    grow_suite(folder, layers=1, hidden=16, heads=2, steps=40, batch=16, checkpoints=(0, 10, 40))


def run(folder: Path) -> None:
    """Score the suite that lies beside the folder."""
    import kntrace
    from kntrace.progress import silent

    suite = folder.with_name("suite")
    study = kntrace.load_study(suite / "study.yaml")
    kntrace.run(study, kntrace.load_suite(suite), folder, threads=1, progress=silent)


def analyse(folder: Path) -> None:
    """Analyse a finished run."""
    import kntrace
    from kntrace.analysis import analyse as analyse_run

    analyse_run(kntrace.open_run(folder), permutations=99)


def report(folder: Path) -> None:
    """Draw the figures of an analysed run, and write its report."""
    import kntrace
    from kntrace.analysis import load_analysis
    from kntrace.figures import draw_all
    from kntrace.report import write_report

    opened = kntrace.open_run(folder)
    found = load_analysis(opened)
    draw_all(found, folder / "figures", formats=("png",))
    write_report(opened, found)


def compact(folder: Path) -> None:
    """Make a small run of the one that lies beside the folder."""
    import kntrace

    kntrace.compact(kntrace.open_run(folder.with_name("run")), folder)


@dataclass(frozen=True)
class Part:
    """One kind of work: what does it, what of which folder it makes, its share of 100 kills."""

    work: Callable[[Path], None]
    makes: tuple[str, ...]
    share: int
    folder: str = "run"


PARTS = {
    "grow": Part(grow, ("",), 25, "suite"),
    "run": Part(run, ("",), 40),
    "analyse": Part(analyse, ("analysis",), 20),
    "report": Part(report, ("figures", "report.html"), 15),
    "compact": Part(compact, ("",), 20, "compacted"),
}


@dataclass
class Count:
    """What came of killing one kind of work.

    Attributes
    ----------
    kills
        Processes that were killed while they worked; others had just finished.
    identical
        How often the work, begun again, ended with the bytes of undisturbed work.
    kept
        Chunks of committed blocks that were there at a kill; none of them was written again.
    seconds
        All of it took.
    """

    part: str
    kills: int = 0
    too_late: int = 0
    identical: int = 0
    kept: int = 0
    seconds: float = 0.0


def tree(folder: Path) -> dict[str, bytes]:
    """All files by name, but for records of when and how long."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in _DATED
    }


def kill_often(home: Path, name: str, kills: int, seed: int = 0) -> Count:
    """Kill one kind of work so often; `home` holds what the kinds before it have made.

    Raises
    ------
    RuntimeError
        If something was lost, made again that was there, or ends otherwise than undisturbed.
    """
    started, part, count, chance = time.monotonic(), PARTS[name], Count(name), random.Random(seed)
    folder = home / part.folder
    child, told = _start(part, folder)
    before = time.monotonic()
    _expect(_said(told) == "done", f"{name} failed undisturbed")
    duration = time.monotonic() - before
    child.join()
    wanted = tree(folder)
    while count.kills < kills:
        _clear(folder, part)
        child, told = _start(part, folder)
        time.sleep(chance.uniform(0, duration))
        child.kill()
        child.join()
        if child.exitcode != -signal.SIGKILL or _said(told) == "done":
            count.too_late += 1
            # The machine is faster now than it was when the duration was measured.
            duration *= 0.9
            continue
        count.kills += 1
        there = _chunks(folder)
        _look_at(name, folder, wanted)
        part.work(folder)
        _expect(tree(folder) == wanted, f"{name} ends otherwise after kill {count.kills}")
        _expect(not list(folder.rglob("*.partial")), f"{name} left something half written")
        now = _chunks(folder)
        _expect(there.items() <= now.items(), f"{name} wrote chunks again that were there")
        count.identical += 1
        count.kept += len(there)
    count.seconds = round(time.monotonic() - started, 1)
    return count


def fill_disk(disk: Path, name: str) -> int:
    """Let the disk run full in the midst of one kind of work; return how much room there was.

    `disk` is mounted by `main`. The work has to stop in words, and once there is room again to
    end with the bytes that it gives undisturbed.

    Raises
    ------
    RuntimeError
        If it does not.
    """
    from kntrace.errors import KntraceError

    part, folder = PARTS[name], disk / PARTS[name].folder
    before = _used(disk)
    part.work(folder)
    wanted, makes = tree(folder), _used(disk) - before
    _clear(folder, part)
    room = _used(disk) + makes // 2
    _mount(disk, f"remount,size={room}")
    there: dict[Path, tuple[int, int]] = {}
    try:
        part.work(folder)
    except KntraceError as error:
        there = _chunks(folder)
        _expect("full" in str(error) or "No space" in str(error), f"{name}: {error}")
    else:
        _expect(False, f"{name} was done in {room:,} bytes")
    _mount(disk, "remount,size=1g")
    if name != "grow":
        _look_at(name, folder, wanted)
    part.work(folder)
    _expect(tree(folder) == wanted, f"{name} ends otherwise after the disk was full")
    _expect(not list(folder.rglob("*.partial")), f"{name} left something half written")
    _expect(there.items() <= _chunks(folder).items(), f"{name} wrote chunks again")
    return room


def _used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)


def _start(part: Part, folder: Path) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(part.work, folder, theirs))
    child.start()
    theirs.close()
    _expect(_said(mine) == "started", "a child did not start")
    return child, mine


def _said(told: Connection) -> str:
    """What a child says next, "" if it died before."""
    try:
        return str(told.recv())
    except EOFError:
        return ""


def _work(work: Callable[[Path], None], folder: Path, told: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    told.send("started")
    work(folder)
    told.send("done")


def _clear(folder: Path, part: Part) -> None:
    """Take away what the work makes, and nothing else."""
    for name in part.makes:
        place = folder / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def _chunks(folder: Path) -> dict[Path, tuple[int, int]]:
    """The chunks of committed blocks, each with what tells whether it was written again."""
    scores = folder / "scores.zarr"
    # A block's scores come last: where they are, the block is committed.
    blocks = {_block(file) for file in scores.glob("score/c.*") if file.suffix != ".partial"}
    return {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in scores.glob("*/c.*.*.0*")
        if file.suffix != ".partial" and _block(file) in blocks
    }


def _block(chunk: Path) -> tuple[str, ...]:
    return tuple(chunk.name.split(".")[1:3])


def _look_at(name: str, folder: Path, wanted: dict[str, bytes]) -> None:
    """What a kill has left is whole, or says that it is not: never wrong without a word."""
    import kntrace
    from kntrace.analysis import load_analysis
    from kntrace.archive import status
    from kntrace.errors import AnalysisError, RunError

    if name == "grow":
        return
    try:
        opened = kntrace.open_run(folder)
    except RunError as error:
        _expect(name in ("run", "compact"), f"{name} made a run unreadable: {error}")
        return
    _expect(status(opened).damaged == (), f"{name} left damaged blocks")
    if name == "analyse":
        try:
            load_analysis(opened)
        except AnalysisError as error:
            _expect("no finished analysis" in str(error), f"after a kill: {error}")
        else:
            _expect(tree(folder) == wanted, "an analysis that was cut short passes for one")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(what)


def main() -> int:
    """Kill them all, and print what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--full-disk", action="store_true", help="a full disk instead; under `unshare -Urm`"
    )
    options.add_argument("--part", choices=PARTS, action="append", help="only this one")
    given = options.parse_args()
    parts = given.part or list(PARTS)
    if given.full_disk:
        with tempfile.TemporaryDirectory(prefix="kntrace-faults-") as home:
            _mount(Path(home), "size=1g")
            try:
                for name in parts:
                    room = fill_disk(Path(home), name)
                    print(json.dumps({"part": name, "room": room, "identical": True}), flush=True)
            finally:
                subprocess.run(["umount", "--lazy", home], check=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="kntrace-faults-") as home:
        for name in parts:
            kills = -(-given.kills * PARTS[name].share // 100)
            count = kill_often(Path(home), name, kills, given.seed)
            print(json.dumps(count.__dict__), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
