"""Study files that are wrong, bombs among them, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from counting import at_most, steps
from kntrace.documents.nodes import Limits
from kntrace.study import load_study
from studies import STUDY, refusal, write

# Files that are wrong: (text, parts of the message; `:n` is the line)

G = "groups:\n  A:\n    Cat: [Who purrs?, Who mews?]\n"
WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "misspelt key": ("nmae: x\n" + G, [":1: unknown key 'nmae'", "Did you mean 'name'?"]),
    "misspelt groups": ("name: x\ngruops:\n  A:\n    Cat: [q]\n", [":2", "mean 'groups'?"]),
    "key that is like none": ("xyzzy: {}\n" + G, [":1: unknown key 'xyzzy'", "one of name, "]),
    "misspelt key of a word": (
        G + "    Dog:\n      answer: dog\n      promts: [q]\n",
        [":6: unknown key 'promts'", "Did you mean 'prompts'?"],
    ),
    "misspelt answer": (
        G + "    Dog:\n      anwser: dog\n      prompts: [q]\n",
        [":5: unknown key 'anwser'", "Did you mean 'answer'?"],
    ),
    "both keys misspelt": (
        G + "    Dog:\n      anwser: dog\n      promts: [q]\n",
        [":5: unknown key 'anwser'", "Did you mean 'answer'?"],
    ),
    "prompts misspelt, alone": (
        G + "    Dog:\n      promts: [q]\n",
        [":4: the word 'Dog'", "Did you mean 'prompts'?"],
    ),
    "misspelt wording": (
        "groups:\n  A:\n"
        + "".join(f"    {w}: {{main: [q], neutral: [r]}}\n" for w in ("Cat", "Dog"))
        + "    Fox: {main: [q], netural: [r]}\n",
        [":5: the word 'Fox'", "only 1 of 3", "Did you mean 'neutral'?"],
    ),
    "word without the first wording": (
        "groups:\n  A:\n    Cat: {grouped: [a], neutral: [b]}\n    Dog: [q]\n",
        [":4: the word 'Dog' has no prompts in the wording 'grouped', only in main"],
    ),
    "tab": ("groups:\n\tA:\n\t\tCat: [q]\n", [":2: the line is indented with a tab", "spaces"]),
    "tab after a value": ("name: x\n\tfoo: 1\n" + G, [":2: the line is indented with a tab"]),
    "tab before a list": ("groups:\n  A:\n    Cat:\n\t- x\n", [":4", "indented with a tab"]),
    "spaces, then a tab": (
        "groups:\n  A:\n    Cat:\n      - x\n  \t  - y\n",
        [":5", "indented with a tab"],
    ),
    "no prompts": ("groups:\n  A:\n    Cat: []\n", [":3", "the list of prompts of 'Cat' is empty"]),
    "prompts left out": ("groups:\n  A:\n    Cat:\n    Dog: [q]\n", [":3", "'Cat' is empty"]),
    "no prompts of a wording": (
        "groups:\n  A:\n    Cat: {main: [q],\n      neutral: []}\n",
        [":4", "the list of prompts of 'Cat' in the wording 'neutral' is empty"],
    ),
    "an answer and no prompts": (
        "groups:\n  A:\n    Cat: {answer: x}\n",
        [":3", "the list of prompts of 'Cat' is missing"],
    ),
    "prompts that are one text": (
        "groups:\n  A:\n    Cat: Who mews?\n",
        [":3", "is the text 'Who mews?'", "a list of questions"],
    ),
    "empty prompt": ("groups:\n  A:\n    Cat: [q, '']\n", [":3: prompt 2 of 'Cat' is empty"]),
    "blank prompt": ("groups:\n  A:\n    Cat:\n    - ' '\n", [":4: prompt 1 of 'Cat' is empty"]),
    "prompt left out": ("groups:\n  A:\n    Cat:\n    - q\n    -\n", [":5: prompt 2 of 'Cat'"]),
    "prompt that is a mapping": (
        "groups:\n  A:\n    Cat:\n    - q\n    - Q: who?\n",
        [":5: prompt 2 of 'Cat' is a set of entries"],
    ),
    "number as prompt": (
        "groups:\n  A:\n    Cat:\n    - q\n    - 012\n",
        [":5: prompt 2 of 'Cat' is the number 012", 'Put it in quotes: "012".'],
    ),
    "truth value as prompt": (
        "groups:\n  A:\n    Cat: [q, True]\n",
        [":3: prompt 2 of 'Cat' is the truth value True", 'quotes: "True"'],
    ),
    "empty word": ("groups:\n  A:\n    '': [q]\n", [":3: the word '' is empty"]),
    "blank word": ("groups:\n  A:\n    ' ': [q]\n", [":3: the word ' ' is empty"]),
    "word with a blank before it": (
        "groups:\n  A:\n    ' Cat': [q]\n",
        [":3: the word ' Cat' has blanks before or after it"],
    ),
    "number as word": ("groups:\n  A:\n    12: [q]\n", [":3: the key 12", 'quotes: "12"']),
    "truth value as word": ("groups:\n  A:\n    true: [q]\n", [":3: the key true", '"true"']),
    "nothing as word": ("groups:\n  A:\n    ~: [q]\n", [":3: the key ~"]),
    "list as word": ("groups:\n  A:\n    ? [a]\n    : [q]\n", [":3", "a key is itself a list"]),
    "empty answer": ("groups:\n  A:\n    Cat: {answer: '', prompts: [q]}\n", [":3: the answer of"]),
    "number as answer": (
        "groups:\n  A:\n    Cat: {answer: 7, prompts: [q]}\n",
        [":3: the answer of 'Cat' is the number 7", '"7"'],
    ),
    "word twice in a group": (
        G + "    Dog: [q]\n    Cat: [q]\n",
        [":5: 'Cat' stands here a second time, after line 3"],
    ),
    "word in two groups": (
        G + "  B:\n    Cat: [q]\n",
        [":5: the word 'Cat' stands a second time, after the one in group 'A'"],
    ),
    "group twice": (G + "  A:\n    Dog: [q]\n", [":4: 'A' stands here a second time"]),
    "prompt twice": (
        "groups:\n  A:\n    Cat:\n    - q\n    - r\n    - q\n",
        [":6: prompt 3 of 'Cat' is the same as prompt 1"],
    ),
    "empty group": (G + "  B:\n", [":4: the group 'B' is empty"]),
    "empty group in braces": (G + "  B: {}\n", [":4: the group 'B' is empty"]),
    "group that is a list": ("groups:\n  A: [Cat, Dog]\n", [":2: the group 'A' is a list"]),
    "group without a name": ("groups:\n  '':\n    Cat: [q]\n", [":2: the group '' is empty"]),
    "no groups": ("name: x\n", [":1: `groups` is missing"]),
    "groups left out": ("name: x\ngroups:\n", [":2: `groups` is empty"]),
    "groups empty": ("name: x\ngroups: {}\n", [":2: `groups` is empty"]),
    "no place in the template": ("template: Q.\n" + G, [":1: the template holds no {question}"]),
    "two places in the template": (
        "template: '{question} {question}'\n" + G,
        [":1: the template holds {question} twice", "exactly once"],
    ),
    "three places in the template": (
        "template: '{question}{question}{question}'\n" + G,
        [":1: the template holds {question} 3 times"],
    ),
    "number as template": ("template: 3\n" + G, [":1: the template is the number 3"]),
    "unknown form of answer": (
        "name: x\nanswer_form: spaec\n" + G,
        [":2: the answer_form is the text 'spaec'", "Did you mean 'space'?"],
    ),
    "no form of answer": ("answer_form:\n" + G, [":1: the answer_form is empty", "'no_space'"]),
    "number as name": ("name: 12\n" + G, [":1: the name is the number 12", '"12"']),
    "number of many digits": ("name: " + "9" * 5000 + "\n" + G, [":1: the name is the number 999"]),
    "empty file": ("", [":1: the file is empty"]),
    "only comments": ("# x\n\n# y\n", [":1: the file is empty"]),
    "only a marker": ("---\n", [":1: the file is empty"]),
    "root is a list": ("- a: b\n- c\n", [":1: this is not a set of named entries"]),
    "root is a text": ("\n\nhello there\n", [":3: the file begins with 'hello there'"]),
    "two documents": (G + "---\n" + G, [":4: a second document begins"]),
    "colon in a question": (
        "groups:\n  A:\n    Cat:\n    - Which animal: the one: is it?\n",
        [":4", "must stand in quotes"],
    ),
    "special character": ("name: @home\n" + G, [":1", "must stand in quotes"]),
    "quote that never ends": ("name: x\ntemplate: 'Q\n" + G, [":2", "Close the quote"]),
    "tag": ("groups: !!python/object:os.system {}\n", [":1: the YAML tag '!!python/object"]),
    "tag of a text": ("name: !foo bar\n" + G, [":1: the YAML tag '!foo'"]),
    "alias to nothing": ("groups:\n  A: *nothing\n", [":2: *nothing refers to nothing"]),
    "alias to itself": ("groups:\n  A: &a\n    Cat: *a\n", [":3: *a refers to what it is a part"]),
    "NUL": ("name: x\ntemplate: a\0b\n" + G, [":2: the character U+0000"]),
    "NUL as an escape": ('groups:\n  A:\n    "a\\0b": [q]\n', [":3: the word", "U+0000"]),
    "escape character": ('groups:\n  A:\n    Cat: ["\\e[31m"]\n', [":3: prompt 1", "U+001B"]),
    "half a surrogate pair": ('name: "\\ud800"\n' + G, [":1: the name holds", "U+D800"]),
    "line break in a word": ('groups:\n  A:\n    "a\\nb": [q]\n', [":3: the word", "line break"]),
    "UTF-16": (STUDY.encode("utf-16"), ["UTF-16", "UTF-8"]),
    "Latin-1": ("name: x\n# caf\u00e9\n".encode("latin-1"), [":2: the byte 0xe9 is not UTF-8"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_yaml(tmp_path: Path, kind: str) -> None:
    text, parts = WRONG[kind]
    message = refusal(write(tmp_path, text))
    assert message.startswith(str(tmp_path / "study.yaml"))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"groups": {"A": {"Cat": ["q"]},\n "B": {"Dog": ["r",]}}}', [":2: not valid JSON"]),
        ('{"groups": {"A": {"Cat": ["q"', [":1: not valid JSON"]),
        ("", [":1: not valid JSON"]),
        (G, [":1: not valid JSON", "suffix .yaml"]),
        ('{"name": "a\nb"}', [":1: not valid JSON: invalid control character"]),
        ("[1]", [":1: this is not a set of named entries"]),
        ('{"groups": {"A":\n{"Cat": ["q"],\n"Cat": ["r"]}}}', [":3: 'Cat' stands here a second"]),
        ('{"groups": {"A": {"Cat": ["q",\n12]}}}', [":2: prompt 2 of 'Cat' is the number 12"]),
        ('{"groups": {"A": {"Cat": ["q",\nnull]}}}', [":2: prompt 2 of 'Cat' is empty"]),
        ('{"groups": {"A": {"Cat": ["\\ud83d"]}}}', [":1: prompt 1 of 'Cat'", "U+D83D"]),
        ('{"groups": {"A": {"a\\u0000b": ["q"]}}}', [":1: the word", "U+0000"]),
        ('{"groups": {"A": {"C\\"at:": ["q",\n"q"]}}}', [":2: prompt 2 of 'C\"at:' is the same"]),
        ('{\n\n"gruops": {"A": {}}}', [":3: unknown key 'gruops'", "'groups'"]),
        ('{"name": NaN, "groups": {"A": {"Cat": ["q"]}}}', [":1: the name is the number NaN"]),
        ('{"name": ' + "9" * 9000 + ', "groups": {"A": {"Cat": ["q"]}}}', ["the name is the num"]),
    ],
)
def test_wrong_json(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refusal(write(tmp_path, text, "study.json"))
    assert message.startswith(str(tmp_path / "study.json"))
    for part in parts:
        assert part in message


_MB = 2**20
BOMBS: dict[str, tuple[str, str]] = {
    "aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "more than 250,000 entries, aliases counted in full",
    ),
    "aliases in depth": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000)),
        "nested too deeply",
    ),
    "brackets": ("groups: " + "[" * 100_000, "nested too deeply"),
    "braces": ("groups: " + "{a: " * 50_000, "nested too deeply"),
    "indents": ("".join(f"{' ' * n}a:\n" for n in range(2000)), "nested too deeply"),
    "one line": ("a" * (10 * _MB), "the file begins with 'aaa"),
    "prose": ("lorem ipsum dolor sit amet\n" * 400_000, "the file begins with 'lorem"),
    "prose after a key": ("name: x\n" + "lorem ipsum dolor\n" * 400_000, "not valid YAML"),
    "binary": ("groups:\n" + "\0" * (10 * _MB), "U+0000"),
    "blank lines": ("\n" * (10 * _MB), "the file is empty"),
    "much YAML": ("name: " + "a " * (5 * _MB), "YAML of more than 8 MB"),
    "JSON brackets": ("[" * 1_000_000, "nested too deeply"),
    "JSON braces": ('{"a":' * 400_000, "nested too deeply"),
    "JSON entries": ('{"a":[' + "1," * 5_000_000, "more than 1,000,000 entries"),
    "whole JSON": ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_junk_and_bombs_are_refused_quickly(tmp_path: Path, kind: str) -> None:
    text, part = BOMBS[kind]
    path = write(tmp_path, text, "study.json" if "JSON" in kind else "study.yaml")
    # At most about a second's work, though most are of ten million characters.
    with at_most(5_000_000):
        message = refusal(path)
    assert part in message


def test_entries_after_the_most_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kntrace.documents.read._YAML_LIMITS", Limits(1000, "Split the file."))

    def work(entries: int) -> int:
        path = write(tmp_path, "groups:\n" + "- a\n" * entries)
        assert "more than 1,000 entries" in refusal(path)
        return steps(lambda: refusal(path))

    work(2000)
    assert work(100_000) < 1.01 * work(2000)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing, which takes no room
    assert "larger than 64 MB" in refusal(path)


# Names of files and of bundled studies


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, STUDY, "pets.yaml")
    message = refusal(tmp_path / "pest.yaml")
    assert "there is no file" in message
    assert f"Did you mean {str(tmp_path / 'pets.yaml')!r}?" in message
    assert "there is no file" in refusal(tmp_path / "absent" / "pets.yaml")


def test_the_name_of_a_bundled_study_misspelt() -> None:
    assert "Did you mean 'similar-words'?" in refusal("similar_word")
    assert "Bundled: similar-words" in refusal("qqqq")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "this is a folder" in refusal(tmp_path)
    assert "a\\x00b" in refusal("a\0b")
    assert "is empty" in refusal("")
    write(tmp_path, STUDY)
    assert "cannot be read" in refusal(tmp_path / "study.yaml" / "study.yaml")


def test_a_bundled_name_comes_before_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "similar-words").mkdir()
    assert len(load_study("similar-words").words) == 38
    assert "this is a folder" in refusal("./similar-words")
