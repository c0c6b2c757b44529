"""Hold the statistics against grown worlds whose truth is known.

For every case and seed: grow a suite, score it, analyse it, and keep what each distance and the
verdict say. One JSON line a suite; a suite that is in the file is not done again, so that this
can be stopped at any time and gone on with. `error_rates.py` makes the tables of the lines.

    nice -n 19 python benchmarks/validate.py --seeds 100:172 --out build/validate
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

# One thread a process, set before torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

from cases import CASES, FIRST_SEED, FROZEN, FROZEN_FILES, order
from kntrace.verdict import VerdictRule

HOME = Path(__file__).parents[1]
RECORD = "suites.jsonl"


def one(name: str, seed: int, folder: Path, quick: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    """Grow, score and analyse one suite; returns its line."""
    # Here, so that only the processes that grow wait for torch.
    from grown import line

    return line(name, seed, folder, quick, keep)


def state_of_code() -> dict[str, Any]:
    """Which rule and which code the lines are of; ends here if the rule is not the frozen one."""
    git = ("git", "-C", str(HOME))
    changed = subprocess.run(
        [*git, "diff", "--quiet", FROZEN, "--", *FROZEN_FILES], capture_output=True, check=False
    )
    if changed.returncode == 1:
        sys.exit(f"the rule is no longer that of commit {FROZEN}: freeze it anew, with new seeds")
    # Without git (128), as from an archive of the files, nothing can be said.
    described = subprocess.run(
        [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "rule": {
            "commit": FROZEN if changed.returncode == 0 else "unknown",
            **asdict(VerdictRule()),
        },
        "code": described.stdout.strip() or "unknown",
        "torch": version("torch"),
    }


def read(record: Path) -> list[dict[str, Any]]:
    """The lines there are; a last one that a kill cut short is left out, and the file mended."""
    if not record.exists():
        return []
    text = record.read_text()
    whole, _, rest = text.rpartition("\n")
    if rest:
        record.write_text(whole + "\n" * bool(whole))
    return [json.loads(line) for line in whole.splitlines()]


def numbers(text: str) -> list[int]:
    """`from:to`, or a list such as `100,105`."""
    first, colon, last = text.partition(":")
    return list(range(int(first), int(last))) if colon else [int(one) for one in text.split(",")]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=numbers, default=f"{FIRST_SEED}:{FIRST_SEED + 72}")
    parser.add_argument("--out", type=Path, default=Path("build/validate"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", type=json.loads, default={}, help="recipe, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the mean scores (3 MB a suite)")
    return parser.parse_args(given)


def main() -> None:
    """Grow what is missing, in order."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another process is at work in {given.out}")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(given.workers, mp_context=spawn) as pool:
            work(given, pool)


def work(given: argparse.Namespace, pool: Executor) -> None:
    """Do all suites that have no line yet."""
    code = state_of_code()
    record = given.out / RECORD
    done = {(line["case"], line["seed"]) for line in read(record)}
    todo = [key for key in order(given.cases, given.seeds) if key not in done]
    print(f"{len(done)} suites are there, {len(todo)} to grow", flush=True)
    waiting = {pool.submit(one, *key, given.out, given.quick, given.keep): key for key in todo}
    for number, future in enumerate(as_completed(waiting), 1):
        name, seed = waiting[future]
        failure = future.exception()
        if failure is not None:
            # A broken suite must be seen, and must not end a run of days.
            print(f"{number}/{len(todo)} {name} {seed} FAILED: {failure!r}", flush=True)
            continue
        line = {**future.result(), **code}
        with record.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(
            f"{number}/{len(todo)} {name} {seed}: {line['verdict']} {line['seconds']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
