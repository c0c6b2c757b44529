"""Run, disturb, go on: for an hour, and see that nothing is lost, left behind or growing.

`python benchmarks/soak.py --minutes 60` keeps one run folder. Each cycle takes some of it away,
begins the sweep in a process of its own, disturbs that in a way drawn at random, looks at what is
there, and finishes the sweep in this process. It must end with the bytes of undisturbed work, and
leave no process, no half-written or temporary file, and no memory behind.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

from faults import PARTS, _chunks, _expect, _said, _start, grow, tree

# Sorted into what is done to the process and what to the files that it leaves.
_SIGNALS = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM, "interrupted": signal.SIGINT}


_PATIENCE = 600.0
"""Seconds that a process has to end, on a machine that may be busy."""


def some_chunk(folder: Path, chance: random.Random) -> Path | None:
    """One chunk of the archive, if there is any."""
    there = sorted((folder / "scores.zarr").glob("*/c.*"))
    return chance.choice(there) if there else None


def truncate(folder: Path, chance: random.Random) -> None:
    """Cut a chunk short."""
    if (chunk := some_chunk(folder, chance)) is not None:
        os.truncate(chunk, chance.randrange(chunk.stat().st_size))


def flip(folder: Path, chance: random.Random) -> None:
    """Turn one bit of a chunk over."""
    if (chunk := some_chunk(folder, chance)) is not None:
        data = bytearray(chunk.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        chunk.write_bytes(data)


def lose(folder: Path, chance: random.Random) -> None:
    """Delete a chunk."""
    if (chunk := some_chunk(folder, chance)) is not None:
        chunk.unlink()


def leave_half(folder: Path, chance: random.Random) -> None:
    """Leave what a writer that died would leave: part of a chunk under its passing name."""
    if (chunk := some_chunk(folder, chance)) is not None:
        half = chunk.read_bytes()[: chunk.stat().st_size // 2]
        chunk.with_name(f"{chunk.name}.partial").write_bytes(half)


def move(folder: Path, chance: random.Random) -> None:
    """Carry the folder somewhere else and back, which changes every inode."""
    away = folder.with_name("away")
    shutil.copytree(folder, away)
    shutil.rmtree(folder)
    away.rename(folder)


_DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "bit flipped": flip,
    "chunk lost": lose,
    "half written": leave_half,
    "copied and moved": move,
}


def take_away(folder: Path, chance: random.Random) -> None:
    """Undo some of the work: all of it, or a random part of its blocks."""
    if not folder.exists() or chance.random() < 0.2:
        shutil.rmtree(folder, ignore_errors=True)
        return
    share = chance.uniform(0.2, 0.9)
    for chunk in (folder / "scores.zarr").glob("score/c.*"):
        if chance.random() < share:
            chunk.unlink()


def disturb(folder: Path, how: str, duration: float, chance: random.Random) -> bool:
    """Begin the sweep elsewhere and stop it by a signal; whether it was still at work."""
    child, told = _start(PARTS["run"], folder)
    time.sleep(chance.uniform(0, duration))
    with suppress(ProcessLookupError):  # it was done
        os.kill(child.pid, _SIGNALS[how])
    child.join(_PATIENCE)
    _expect(child.exitcode is not None, f"a child that was {how} goes on")
    return _said(told) != "done"


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Files, pipes and sockets that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> int:
    """Processes that descend from this one, multiprocessing's own servers left out."""
    mine, found = {os.getpid()}, []
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parts[2])):
        try:
            number, rest = status.parts[2], status.read_text(encoding="utf-8").rsplit(")", 1)[1]
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(rest.split()[1]) in mine:
            mine.add(int(number))
            if b"forkserver" not in command and b"resource_tracker" not in command:
                found.append(number)
    return len(found)


def soak(home: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Go through cycles until the time is up; what was done and what came of it."""
    import kntrace
    from kntrace.archive import status

    chance, work, folder = random.Random(seed), PARTS["run"].work, home / "run"
    grow(home / "suite")
    begun = time.monotonic()
    work(folder)
    duration, wanted = time.monotonic() - begun, tree(folder)
    end, done, held = time.monotonic() + 60 * minutes, Counter[str](), list[int]()
    opened = descriptors()
    while time.monotonic() < end:
        take_away(folder, chance)
        how = chance.choice(sorted(_SIGNALS))
        done[how if disturb(folder, how, duration, chance) else "finished before"] += 1
        if (folder / "scores.zarr").exists() and chance.random() < 0.7:
            damage = chance.choice(sorted(_DAMAGE))
            _DAMAGE[damage](folder, chance)
            done[damage] += 1
        whole = {
            chunk: seen
            for chunk, seen in _chunks(folder).items()
            if is_whole(chunk, folder, wanted)
        }
        work(folder)
        _expect(tree(folder) == wanted, f"cycle {sum(done.values())} ends otherwise")
        _expect(whole.items() <= _chunks(folder).items(), "whole blocks were computed again")
        _expect(status(kntrace.open_run(folder)).damaged == (), "damage was left")
        done["cycles"] += 1
        held.append(resident())
        if done["cycles"] % 50 == 0:  # what is known if this itself is stopped
            print(json.dumps({**done, "resident_mib": in_tenths(held)}), file=sys.stderr)
    return {
        **dict(sorted(done.items())),
        "resident_mib": in_tenths(held),
        "descriptors_more": descriptors() - opened,
        "processes_left": children(),
    }


def in_tenths(held: list[int]) -> list[float]:
    """Means of each tenth of the time, in MiB: something that leaks goes on rising."""
    ends = [len(held) * tenth // 10 for tenth in range(11)]
    parts = [held[begin:end] for begin, end in pairwise(ends) if end > begin]
    return [round(sum(part) / len(part) / 2**20, 1) for part in parts]


def is_whole(chunk: Path, folder: Path, wanted: dict[str, bytes]) -> bool:
    """Whether a chunk, and all of its block, is as undisturbed work leaves it."""
    block = tuple(chunk.name.split(".")[1:3])
    files = [
        name for name in wanted if tuple(Path(name).name.split(".")[1:3]) == block and "/c." in name
    ]
    return all(
        (folder / name).is_file() and (folder / name).read_bytes() == wanted[name] for name in files
    )


def main() -> int:
    """Soak, and print the account as one line of JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    # A shell that starts this in the background has it, and all that it starts, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    get_temp_dir()  # multiprocessing's own, which stays until the end
    with tempfile.TemporaryDirectory(prefix="kntrace-soak-") as home:
        temporary = Path(home) / "tmp"
        temporary.mkdir()
        # Of this process and its children: what is left there at the end was left behind.
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        account = soak(Path(home), given.minutes, given.seed)
        left = [path.name for path in temporary.rglob("*") if path.is_file()]
        half = [path.name for path in Path(home).rglob("*.partial")]
        print(json.dumps({**account, "temporary_files": left, "half_written": half}), flush=True)
        _expect(not left and not half, "files were left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
