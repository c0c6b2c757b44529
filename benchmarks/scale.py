"""What planning, listing, checking and resuming cost for a study of 2,000 words x 154 checkpoints.

    python benchmarks/scale.py [--words N] [--checkpoints N] [--folder DIR] [--only NAME ...]

The archive is real but for its scores: every block has its six files, which are hard links to
those of one block of 2 x 8 neurons, so that 308,000 blocks are made in a minute. Each task runs
in a process of its own, twice; the faster one counts. Seconds are those of the task without the
start of Python, on the clock and of the processor; memory is the most that the process held
beyond what it held before the task. The names are many, but the bytes behind them few: what a
disk takes to read scores comes on top.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kntrace
from kntrace.archive import Block, convergence, create_run, source_state
from kntrace.archive.chunks import block_chunks
from kntrace.archive.folder import SCORES
from kntrace.progress import silent

LAYERS, WIDTH, PROMPTS = 2, 8, 4
# A file may have so many names on common file systems.
_LINKS = 30_000


def make_study(path: Path, words: int) -> None:
    """Write words w0.. in twenty groups, with four questions each."""
    lines = ["name: large", 'template: "Q. {question} A."', "groups:"]
    for place in range(words):
        if place % -(-words // 20) == 0:
            lines.append(f"  g{place}:")
        asked = ", ".join(f'"what is thing {place} of kind {kind}?"' for kind in range(PROMPTS))
        lines.append(f"    w{place}: [{asked}]")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_suite(folder: Path, checkpoints: int) -> None:
    """Make folders that look like checkpoints; nobody loads them."""
    for place in range(checkpoints):
        made = folder / f"step{place * 1000}"
        made.mkdir(parents=True)
        (made / "config.json").write_text('{"model_type": "gpt_neox"}')
        (made / "model.safetensors").write_bytes(b"\0" * 64)


def make_run(home: Path) -> None:
    """Create a run whose blocks are all done."""
    study, suite = kntrace.load_study(home / "study.yaml"), kntrace.load_suite(home / "suite")
    run = create_run(home / "run", study, suite, kntrace.Settings(), layers=LAYERS, width=WIDTH)
    rng = np.random.default_rng(0)
    shape = (PROMPTS, LAYERS, WIDTH)
    block = Block(
        rng.normal(size=shape).astype(np.float32),
        np.zeros(shape[:2], dtype=np.float32),
        np.full(PROMPTS, 0.5, dtype=np.float32),
        np.zeros(PROMPTS, dtype=np.int32),
        np.full(shape[:2], 5, dtype=np.int32),
        np.ones(shape[:2], dtype=np.int8),
    )
    for place in range(len(suite)):
        run.write_fingerprint(place, f"{place:064x}")
    # Resuming looks at a checkpoint again whose files are not those that were read.
    read = {one.label: {"files": source_state(one)} for one in suite}
    run.update_provenance({"checkpoints": read})
    run.write_block(0, 0, block)
    scores = run.path / SCORES
    links = block_chunks(scores, 0, 0)
    done = 1
    for place in range(len(suite)):
        for word in range(len(study.words)):
            if place == word == 0:
                continue
            files = block_chunks(scores, place, word)
            if done % _LINKS == 0:
                for file, link in zip(files, links, strict=True):
                    shutil.copyfile(link, file)
                links = files
            else:
                for file, link in zip(files, links, strict=True):
                    os.link(link, file)
            done += 1


def _resume(home: Path, *, verify: bool) -> None:
    kntrace.run(
        kntrace.load_study(home / "study.yaml"),
        kntrace.load_suite(home / "suite"),
        home / "run",
        progress=silent,
        verify=verify,
    )


def _check(home: Path) -> None:
    from kntrace.lint import check_study

    check_study(home / "study.yaml")


def _status(home: Path, *, verify: bool) -> None:
    from kntrace.sweep import status

    found = status(home / "run", verify=verify)
    if not found.complete:
        raise SystemExit(str(found)[:2000])


def _block(home: Path) -> None:
    scores = kntrace.open_run(home / "run").scores
    scores["score"].isel(checkpoint=-1, word=-1).to_numpy()


def _count(home: Path) -> None:
    convergence(kntrace.open_run(home / "run"))


TASKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "study": ("load_study", lambda home: kntrace.load_study(home / "study.yaml")),
    "check": ("check, without a tokenizer", _check),
    "suite": ("load_suite, folders", lambda home: kntrace.load_suite(home / "suite")),
    "open": ("open_run", lambda home: kntrace.open_run(home / "run")),
    "missing": ("which blocks are missing", lambda home: kntrace.open_run(home / "run").missing()),
    "block": ("open the scores, read one block", _block),
    "status": ("status, blocks counted only", lambda home: _status(home, verify=False)),
    "resume": ("resume a finished run, unverified", lambda home: _resume(home, verify=False)),
    "convergence": (
        "count paths and nodes",
        lambda home: convergence(kntrace.open_run(home / "run")),
    ),
    "verify": ("resume, every chunk verified", lambda home: _resume(home, verify=True)),
    "full": ("status, every chunk verified", lambda home: _status(home, verify=True)),
}


def measure(home: Path, name: str) -> dict[str, float]:
    """Run one task in this process."""
    import xarray  # noqa: F401  (what any of them imports is not what it costs)

    import kntrace.lint
    import kntrace.sweep  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, spent = time.perf_counter(), time.process_time()
    TASKS[name][1](home)
    seconds, processor = time.perf_counter() - start, time.process_time() - spent
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "processor": processor, "mib": (after - before) / 1024}


def main() -> None:
    """Make the archive where there is none, and print one row a task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--checkpoints", type=int, default=154)
    parser.add_argument("--folder", type=Path, help="Made and kept; used again if it is there.")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(options.folder, options.task)))
        return
    with tempfile.TemporaryDirectory() as made:
        home = options.folder or Path(made)
        if not (home / "run").exists():
            home.mkdir(parents=True, exist_ok=True)
            make_study(home / "study.yaml", options.words)
            make_suite(home / "suite", options.checkpoints)
            make_run(home)
        blocks = options.words * options.checkpoints
        print(f"{options.words:,} words x {options.checkpoints} checkpoints: {blocks:,} blocks\n")
        print("| task | seconds | of the processor | memory, MiB |")
        print("| --- | --- | --- | --- |", flush=True)
        for name in options.only:
            command = [sys.executable, __file__, "--folder", str(home), "--task", name]
            found = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(2)
            ]
            best = min(found, key=lambda one: one["seconds"])
            print(
                f"| {TASKS[name][0]} | {best['seconds']:.1f} | {best['processor']:.1f} | "
                f"{best['mib']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
