"""Growth on a text that was stopped, begun again, or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from grown_texts import MARKS, SMALL, fixture_corpus, fixture_grown  # noqa: F401
from kntrace.errors import SuiteError
from kntrace.grow import grow, grow_text
from kntrace.grow.state import Workplace


def contents(folder):
    """All that must not depend on how often growing was stopped."""
    names = ["loss.csv", "suite.yaml", "recipe.json"]
    for step in MARKS:
        names += [f"step{step}/{name}" for name in ("model.safetensors", "tokenizer.json")]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("every", [0.0, 1e9])
@pytest.mark.parametrize("stage", ["read", "vocabulary", "tokenise", "grow"])
def test_stopped_at_any_point_it_goes_on_to_the_same_suite(stage, every, grown, corpus, tmp_path):
    folder, _, _ = grown
    stops = iter([0, 1, 2, 5, 10, 12, 23, 24] if stage == "grow" else [0])
    stop, told = next(stops), []

    def interrupt(where, done, total, detail=""):
        told.append((where, done))
        if where == stage and done >= stop:
            raise KeyboardInterrupt

    for _ in range(8 if stage == "grow" else 1):
        with pytest.raises(KeyboardInterrupt):
            grow_text(tmp_path, corpus, **SMALL, save_every=every, progress=interrupt)
        assert not (tmp_path / "suite.yaml").exists()
        stop = next(stops, 99)
        told.append("again")
    grow_text(tmp_path, corpus, **SMALL, progress=lambda *what: told.append(what[:2]))
    assert contents(tmp_path) == contents(folder)
    assert not list(tmp_path.glob(".*"))
    if stage == "grow":
        # Every go begins where the last state was kept: everywhere, or at checkpoints.
        begins = [after[1] for before, after in pairwise(told) if before[0] != "grow" == after[0]]
        kept = [0, 0, 1, 2, 5, 10, 12, 23, 24] if every == 0 else [0, 0, 1, 1, 4, 10, 10, 10, 24]
        assert begins == kept
        record = json.loads((tmp_path / "training.json").read_text())
        assert record["sessions"][-1]["from_step"] == 24


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_but_time(grown, corpus, tmp_path):
    folder, _, _ = grown
    out = tmp_path / "killed"
    options = [
        item
        for name, value in SMALL.items()
        for item in (f"--{name.replace('_', '-').replace('vocabulary', 'vocab')}", str(value))
    ]
    command = [sys.executable, "-m", "kntrace", "grow", str(out), "--corpus", str(corpus)]
    command += [*options, "--threads", "1", "--save-every", "0"]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 600
        # Saving goes on all the time, so the kill is likely to fall into the midst of it.
        while not (out / "step4").exists():
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (out / "suite.yaml").exists()
    state = Workplace(out).load()
    assert state is not None
    begun = []
    grow_text(out, corpus, **SMALL, progress=lambda *what: begun.append(what[:2]))
    assert next(done for stage, done in begun if stage == "grow") == state["step"]
    assert contents(out) == contents(folder)


def test_a_finished_suite_is_kept(grown, corpus):
    folder, suite, _ = grown
    before = (folder / "step24" / "model.safetensors").stat().st_mtime_ns
    told = []
    found = grow_text(folder, corpus, **SMALL, progress=lambda *what: told.append(what))
    assert found == suite
    assert told[-1] == ("grow", 24, 24, "this suite was there already")
    assert (folder / "step24" / "model.safetensors").stat().st_mtime_ns == before


def test_another_text_or_recipe_is_refused(grown, corpus, tmp_path):
    folder, _, _ = grown
    with pytest.raises(SuiteError, match=r"grown otherwise \(seed 0 -> 1\)"):
        grow_text(folder, corpus, **SMALL, seed=1)
    with pytest.raises(SuiteError, match="grown otherwise"):
        grow(folder)
    other = tmp_path / "tale.txt"
    other.write_bytes(corpus.read_bytes() + b"!")
    with pytest.raises(SuiteError, match=r"grown otherwise \(text \w+ -> \w+\)"):
        grow_text(folder, other, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow_text(tmp_path / "mine", corpus, **SMALL)


def stopped(folder, corpus, at):
    def interrupt(stage, done, total, detail=""):
        if (stage, done) == ("grow", at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow_text(folder, corpus, **SMALL, progress=interrupt)


def test_a_lost_checkpoint_and_a_broken_state_are_named(corpus, tmp_path):
    stopped(tmp_path, corpus, 10)
    (tmp_path / "step4").rename(tmp_path / "elsewhere")
    with pytest.raises(SuiteError, match=r"step4 is gone, though training went on to step 10"):
        grow_text(tmp_path, corpus, **SMALL)
    (tmp_path / "elsewhere").rename(tmp_path / "step4")
    state = tmp_path / ".growing" / "state.pt"
    whole = state.read_bytes()
    for broken in (b"", b"no state", whole[: len(whole) // 2]):
        state.write_bytes(broken)
        with pytest.raises(SuiteError, match=r"state\.pt: the state of training cannot be read"):
            grow_text(tmp_path, corpus, **SMALL)
    state.unlink()
    assert len(grow_text(tmp_path, corpus, **SMALL)) == 5


def test_two_processes_do_not_grow_one_suite(corpus, tmp_path):
    stopped(tmp_path, corpus, 4)
    with (
        Workplace(tmp_path).held(),
        pytest.raises(SuiteError, match="another process is growing this suite"),
    ):
        grow_text(tmp_path, corpus, **SMALL)
    assert len(grow_text(tmp_path, corpus, **SMALL)) == 5
