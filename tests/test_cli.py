"""The command line as a user types it: results, exit codes, one line for what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import kntrace
from kntrace.cli import main

SMALL = ["--layers", "1", "--hidden", "16", "--heads", "2", "--steps", "6", "--checkpoints", "3"]


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def kn(*arguments, expect=0):
    """Run the command line in this process, which has torch loaded already."""
    printed, said = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(sys, "argv", ["kntrace", *map(str, arguments)])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as left:
            main()
    done = Done(printed.getvalue(), said.getvalue())
    assert (left.value.code or 0) == expect, done.stdout + done.stderr
    return done


def test_wrong_input_in_a_process_of_its_own(tmp_path):
    """Exit code, one line, no traceback: as a shell sees it."""
    done = subprocess.run(
        [sys.executable, "-m", "kntrace", "status", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kntrace: input: ")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def finished(tiny_suite, tmp_path_factory):
    """A run of the tiny suite, made and analysed on the command line."""
    run = tmp_path_factory.mktemp("cli") / "run"
    done = kn("run", tiny_suite.study_file, tiny_suite.folder, "--out", run, "--threads", 1)
    assert f"Next: kntrace analyse {run}" in done.stdout
    assert "Careful" not in done.stdout
    analysed = kn("analyse", run, "--permutations", 99)
    return run, analysed.stdout


def test_the_main_path(finished):
    run, printed = finished
    assert "emd: same group against other groups" in printed
    assert "identity" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if line.startswith(("─", "all")))
    contrast = json.loads((run / "analysis" / "contrast.json").read_text())
    for name in ("emd", "emd_euclidean", "identity", "probability_curve"):
        assert set(contrast[name]["overall"]) >= {"auc", "p"}
        assert set(contrast[name]["groups"]) == {"Pets", "Hues"}
        for group in contrast[name]["groups"].values():
            assert set(group) >= {"share_above", "share_above_with_self", "chance", "auc", "p"}
    assert (run / "figures" / "distances.png").is_file()
    report = kn("report", run).stdout.strip()
    assert "<h1" in Path(report).read_text(encoding="utf-8")


def test_a_second_run_has_nothing_to_do(finished, tiny_suite):
    run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (run / "scores.zarr").rglob("*")}
    found = kn("run", tiny_suite.study_file, tiny_suite.folder, "--out", run, "--json")
    assert json.loads(found.stdout) == {
        "run": str(run), "missing": 0, "unconverged": 0, "careful": [],
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (run / "scores.zarr").rglob("*")} == before


def test_a_quick_status_looks_at_no_checksum(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / "scores.zarr" / "gap" / "c.0.0.0.0").write_bytes(b"damaged")
    assert "1 damaged" in kn("status", copy).stdout
    quick = json.loads(kn("status", copy, "--quick", "--json").stdout)
    assert quick["done"] == quick["total"]
    assert quick["convergence"] is None


def test_what_was_damaged_is_found_unless_nobody_looks(finished, tiny_suite, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "run")
    chunk = copy / "scores.zarr" / "gap" / "c.0.0.0.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"damaged")
    again = ["run", tiny_suite.study_file, tiny_suite.folder, "--out", copy, "--threads", 1]
    kn(*again, "--no-verify")
    assert chunk.read_bytes() == b"damaged"
    kn(*again)
    assert chunk.read_bytes() == whole


def test_a_preset_is_checked_as_it_would_be_run(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: two\ntemplate: 'Q. {question} A.'\n"
        "groups: {G: {a: [q one], b: [q two]}, H: {c: [q three], d: [q four]}}\n"
    )
    plain = json.loads(kn("check", study, "--json").stdout)
    preset = json.loads(kn("check", study, "--json", "--preset", "public-code").stdout)
    assert plain["errors"] == preset["errors"] == 0
    said = kn("check", study, "--preset", "public-code", "--answer-tokens", "joint", expect=2)
    assert "the preset 'public-code' has 'greedy'" in said.stderr


def test_status_of_a_finished_run(finished):
    run, _ = finished
    assert "12 of 12 blocks done" in kn("status", run).stdout
    found = json.loads(kn("status", run, "--json").stdout)
    assert (found["total"], found["done"], found["missing"]) == (12, 12, [])
    assert "all 42 paths converged" in kn("status", run).stdout
    told = found["convergence"]
    assert (told["paths"], told["unconverged"], told["worst"]) == (42, 0, None)
    assert told["nodes"] > 2


def test_what_did_not_converge_is_told_wherever_scores_are_used(tiny_suite, tmp_path):
    run = tmp_path / "run"
    coarse = ["--rule", "gauss-legendre", "--nodes", 2, "--out", run, "--threads", 1]
    done = kn("run", tiny_suite.study_file, tiny_suite.folder, *coarse)
    found = json.loads(kn("status", run, "--json").stdout)["convergence"]
    worst = found["worst"]
    line = (
        f"{found['unconverged']} of 42 paths ({found['share']:.1%}) did not converge to a "
        f"relative error of 0.001; worst is layer {worst['layer']} at {worst['checkpoint']} "
        f"({worst['unconverged']} of 7). --rule adaptive takes"
    )
    assert 0 < found["unconverged"] < 42
    assert f"Careful: {line}" in done.stdout
    assert f"not converged: {line}" in kn("status", run).stdout
    assert "nodes: 2.0 per path in the mean, 2.0 in the first layer" in kn("status", run).stdout
    again = kn("run", tiny_suite.study_file, tiny_suite.folder, *coarse, "--json")
    assert json.loads(again.stdout)["unconverged"] == found["unconverged"]
    analysed = kn("analyse", run, "--permutations", 19, "--no-figures")
    assert f"Careful: {line}" in analysed.stderr
    report = Path(kn("report", run).stdout.strip()).read_text(encoding="utf-8")
    assert f"{found['unconverged']} of 42 integrals did not converge" in report


def test_analyse_as_json_is_the_file(finished):
    run, _ = finished
    printed = kn("analyse", run, "--json", "--no-figures", "--distance", "identity").stdout
    assert set(json.loads(printed)) == {
        "identity", "probability_curve", "identity | probability_curve", "identity | hub",
    }  # fmt: skip


def test_covariates_on_the_command_line(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    table = tmp_path / "lengths.csv"
    table.write_text("word,size,weight\ncat,1,4\ndog,2,1\nred,3,1\nblue,5,2\n")
    asked = ["--covariate", f"{table}:size", "--covariate", "token_id", "--distance", "w1"]
    options = ["--no-figures", "--permutations", 9, "--workers", 2]
    printed = kn("analyse", run, *asked, *options).stdout
    assert "  | size" in printed
    assert "  | token_id" in printed
    contrast = json.loads((run / "analysis" / "contrast.json").read_text())
    assert "emd_euclidean | probability_curve, size, token_id" in contrast
    header = (run / "analysis" / "distances.csv").read_text().splitlines()[0]
    assert "emd_euclidean | size" in header
    report = Path(kn("report", run).stdout.strip()).read_text(encoding="utf-8")
    assert "difference in size of lengths.csv" in report
    for wrong, said in ((f"{table}:length", "one of size, weight"), (table, "2 columns")):
        assert said in kn("analyse", run, "--covariate", wrong, expect=2).stderr


def test_the_help_names_all_distances_and_covariates():
    from kntrace.analysis import COVARIATES
    from kntrace.distance import DISTANCES

    told = " ".join(kn("analyse", "--help").stdout.replace("│", " ").split())
    assert all(name in told for name in (*DISTANCES, *COVARIATES))


@pytest.mark.slow
def test_ablate(finished):
    run, _ = finished
    little = ["--doses", "1,4", "--methods", "zero,x2", "--partners", 1, "--draws", 1]
    done = kn("ablate", run, *little, "--singles", 3)
    assert done.stderr.startswith("4 words, 7 prompts, 1 checkpoint: neurons by top:4")
    assert "Silencing 4 neurons (last position)" in done.stdout
    assert (run / "figures" / "dose.png").is_file()
    found = json.loads(kn("ablate", run, *little, "--singles", 3, "--json").stdout)
    assert found["settings"]["doses"] == [1, 4]
    assert {row["source"] for row in found["summary"]} >= {"own", "matched"}
    assert "made with other settings: singles: 3" in kn("ablate", run, *little, expect=2).stderr
    assert "Causes" in Path(kn("report", run).stdout.strip()).read_text(encoding="utf-8")


def test_the_suite_is_listed_by_step(tiny_suite):
    listed = json.loads(kn("suite", tiny_suite.folder, "--json").stdout)
    assert [row["step"] for row in listed["checkpoints"]] == [0, 10, 100]
    assert "step100" in kn("suite", tiny_suite.folder, "--steps", "0,100").stdout


def test_grow_writes_a_suite(tmp_path):
    kn("grow", tmp_path / "suite", *SMALL)
    assert (tmp_path / "suite" / "step6" / "model.safetensors").is_file()


def test_the_version():
    assert kn("--version").stdout.strip() == kntrace.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent.yaml", "SUITE", "--out", "r"], "absent.yaml"),
        (["run", "STUDY", "nowhere/at/all", "--out", "r"], "nowhere/at/all"),
        (["run", "STUDY", "SUITE", "--out", "r", "--rule", "simpson"], "rule 'simpson'"),
        (["run", "STUDY", "SUITE", "--out", "r", "--site", "middle"], "site 'middle'"),
        (["run", "STUDY", "SUITE", "--out", "r", "--dtype", "float7"], "dtype"),
        (["run", "STUDY", "SUITE", "--out", "r", "--objective", "joy"], "objective 'joy'"),
        (["run", "STUDY", "SUITE", "--out", "r", "--answer-tokens", "all"], "answer_tokens"),
        (["run", "STUDY", "SUITE", "--out", "r", "--device", "warp"], "device 'warp'"),
        (["run", "STUDY", "SUITE", "--out", "r", "--steps", "0,20"], "20"),
        (["run", "similar-words", "SUITE", "--out", "r"], "unknown to the tokenizer"),
        (["suite", "."], "no checkpoints"),
        (["status", "."], "run"),
        (["analyse", "absent"], "absent"),
        (["analyse", "RUN", "--k", "100000"], "100000"),
        (["analyse", "RUN", "--distance", "edm"], "emd"),
        (["analyse", "RUN", "--select", "threshold:0.2:0.7"], "not a share"),
        (["ablate", "absent"], "absent"),
        (["ablate", "RUN", "--doses", "1,many"], "1,many"),
        (["ablate", "RUN", "--methods", "none"], "the method 'none'"),
        (["ablate", "RUN", "--steps", "7"], "no checkpoint at step 7"),
        (["report", "absent"], "absent"),
        (["grow", "x", "--world", "round"], "world 'round'"),
        (["grow", "x", "--hidden", "9"], "hidden = 9"),
        (["demo", "--world", "round", "--out", "x"], "world 'round'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments, message, tiny_suite, finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"STUDY": tiny_suite.study_file, "SUITE": tiny_suite.folder, "RUN": finished[0]}
    done = kn(*(places.get(part, part) for part in arguments), expect=2)
    said = [line for line in done.stderr.splitlines() if line.startswith("kntrace:")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "r" / "scores.zarr").exists()


def test_a_changed_study_is_refused_and_nothing_is_lost(finished, tiny_suite, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    changed = tmp_path / "study.yaml"
    changed.write_text(tiny_suite.study_file.read_text().replace("meow", "mice"))
    done = kn("run", changed, tiny_suite.folder, "--out", run, expect=2)
    assert "cat" in done.stderr
    assert kn("status", run).stdout.startswith(f"{run}: 12 of 12")


def test_what_is_piped_has_no_colour_and_no_bars(finished):
    done = kn("status", finished[0])
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tiny_suite, tmp_path):
    """A real SIGINT in the middle of a run: one line, exit code 1, and the rest resumes."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "kntrace", "run", str(tiny_suite.study_file)]
    command += [str(tiny_suite.folder), "--out", str(run), "--rule", "midpoint", "--nodes", "40000"]
    work = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    blocks = run / "scores.zarr" / "score"
    while not any(blocks.glob("c.*")) and work.poll() is None:
        time.sleep(0.02)
    work.send_signal(signal.SIGINT)
    _, said = work.communicate(timeout=60)
    assert work.returncode == 1, said
    assert "Traceback" not in said
    assert "Give the same command again" in said.splitlines()[-1]
    assert 0 < json.loads(kn("status", run, "--json").stdout)["done"] < 12
