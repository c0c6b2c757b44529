"""Hold the statistics against grown worlds whose truth is known.

For every world and seed: grow a suite, score it, analyse it, and keep what each distance and the
verdict say. One JSON line a suite; a suite already in the file is not done again, so that this
can be stopped and gone on with.

    python benchmarks/validate.py --seeds 0:5 --out build/validate
"""

from __future__ import annotations

import argparse
import json
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd

from kntrace.analysis import analyse
from kntrace.grow import WORLDS, grow
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.study import load_study
from kntrace.suite import load_suite
from kntrace.sweep import run as sweep

# Columns of the table: an entry of `contrast.json`, and what the table calls it.
TABLE = {
    "emd": "emd",
    "emd | probability_curve": "emd, curves regressed out",
    "identity": "identity",
    "probability_curve": "curves alone",
}


def one(world: str, seed: int, folder: Path) -> dict[str, Any]:
    """Grow, score and analyse one suite; its files are removed, its numbers returned."""
    work = folder / f"{world}-{seed}"
    shutil.rmtree(work, ignore_errors=True)
    grow(work / "suite", world=world, world_seed=seed, seed=seed)
    study, suite = load_study(work / "suite" / "study.yaml"), load_suite(work / "suite")
    # A fixed rule takes about half the time of the default one and changes no AUC by over .001.
    run = sweep(
        study, suite, work / "run", settings=Settings(rule="gauss_legendre"), threads=1,
        progress=silent,
    )  # fmt: skip
    found = analyse(run)
    shutil.rmtree(work)
    return {
        "world": world,
        "seed": seed,
        "verdict": found.verdict.answer,
        "verdicts": {name: verdict.to_dict() for name, verdict in found.verdicts.items()},
        "overall": {name: contrast.overall for name, contrast in found.contrasts.items()},
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: per world, AUC and p of each distance by seed, and the verdicts."""
    rows = []
    for line in sorted(lines, key=lambda line: (list(WORLDS).index(line["world"]), line["seed"])):
        numbers = {
            title: f"{line['overall'][name]['auc']:.3f} ({line['overall'][name]['p']:.3f})"
            for name, title in TABLE.items()
        }
        share = f"{line['overall']['emd']['share_above']:.1%}"
        rows.append(
            {"world": line["world"], "seed": line["seed"], **numbers, "above": share,
             "verdict": line["verdict"]}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    printed = [
        "| " + " | ".join(frame.columns) + " |",
        "| " + " | ".join("---" for _ in frame) + " |",
    ]
    printed += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(printed)


def main() -> None:
    """Run what is missing and print the table of everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", default=["structured", "flat", "confounded"])
    parser.add_argument("--seeds", default="0:3", help="from:to, or a list such as 1,5,9")
    parser.add_argument("--out", type=Path, default=Path("build/validate"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    first, _, last = given.seeds.partition(":")
    seeds = range(int(first), int(last)) if last else [int(part) for part in first.split(",")]
    given.out.mkdir(parents=True, exist_ok=True)
    record = given.out / "suites.jsonl"
    lines = (
        [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    )
    done = {(line["world"], line["seed"]) for line in lines}
    todo = [(world, seed) for seed in seeds for world in given.worlds if (world, seed) not in done]
    with ProcessPoolExecutor(given.workers) as pool:
        waiting = [pool.submit(one, world, seed, given.out) for world, seed in todo]
        for number, future in enumerate(as_completed(waiting), 1):
            lines.append(future.result())
            with record.open("a") as stream:
                stream.write(json.dumps(lines[-1]) + "\n")
            made = lines[-1]
            print(
                f"{number}/{len(todo)} {made['world']} {made['seed']}: {made['verdict']}",
                flush=True,
            )
    print()
    print(table(lines))


if __name__ == "__main__":
    main()
