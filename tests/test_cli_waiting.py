"""What the command line says while one waits: how much, how long, how far."""

from __future__ import annotations

import io
import shutil
from contextlib import ExitStack

import pytest
from rich.console import Console

from kntrace.archive import Computing
from kntrace.cli.foreword import Foreword, duration
from kntrace.cli.watching import watch_run
from kntrace.errors import RunError
from test_cli import kn
from test_cli_manners import in_terminal


@pytest.fixture(scope="module")
def run(tiny_suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("waiting") / "run"
    done = kn("run", tiny_suite.study_file, tiny_suite.folder, "--out", folder, "--threads", 1)
    return folder, done.stderr.splitlines()


@pytest.fixture
def unfinished(run, tmp_path):
    """A copy that lacks two of the last checkpoint's words, and what brings each back."""
    copy = shutil.copytree(run[0], tmp_path / "run")
    lost = [copy / "scores.zarr" / "score" / f"c.2.{word}.0.0.0" for word in (1, 3)]
    kept = [(file, file.read_bytes()) for file in lost]
    for file in lost:
        file.unlink()
    return copy, [lambda one=one: one[0].write_bytes(one[1]) for one in kept]


def test_a_run_begins_with_what_it_will_compute(run):
    first, second = run[1]
    assert first == f"Scoring 4 words (7 prompts) x 3 checkpoints, 12 blocks, into {run[0]}"
    # 3 checkpoints, 4 words, 2 prompts, 2 layers, 24 neurons, two numbers of 4 bytes each.
    assert second.startswith("2 layers x 24 neurons, up to 9.2 kB. The first block took ")
    assert second.endswith(" for the 11 blocks left")


def test_the_estimate_is_from_what_was_measured(tmp_path):
    told, passed, now = [], [], [0.0]
    foreword = Foreword(
        lambda *call: passed.append(call), tmp_path, 4, told.append, clock=lambda: now[0]
    )

    def at(seconds, done, detail=""):
        now[0] = seconds
        foreword("sweep", done, 12, detail)

    foreword("verify", 1, 2)
    at(100, 3)
    at(100, 3, "loading step0")
    at(130, 3, "step0 · cat")
    assert told == []
    at(132, 4, "step0 · cat")
    # Eight blocks of 2 s each; they are of two checkpoints, one of which is loaded.
    assert told == [
        "The first block took 2.0 s, loading its checkpoint 30 s: at that pace, 46 s for the 8 "
        "blocks left"
    ]
    at(500, 5, "step0 · dog")
    assert len(told) == 1
    assert len(passed) == 6
    assert passed[0] == ("verify", 1, 2, "")


def test_the_estimate_shares_the_work_out(tmp_path):
    told, now = [], [0.0]
    foreword = Foreword(
        lambda *call: None, tmp_path, 4, told.append, clock=lambda: now[0], processes=2
    )
    for seconds, done, detail in (
        *((0, 0, ""), (1, 0, "loading step0"), (9, 0, "step0 · cat"), (11, 0, "step10 · cat")),
        (13, 1, "step0 · cat"),
    ):
        now[0] = seconds
        foreword("sweep", done, 9, detail)
    # Eight blocks of 4 s each and one loading of 9 s, by two.
    assert told[0].endswith("at that pace, 20 s for the 8 blocks left")


def test_nothing_is_foretold_where_nothing_is_left(run, tiny_suite):
    again = kn("run", tiny_suite.study_file, tiny_suite.folder, "--out", run[0])
    assert "took" not in again.stderr


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (75, "75 s"), (150, "2.5 min"), (9000, "2.5 h"),
     (40 * 3600, "40 h"), (86400 * 9.5, "9.5 days")],
)  # fmt: skip
def test_lengths_of_time(seconds, said):
    assert duration(seconds) == said


class TestWatch:
    @staticmethod
    def lines(console):
        return console.file.getvalue().splitlines()

    def test_a_line_for_every_change_until_all_is_done(self, unfinished):
        folder, restore = unfinished
        console = Console(file=io.StringIO(), width=80)
        with ExitStack() as run:
            steps = [
                lambda: run.enter_context(Computing(folder, "run")).tell("step100 · dog", 0),
                *(restore[0], lambda: None, restore[1]),
            ]
            watch_run(folder, 7.0, console=console, wait=lambda seconds: steps.pop(0)())
        first, second, third = self.lines(console)
        assert first == (
            "10 of 12 blocks, 2 of 3 checkpoints; step100: 2 of 4 words; no processes at it"
        )
        assert second.startswith("11 of 12 blocks, 2 of 3 checkpoints; step100: 3 of 4 words; ")
        assert second.endswith(" left; 1 process at it")
        assert third == "12 of 12 blocks, all done"
        assert steps == []

    def test_ctrl_c_is_how_one_leaves(self, unfinished):
        def interrupt(seconds):
            raise KeyboardInterrupt

        console = Console(file=io.StringIO())
        watch_run(unfinished[0], 1.0, console=console, wait=interrupt)
        assert len(self.lines(console)) == 1

    def test_it_needs_a_run(self, tmp_path):
        with pytest.raises(RunError):
            watch_run(tmp_path, 1.0)
        assert "expected one of them" in kn("status", ".", "--watch", "--json", expect=2).stderr

    def test_in_a_terminal_one_line_changes(self, unfinished):
        folder, _ = unfinished
        code, seen = in_terminal(
            "-m", "kntrace", "status", folder, "--watch", "--every", 0.1, until=b"10 of 12"
        )
        assert code == 0
        assert "step100: 2 of 4 words" in seen
        assert "Traceback" not in seen
