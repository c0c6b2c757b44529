"""Write the tables of docs/benchmarks.md from what `make bench` measured.

python benchmarks/tables.py build/benchmark.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PUBLIC = "public code's way, 20 nodes"


def tables(measured: dict[str, Any]) -> str:
    """Markdown of everything in pytest-benchmark's file."""
    machine = measured["machine_info"]
    rows = [
        item["extra_info"] | {"seconds": item["stats"]["min"] * item["extra_info"].get("scale", 1)}
        for item in measured["benchmarks"]
        if item["extra_info"]
    ]
    ways = [row for row in rows if row["table"] == "ways"]
    parts = [f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}."]
    for shape in dict.fromkeys(row["shape"] for row in ways):
        mine = [row for row in ways if row["shape"] == shape]
        limits = [row["limit"] / 1e9 for row in mine]
        parts.append(
            f"## Pythia-{shape.upper()}'s shape\n\nMatrix product {_span(limits)} "
            f"GFLOP/s; weights {mine[0]['weights'] / 2**30:.2f} GiB."
        )
        for tokens in dict.fromkeys(row["tokens"] for row in mine):
            chosen = [row for row in mine if row["tokens"] == tokens]
            parts.append(f"### {tokens} tokens\n\n{comparison(chosen)}")
    grown = [row for row in rows if row["table"] == "growth"]
    for axis in dict.fromkeys(row["axis"] for row in grown):
        chosen = [row for row in grown if row["axis"] == axis]
        shape = chosen[0]["shape"].upper()
        parts.append(f"### Growth with {axis}, Pythia-{shape}'s shape\n\n{growth(chosen)}")
    return "\n\n".join(parts)


def comparison(rows: list[dict[str, Any]]) -> str:
    """One table of ways; the ratio is to the public code's way, where that was timed too."""
    base = next((row["seconds"] for row in rows if row["way"] == PUBLIC), None)
    lines = [
        "| way | together | seconds a prompt | ratio | share of peak | memory, GiB | "
        "worst layer's error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = row["seconds"] / row["together"]
        ratio = "" if base is None else figures(base / seconds)
        share = row["flops"] * row["scale"] / row["seconds"] / row["limit"]
        memory = "" if row["memory"] is None else f"{row['memory'] / 2**30:.2f}"
        error = f"{row['error']:.0e}" if "error" in row else ""
        way = row["way"]
        if way.startswith("adaptive"):
            way = f"{way}: {row['nodes']:.1f} nodes"
        lines.append(
            f"| {way} | {row['together']} | {figures(seconds)} | {ratio} | {share:.0%} | "
            f"{memory} | {error} |"
        )
    return "\n".join(lines)


def _span(values: list[float]) -> str:
    """From the least to the most, once if they are printed alike."""
    least, most = (f"{end(values):,.0f}" for end in (min, max))
    return least if least == most else f"{least} to {most}"


def growth(rows: list[dict[str, Any]]) -> str:
    """Seconds along one axis, a line a rule, with the slope of log time over log size."""
    sizes = sorted({row["size"] for row in rows})
    lines = [
        f"| rule | {' | '.join(map(str, sizes))} | exponent |",
        f"| --- | {' | '.join('---' for _ in sizes)} | --- |",
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        times = {row["size"]: row["seconds"] for row in rows if row["way"] == way}
        shown = [figures(times[size]) if size in times else "" for size in sizes]
        lines.append(f"| {way} | {' | '.join(shown)} | {exponent(times):.2f} |")
    return "\n".join(lines)


def exponent(times: dict[int, float]) -> float:
    """B of time = a size^b, by least squares in logarithms; not a number for one size."""
    if len(times) < 2:
        return float("nan")
    slope, _ = np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)
    return float(slope)


def figures(value: float) -> str:
    """A positive number to three figures, with no exponent."""
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}"


def main() -> None:
    """Print the tables of one file."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(tables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
