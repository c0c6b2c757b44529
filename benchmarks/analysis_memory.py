"""Peak memory of `kntrace analyse`, stage by stage, as words and checkpoints grow.

Every size is a run folder of random blocks and is analysed in a process of its own, Linux only.
`beyond` is the peak less what the process held before and less one copy of the formation
processes (words x k x checkpoints numbers of eight bytes).

What is simply held where it is small, a run of 256 MB and one checkpoint of 128, is held up to 8
MB instead, so that small runs show what large ones do.

    OMP_NUM_THREADS=1 python benchmarks/analysis_memory.py
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import kntrace
from kntrace.analysis import analyse, compute
from kntrace.archive import Block, create_run
from kntrace.distance import rows
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite

MB = 1e6


def make(
    path: Path, words: int, checkpoints: int, layers: int, width: int, prompts: int, groups: int
) -> None:
    """Write a run whose blocks are drawn one by one, so that making it needs no memory."""
    asked = {"main": tuple(f"question {place}" for place in range(prompts))}
    study = Study(
        name="drawn",
        words=tuple(
            Word(text=f"word {place}", group=f"group {place * groups // words}", prompts=asked)
            for place in range(words)
        ),
    )
    suite = Suite(
        "drawn",
        tuple(
            Checkpoint(f"step{place}", place, None, f"/no/{place}", None)
            for place in range(checkpoints)
        ),
    )
    settings = Settings(activations=False)
    run = create_run(path, study, suite, settings, layers=layers, width=width)
    rng = np.random.default_rng(0)
    strength = np.exp(rng.standard_normal((groups, layers, width)))
    small = (prompts, layers)
    for checkpoint in range(checkpoints):
        run.write_fingerprint(checkpoint, f"{checkpoint:064x}")
        grown = (checkpoint + 1) / checkpoints
        for word in range(words):
            noise = rng.standard_normal((prompts, layers, width))
            score = 1e-4 * grown * strength[word * groups // words] * np.exp(noise)
            block = Block(
                score.astype(np.float32),
                np.zeros(small, dtype=np.float32),
                np.full(prompts, grown * rng.random(), dtype=np.float32),
                np.zeros(prompts, dtype=np.int32),
                np.full(small, 5, dtype=np.int32),
                np.ones(small, dtype=np.int8),
            )
            run.write_block(checkpoint, word, block)


def resident(field: str) -> int:
    """Bytes that this process holds (`VmRSS`), or has held at most (`VmHWM`)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit("this system does not say how much memory a process holds")
    return int(found[1]) * 1024


class Peaks:
    """A `Progress` that remembers the most memory of every stage."""

    def __init__(self) -> None:
        self.by_stage: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._stage, self._begun = "start", time.monotonic()

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Note the peak up to now, and begin a new one with each stage."""
        peak = resident("VmHWM")
        self.by_stage[self._stage] = max(self.by_stage.get(self._stage, 0), peak)
        if stage != self._stage:
            now = time.monotonic()
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._begun
            self._begun = now
            Path("/proc/self/clear_refs").write_text("5")
            self._stage = stage


def measure(
    path: Path, k: int, permutations: int, distances: list[str], held: int, small: bool
) -> None:
    """Analyse one run, or compact it, and print what it held, as JSON."""
    compute._HELD = rows._MOST = held * 2**20
    run = kntrace.open_run(path)
    warm = np.ones((64, 64)) @ np.ones((64, 64))
    del warm
    before, peaks, start = resident("VmRSS"), Peaks(), time.monotonic()
    if small:
        kntrace.compact(run, path.with_name("compacted"), top=k, progress=peaks)
    else:
        analyse(run, k=k, permutations=permutations, distances=distances, progress=peaks)
    peaks("end", 0, 0)
    print(
        json.dumps(
            {
                "before": before,
                "stages": peaks.by_stage,
                "took": peaks.seconds,
                "seconds": time.monotonic() - start,
                "processor": time.process_time(),
            }
        )
    )


def main() -> None:
    """Print a table with one line a size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="50x4,100x4,200x4,400x4,50x8,50x16,50x32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="A folder for the runs, which stay there.")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--permutations", type=int, default=9)
    parser.add_argument("--distances", default="emd,identity")
    parser.add_argument("--held", type=int, default=8, help="MB that are simply held.")
    parser.add_argument("--stages", action="store_true", help="A line for every stage, too.")
    parser.add_argument("--compact", action="store_true", help="`kntrace compact` instead.")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        wanted = given.distances.split(",")
        measure(given.one, given.k, given.permutations, wanted, given.held, given.compact)
        return
    print("| words | checkpoints | scores, MB | formation, MB | peak, MB | beyond, MB | at | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in given.sizes.split(","):
        words, checkpoints = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as home:
            path = (given.keep or Path(home)) / f"run-{size}"
            if not path.exists():
                shape = given.layers, given.width, given.prompts
                make(path, words, checkpoints, *shape, given.groups)
            command = [sys.executable, __file__, "--one", str(path), "--k", str(given.k)]
            command += ["--permutations", str(given.permutations), "--distances", given.distances]
            command += ["--held", str(given.held), *(["--compact"] if given.compact else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        stage, peak = max(found["stages"].items(), key=lambda entry: entry[1])
        scores = 4 * words * checkpoints * given.prompts * given.layers * given.width
        formation = 8 * words * checkpoints * given.k
        beyond = peak - found["before"] - formation
        print(
            f"| {words} | {checkpoints} | {scores / MB:,.0f} | {formation / MB:.1f} | "
            f"{peak / MB:,.0f} | {beyond / MB:,.0f} | {stage} | {found['seconds']:.0f} |",
            flush=True,
        )
        if given.stages:
            for name, most in found["stages"].items():
                took = found["took"].get(name, 0.0)
                held = (most - found["before"]) / MB
                print(f"    {name}: {held:,.0f} MB, {took:.0f} s", flush=True)
            print(f"    {found['processor']:.0f} s of a processor", flush=True)


if __name__ == "__main__":
    main()
