"""How large the report is and how fast it opens, on a synthetic run of so many words.

python benchmarks/report_page.py --words 500 --out build/report-500

A finished analysis in the folder is used again. Opening is timed in a headless Chromium, from
the request until the page's script has drawn everything; the first of the times is the cold one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

from kntrace.analysis import analyse, load_analysis
from kntrace.archive import open_run
from kntrace.report import write_report
from kntrace.testing import synthetic_run

_IN_A_GROUP = 20
_TIMES = 5


def main() -> None:
    """Make the page, and say how large it is and how fast it opens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/report-page"))
    options = parser.parse_args()
    page = make(options.words, options.out)
    print(f"{options.words} words: {page.stat().st_size / 1e6:.2f} MB")
    times, busy = zip(*(open_once(page) for _ in range(_TIMES)), strict=True)
    shown = ", ".join(f"{seconds:.2f}" for seconds in times)
    print(f"opens in {statistics.median(times):.2f} s, the median of {shown}")
    print(f"of which the page keeps a processor busy for {statistics.median(busy):.2f} s")


def make(words: int, folder: Path) -> Path:
    """Write the report of a synthetic run, which is analysed unless it was before."""
    if (folder / "run" / "analysis").is_dir():
        run = open_run(folder / "run")
        return write_report(run, load_analysis(run))
    names = [f"w{place // _IN_A_GROUP}_{place % _IN_A_GROUP}" for place in range(words)]
    groups = {
        f"G{start // _IN_A_GROUP:02d}": tuple(names[start : start + _IN_A_GROUP])
        for start in range(0, words, _IN_A_GROUP)
    }
    shape = {"checkpoints": 3, "prompts": 2, "layers": 2, "structure": 0.5}
    run = synthetic_run(folder / "run", groups=groups, **shape)
    return write_report(run, analyse(run, distances=["identity", "emd"], permutations=9, k=4))


def open_once(page: Path) -> tuple[float, float]:
    """Seconds from the request until the script is done, and the processor's until then.

    The second hardly depends on what else the machine has to do; it is of the process that
    draws the page, all its threads together.
    """
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        driven = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        shown = driven.new_context(offline=True).new_page()
        asked = shown.context.new_cdp_session(shown)
        asked.send("Performance.enable")
        start = time.perf_counter()
        shown.goto(page.absolute().as_uri())
        shown.wait_for_selector("html[data-ready]", state="attached")
        took = time.perf_counter() - start
        found = asked.send("Performance.getMetrics")["metrics"]
        busy = next(one["value"] for one in found if one["name"] == "ProcessTime")
        driven.close()
    return took, float(busy)


if __name__ == "__main__":
    main()
