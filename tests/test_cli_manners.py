"""How the command line behaves towards people and scripts, whatever the command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from typer.main import get_command

import kntrace
from kntrace.cli import app, printing, values
from kntrace.cli.options import HOW, OUTPUT, WHAT
from test_cli import kn

COLOUR = re.compile(r"\x1b\[[\d;]*(3[0-7]|38|9[0-7])[;m]")
TREE = get_command(app)
COMMANDS = {
    (*path, name): command
    for path, group in (((), TREE), (("study",), TREE.commands["study"]))
    for name, command in group.commands.items()
    if not hasattr(command, "commands")
}
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


@pytest.fixture
def run(tiny_run):
    return tiny_run.path


class TestHelp:
    @each_command
    def test_it_fits_and_is_grouped(self, path):
        told = kn(*path, "--help").stdout
        assert all(len(line) <= 80 for line in told.splitlines())
        assert "\x1b" not in told
        titles = re.findall(r"^(\w[^:\n]*):$", told, re.MULTILINE)
        assert set(titles) <= {"Arguments", WHAT, HOW, OUTPUT, "Other", "Examples"}
        assert {OUTPUT, "Other", "Examples"} <= set(titles)
        assert re.search(r"^Other:\n  --help\b.*\n", told, re.MULTILINE)

    @each_command
    def test_every_option_is_described(self, path):
        for parameter in COMMANDS[path].params:
            assert parameter.help, parameter.name
            if parameter.param_type_name == "option":
                assert parameter.rich_help_panel in (WHAT, HOW, OUTPUT), parameter.name

    @each_command
    def test_every_command_can_be_quiet_and_speak_json(self, path):
        names = {name for parameter in COMMANDS[path].params for name in parameter.opts}
        assert {"--quiet", "-q", "--json"} <= names

    @each_command
    def test_the_examples_can_be_typed(self, path):
        lines = COMMANDS[path].epilog.splitlines()[2:]
        assert 2 <= len(lines) <= 3
        for line in lines:
            program, *words = shlex.split(line)
            assert (program, *words[: len(path)]) == ("kntrace", *path)
            COMMANDS[path].make_context(" ".join(path), words[len(path) :])

    def test_all_commands_are_listed(self):
        told = kn("--help").stdout
        assert all(re.search(rf"^  {path[0]} ", told, re.MULTILINE) for path in COMMANDS)
        assert all(len(line) <= 80 for line in told.splitlines())


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["anaylse", "RUN"], "analyse"),
        (["study", "improt"], "import"),
        (["analyse", "RUN", "--distnace", "emd"], "--distance"),
        (["analyse", "RUN", "--distance", "idenity"], "identity"),
        (["analyse", "RUN", "--averaging", "every-promt"], "every_prompt"),
        (["analyse", "RUN", "--preset", "public-cod"], "public-code"),
        (["run", "similar-word", "SUITE", "--out", "r"], "similar-words"),
        (["run", "STUDY", "pythia-410m-dedupd", "--out", "r"], "EleutherAI/pythia-410m-deduped"),
        (["run", "STUDY", "SUITE", "--out", "r", "--rule", "midpont"], "midpoint"),
        (["run", "STUDY", "SUITE", "--out", "r", "--site", "pre-activaton"], "pre_activation"),
        (["run", "STUDY", "SUITE", "--out", "r", "--objective", "probabilty"], "probability"),
        (["run", "STUDY", "SUITE", "--out", "r", "--answer-tokens", "frist"], "first"),
        (["run", "STUDY", "SUITE", "--out", "r", "--dtype", "flaot64"], "float64"),
        (["check", "STUDY", "--preset", "publiccode"], "public-code"),
        (["view", "RUN", "turnovr"], "turnover"),
        (["view", "RUN", "turnover", "--set", "pivto=0"], "pivot"),
        (["status", "RUM"], "RUN"),
        (["ablate", "RUN", "--methods", "zreo"], "zero"),
        (["ablate", "RUN", "--positions", "lst"], "last"),
        (["export", "RUN", "--format", "parket"], "parquet"),
        (["grow", "x", "--world", "structred"], "structured"),
        (["grow", "x", "--architecture", "lama"], "llama"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    arguments, near, run, tiny_suite, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    places = {"STUDY": tiny_suite.study_file, "SUITE": tiny_suite.folder, "RUN": run}
    done = kn(*(places.get(part, part) for part in arguments), expect=2)
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kntrace: input: ")
    assert f"Did you mean {near!r}?" in last


def test_what_resembles_nothing_is_not_guessed_at(run):
    assert "Did you mean" not in kn("analyse", run, "--distance", "xyzzy", expect=2).stderr
    said = kn("fnord", expect=2).stderr
    assert said == "kntrace: input: kntrace: no such command 'fnord'. See kntrace --help.\n"
    said = kn("status", run, "--nodes", 3, expect=2).stderr
    assert said.startswith("kntrace: input: kntrace status: no such option: --nodes. See kntrace")
    assert "missing argument 'RUN'" in kn("status", expect=2).stderr
    assert "'--permutations'" in kn("analyse", run, "--permutations", 0, expect=2).stderr


class TestForScripts:
    def test_json_is_all_that_is_printed_and_quiet_leaves_no_remark(
        self, run, tiny_suite, tmp_path
    ):
        run = shutil.copytree(run, tmp_path / "run")
        commands = [
            ["check", tiny_suite.study_file],
            ["suite", tiny_suite.folder],
            ["run", tiny_suite.study_file, tiny_suite.folder, "--out", run],
            ["status", run],
            ["view", run, "acquisition", "--no-figures"],
            ["export", run, "--format", "csv", "--out", tmp_path / "scores.csv"],
            ["study", "new", tmp_path / "new.yaml"],
        ]
        for command in commands:
            done = kn(*command, "--json", "--quiet")
            assert json.loads(done.stdout), command
            assert done.stderr == "", command
        assert kn("status", run, "-q").stdout.startswith(str(run))

    def test_quiet_silences_remarks_and_no_warnings(self, capsys):
        for quiet, said in ((True, "Careful: this\n"), (False, "on the way\nCareful: this\n")):
            printing.hush(quiet)
            printing.tell("on the way")
            printing.warn("this")
            assert capsys.readouterr().err == said


def in_terminal(*arguments, until=None, **environment):
    """Run Python with a terminal of 80 columns; the signal INT once `until` was printed."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    work = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody holds the other end any more
            break
        seen += part
        if until is not None and until in seen:
            work.send_signal(signal.SIGINT)
            until = None
        if not part:
            break
    os.close(ours)
    return work.wait(timeout=60), seen.decode()


def test_a_terminal_has_colours_unless_it_should_not():
    work = (
        "from kntrace.cli.printing import bars\n"
        "with bars(False) as progress: progress('sweep', 300, 12345, 'step0 · ' + 50 * 'w')"
    )
    code, seen = in_terminal("-c", work, NO_COLOR="")
    assert code == 0
    assert COLOUR.search(seen)
    code, seen = in_terminal("-c", work, NO_COLOR="1")
    assert code == 0
    assert not COLOUR.search(seen)
    assert "300/12345" in seen
    assert "step0 · ww" in seen
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen).replace("\r", "\n").splitlines()
    assert all(len(line) <= 80 for line in lines)


class TestCompletion:
    @staticmethod
    def offered(*typed, monkeypatch):
        monkeypatch.setenv("_KNTRACE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["kntrace", *typed]))
        monkeypatch.setenv("COMP_CWORD", str(len(typed)))
        return kn().stdout.split()

    @pytest.mark.parametrize(
        ("typed", "offers"),
        [
            (["an"], {"analyse"}),
            (["run", "similar"], {"similar-words"}),
            (["run", "x.yaml", "EleutherAI/pythia-410m-d"], {"EleutherAI/pythia-410m-deduped"}),
            (["run", "--preset", "p"], {"public-code"}),
            (["run", "--rule", "gauss"], {"gauss_legendre", "gauss_lobatto"}),
            (["analyse", "R", "--distance", "emd_e"], {"emd_euclidean"}),
            (["analyse", "R", "--covariate", "word"], {"word_length"}),
            (["view", "R", "turn"], {"turnover"}),
            (["figures", "R", "do"], {"dose"}),
            (["export", "R", "--format", "p"], {"parquet"}),
            (["study", "import", "--format", "l"], {"lre"}),
            (["grow", "--world", "weak"], {"weak", "weak_confounded"}),
        ],
    )
    def test_values_are_completed(self, typed, offers, monkeypatch):
        assert set(self.offered(*typed, monkeypatch=monkeypatch)) == offers

    def test_what_is_written_down_is_what_there_is(self):
        from kntrace import grow, wording
        from kntrace.analysis import COVARIATES
        from kntrace.attribution import objectives, rules
        from kntrace.distance import DISTANCES
        from kntrace.figures import SIZES
        from kntrace.grow import recipe
        from kntrace.models import feedforward, load, tokens
        from kntrace.study.importing import gather

        fields = kntrace.Settings.model_fields
        assert (rules.ADAPTIVE, *rules.RULES) == values.RULES
        assert tuple(feedforward.SITES) == values.SITES
        assert tuple(objectives.OBJECTIVES) == values.OBJECTIVES
        assert fields["dtype"].annotation.__args__ == values.DTYPES
        assert set(values.DTYPES) == set(load.DTYPES)
        assert fields["keep"].annotation.__args__ == values.KEEPS
        assert fields["answer_tokens"].annotation.__args__ == values.ANSWER_TOKENS
        assert set(values.DISTANCES) == {*DISTANCES, "w1"}
        assert set(values.COVARIATES) == set(COVARIATES)
        assert tuple(SIZES) == values.SIZES
        assert tuple(wording.AVERAGINGS) == values.AVERAGINGS
        assert values.ANSWER_FORMS == tokens.ANSWER_FORMS
        assert values.SHARED == gather.SHARED
        assert tuple(recipe.ARCHITECTURES) == values.ARCHITECTURES
        assert tuple(grow.WORLDS) == values.WORLDS
