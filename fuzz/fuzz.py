"""Fuzz the readers with atheris, guided by the coverage of what reads in kntrace, and of its YAML.

`python fuzz/fuzz.py` gives every reader its share of a million inputs, one after the other;
`--reader NAME --inputs N` one reader, or several. What is found stops that reader, and lies in
--findings as a file: mend it, and put the file into fuzz/corpus/NAME, from where the tests read
it ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

# No reader may ask the hub while it is fuzzed; in the processes of the readers too.
os.environ["HF_HUB_OFFLINE"] = "1"

HERE = Path(__file__).parent

# Inputs in a million: many where one takes a tenth of a millisecond, as JSON and tables do, fewer
# of YAML, and fewest where a whole folder is opened for each.
SHARES = {
    **{"names": 100_000, "csv": 130_000, "jsonl": 100_000, "record": 60_000, "study-json": 200_000},
    **{"lre": 80_000, "counterfact": 60_000, "pararel": 40_000, "baseline": 20_000},
    **{"settings": 40_000, "study-yaml": 40_000, "suite": 40_000, "plain": 20_000},
    **{
        "groups": 20_000,
        "model-folder": 7_000,
        "beside": 40_000,
        "recipe": 20_000,
        "run": 1_200,
        "analysis": 4_000,
        "array": 1_500,
    },
}
# Bytes of an input; the longest file of an analysis has more.
_LONGEST = {"analysis": 13_000}
_LONG = 2048

_YAML = {"study-yaml", "plain", "groups", "suite", "settings", "run"}
# What reads, beside the reader of YAML where that is read; to follow all of kntrace takes a minute
# before the first input, and makes what the readers of a run need, an analysis, slow.
_FOLLOWED = (
    *("kntrace.documents", "kntrace.study", "kntrace.suite", "kntrace.settings", "kntrace.archive"),
    *("kntrace.audit", "kntrace.analysis.files", "kntrace.analysis.tables", "kntrace.verdict"),
    *("kntrace.models.beside", "kntrace.models.patterns", "kntrace.grow.folder"),
    *("kntrace.grow.recipe", "kntrace.sweep.baselines"),
)


def main() -> int:
    """Fuzz what was asked for, and print what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reader", choices=SHARES, action="append", dest="names")
    options.add_argument("--inputs", type=int, help="in all; a million unless given")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        _fuzz(given.names[0], given.inputs, given.seed, given.findings)
    total = given.inputs or 1_000_000
    names = given.names or list(SHARES)
    whole = sum(SHARES[name] for name in names)
    given.findings.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names:
        inputs = -(-SHARES[name] * total // whole)
        rows.append(_one(name, inputs, given.seed, given.findings))
        print(json.dumps(rows[-1]), flush=True)
        (given.findings / "counts.json").write_text(json.dumps(rows, indent=1))
    done, seconds = sum(row["inputs"] for row in rows), sum(row["seconds"] for row in rows)
    bad = [row["reader"] for row in rows if row["exit"]]
    print(f"{done:,} inputs in {seconds:,.0f} s; faults in: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def _one(name: str, inputs: int, seed: int, findings: Path) -> dict[str, object]:
    """Fuzz one reader in a process of its own."""
    command = [sys.executable, __file__, "--one", "--reader", name, "--inputs", str(inputs)]
    command += ["--seed", str(seed), "--findings", str(findings)]
    started = time.monotonic()
    log = findings / f"{name}.log"
    with log.open("wb") as file:
        ended = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(errors="replace")
    counts = [int(found) for found in re.findall(r"^#(\d+)\s", text, re.MULTILINE)]
    done = re.findall(r"Done (\d+) runs", text)
    memory = [int(found) for found in re.findall(r"rss: (\d+)Mb", text)]
    slowest = re.findall(r"stat::slowest_unit_time_sec:\s+(\d+)", text)
    return {
        "reader": name,
        "inputs": int(done[-1]) if done else max(counts, default=0),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": max(memory, default=0),
        "slowest_s": int(slowest[-1]) if slowest else None,
        "exit": ended.returncode,
    }


def _not_followed() -> list[str]:
    """The modules of kntrace that need not be followed, which atheris asks for one by one."""
    spec = importlib.util.find_spec("kntrace")
    home = Path(spec.origin or "").parent
    files = [file.relative_to(home.parent).with_suffix("") for file in home.rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    return [
        name for name in names if not f"{name}.".startswith(tuple(f"{one}." for one in _FOLLOWED))
    ]


def _fuzz(name: str, inputs: int, seed: int, findings: Path) -> None:
    import atheris

    followed = ["kntrace", "ruamel"] if name in _YAML else ["kntrace"]
    with atheris.instrument_imports(include=followed, exclude=_not_followed()):
        sys.path.insert(0, str(HERE))
        import readers

    readers.prepare(name)

    def one(data: bytes) -> None:
        before = time.process_time()
        try:
            readers.read(name, data)
            took = time.process_time() - before
            if took > 1:
                raise TimeoutError(f"{took:.1f} s for {len(data)} bytes")
        except BaseException:
            found = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            found.write_bytes(data)
            print(f"The input that was not read is {found}", file=sys.stderr)
            raise

    work = findings / "corpus" / name
    work.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], str(work), str(HERE / "corpus" / name)]
    arguments += [
        f"-runs={inputs}",
        f"-seed={seed}",
        f"-max_len={_LONGEST.get(name, _LONG)}",
        "-timeout=120",
    ]
    arguments += [
        "-rss_limit_mb=2500",
        "-print_final_stats=1",
        f"-artifact_prefix={findings}/{name}-",
    ]
    if (HERE / "words.dict").is_file():
        arguments.append(f"-dict={HERE / 'words.dict'}")
    atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
