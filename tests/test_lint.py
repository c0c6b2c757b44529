"""The check of a study: every rule fires where it must, and is silent where it must."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from counting import excess
from kntrace.lint import RULES, check_study
from kntrace.lint.finding import Checked, Finding
from kntrace.study import Study
from linted import (
    FILE_OF_TWO,
    STUDIES,
    TOKENS,
    codes,
    fixture_causal,  # noqa: F401
    study,
)

# code -> what the rule must speak of, and what it must keep silent about
FILES = {
    "K101": ("groups: {Pets: {cat: [what is it, 5]}}", "groups: {Pets: {cat: [what is it]}}"),
    "K102": (FILE_OF_TWO, FILE_OF_TWO.replace("    cat: [which h", "    ash: [which h")),
    "K103": ("groups: {A: {a: [how, why, how]}}", "groups: {A: {a: [how, why], b: [how]}}"),
}


def test_every_rule_has_its_cases():
    tested = [*FILES, *STUDIES, *TOKENS, "K301"]
    assert [rule.code for rule in RULES] == tested
    assert len({rule.find for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.about.endswith(".")
        assert len(rule.about) < 100


def test_the_docs_list_the_rules_as_they_are():
    page = Path(__file__).parents[1] / "docs" / "studies.md"
    listed = [line for line in page.read_text().splitlines() if line.startswith("| K")]
    assert listed == [f"| {rule.code} | {rule.severity} | {rule.about} |" for rule in RULES]


@pytest.mark.parametrize("code", FILES)
def test_a_rule_of_the_file(code, tmp_path):
    fires, silent = (tmp_path / "fires.yaml", tmp_path / "silent.yaml")
    for path, text in zip((fires, silent), FILES[code], strict=True):
        path.write_text(text)
    found = [finding for finding in check_study(fires).findings if finding.code == code]
    assert found
    assert all(finding.where.startswith(f"{fires}:") for finding in found)
    assert not set(codes(check_study(silent))) & set(FILES)


def test_a_fault_is_told_once_and_with_its_line(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(FILE_OF_TWO)
    (only,) = check_study(path).findings
    assert str(only) == (
        f"K102 error   {path}:7: cat: stands in group 'Pets' and again in 'Hues'. "
        "Keep one of the two, or name them apart and give both an `answer`."
    )


def test_all_doubled_words_are_listed_not_the_first_alone(tmp_path):
    path = tmp_path / "twins.yaml"
    entries = "".join(f"    w{place}: [what is {place}]\n" for place in range(5))
    path.write_text(f"groups:\n  A:\n{entries}  B:\n{entries}")
    assert codes(check_study(path)) == ["K102"] * 5


@pytest.mark.parametrize("text", ["", "\t- [", "\x00", "groups: [1, 2]", "a: 1\na: 2"])
def test_a_file_that_is_no_study_is_a_finding(text, tmp_path):
    path = tmp_path / "junk.yaml"
    path.write_text(text)
    checked = check_study(path)
    assert codes(checked) == ["K101"]
    assert not checked.passes()
    assert check_study(tmp_path / "absent.yaml").findings[0].code == "K101"


@pytest.mark.parametrize("code", STUDIES)
def test_a_rule_of_the_study(code):
    fires, silent = (case if isinstance(case, Study) else study(case) for case in STUDIES[code])
    assert code in codes(check_study(fires))
    assert code not in codes(check_study(silent))


def test_a_good_study_has_no_finding():
    assert check_study(study()).findings == ()
    assert check_study("similar-words").findings == ()


def test_a_finding_is_one_line_whatever_the_study_holds():
    odd = Finding("K999", "error", "says\nthis", word="a\nb", prompt="x\n" * 90, fix="do\nthat")
    assert "\n" not in str(odd)
    assert Checked("s", None, (odd,)).to_dict()["findings"][0]["word"] == "a\nb"


def test_checking_without_a_suite_loads_no_torch():
    code = (
        "import sys; from kntrace.lint import check_study; check_study('similar-words');"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_twice_as_many_words_are_checked_with_twice_the_work(causal):
    def work(suite, options, words):
        groups = {
            f"g{group}": {
                f"w{group}x{word}": [
                    f"what is {group} and {word} in way {way}?" for way in range(4)
                ]
                for word in range(20)
            }
            for group in range(words // 20)
        }
        made = study(groups)

        def check():
            checked = check_study(made, *suite, **options)
            assert sum(code == "K210" for code in codes(checked)) >= (words if suite else 0)

        return check

    for suite, options in ((), {}), ((causal,), {"answer_tokens": "joint"}):
        assert excess(partial(work, suite, options), 200) < 0.02
