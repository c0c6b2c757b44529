"""Studies from other files: what is taken over, and what is refused in one clear line."""

# ruff: noqa: E501 - tables of cases are read best with a case a line

from __future__ import annotations

import hashlib
import json

import pytest

import test_cli
from counting import at_most, excess
from kntrace.errors import KntraceError, SettingsError, StudyError
from kntrace.lint import check_study
from kntrace.study import load_study
from kntrace.study.importing import FORMATS, import_study
from kntrace.study.template import new_study

ROWS = [
    {"word": "cat", "group": "Pets", "prompt": "Which pet, says meow? "},
    {"word": "red", "group": "Hues", "prompt": 'Which hue is "blood"?'},
    {"word": "cat", "group": "Pets", "prompt": "What hunts\nmice?"},
    {"word": "dog", "group": "Pets", "prompt": "Which pet says woof?"},
]
WANTED = {"Pets": {"cat": (ROWS[0]["prompt"], ROWS[2]["prompt"]), "dog": (ROWS[3]["prompt"],)}, "Hues": {"red": (ROWS[1]["prompt"],)}}  # fmt: skip

CAPITALS = {
    "name": "capital of a country",
    "prompt_templates": ["The capital of {} is", "{} is governed from"],
    "prompt_templates_zs": ["What is the capital of {}? It is"],
    "properties": {"relation_type": "factual"},
    "samples": [
        {"subject": "France", "object": "Paris"},
        {"subject": "Japan", "object": "Tokyo"},
        {"subject": "the Fifth Republic", "object": "Paris"},
    ],
}
PATTERNS = [
    {"pattern": "[X] is a citizen of [Y] .", "lemma": "be"},
    {"pattern": "[Y] is where [X] comes from .", "lemma": "come"},
    {"pattern": "[X] was born in [Y].", "lemma": "bear"},
]
FACTS = [
    {"sub_label": "Marie", "obj_label": "France", "uuid": "1"},
    {"sub_label": "Jean", "obj_label": "France", "uuid": "2"},
    {"sub_label": "Marie", "obj_label": "France", "uuid": "1"},
    {"sub_label": "Aiko", "obj_label": "Japan", "uuid": "3"},
]


def case(relation, prompt, subject, answer):
    rewrite = {"prompt": prompt, "relation_id": relation, "subject": subject}
    rewrite |= {"target_true": {"str": answer, "id": "Q1"}, "target_new": {"str": "x", "id": "Q2"}}
    return {"case_id": 0, "requested_rewrite": rewrite, "paraphrase_prompts": ["…"]}


CASES = [
    case("P103", "The mother tongue of {} is", "Danielle", "French"),
    case("P103", "{} spoke", "Victor", "French"),
    case("P36", "The capital of {} is", "Japan", "Tokyo"),
]


def prompts(study):
    return {
        group: {text: word.prompts["main"] for word in study.words for text in [word.text] if word.group == group}
        for group in study.groups
    }  # fmt: skip


def lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def table(path, text):
    path.write_bytes(text.encode())
    return path


CSV = 'prompt,Word,group,note\n"Which pet, says meow? ",cat,Pets,n\n"Which hue is ""blood""?",red,Hues,\n"What hunts\nmice?",cat,Pets,\n\nWhich pet says woof?,dog,Pets,\n'


@pytest.mark.parametrize("kind", ["csv", "bom", "crlf", "tsv", "jsonl"])
def test_a_table_becomes_the_same_study(kind, tmp_path):
    path = tmp_path / f"words.{kind if kind in ('tsv', 'jsonl') else 'csv'}"
    if kind == "jsonl":
        lines(path, [{**row, "note": 1} for row in ROWS])
    elif kind == "tsv":
        text = (
            CSV.replace(",cat,", "\tcat\t").replace(",red,", "\tred\t").replace(",dog,", "\tdog\t")
        )
        text = text.replace("prompt,Word,group,note", "prompt\tWord\tgroup\tnote")
        table(path, text.replace("Pets,", "Pets\t").replace("Hues,", "Hues\t"))
    else:
        table(path, {"csv": CSV, "bom": "\ufeff" + CSV, "crlf": CSV.replace("\n", "\r\n")}[kind])
    found = import_study([path])
    assert prompts(found.study) == WANTED
    assert found.study.name == "words"
    assert found.format == ("jsonl" if kind == "jsonl" else "csv")
    assert found.notes == (f"{path}: left out 'note'",)


def test_answers_and_wordings_of_a_table(tmp_path):
    path = table(
        tmp_path / "t.csv",
        "word,group,prompt,answer,wording\na,A,how,α,\na,A,why,α,plain\nb,B,who,,\n",
    )
    first, second = import_study([path]).study.words
    assert (first.answer, second.answer) == ("α", "b")
    assert first.prompts == {"main": ("how",), "plain": ("why",)}
    assert second.prompts == {"main": ("who",)}


def test_several_files_make_one_study(tmp_path):
    one = table(tmp_path / "one.csv", "word,group,prompt\na,A,how\n")
    two = table(tmp_path / "two.csv", "word,group,prompt\nb,B,why\na,A,where\n")
    study = import_study([one, two], name="both", template="Q. {question} A.").study
    assert prompts(study) == {"A": {"a": ("how", "where")}, "B": {"b": ("why",)}}
    assert study.rendered("a") == ("Q. how A.", "Q. where A.")


def test_lre_relations(tmp_path):
    path = tmp_path / "capitals.json"
    path.write_text(json.dumps(CAPITALS))
    found = import_study([path])
    assert found.format == "lre"
    # Each prompt has another subject and another template, as long as there are any.
    assert prompts(found.study) == {
        "capital of a country": {
            "Paris": (
                "The capital of France is",
                "the Fifth Republic is governed from",
                "France is governed from",
                "The capital of the Fifth Republic is",
            ),
            "Tokyo": ("The capital of Japan is", "Japan is governed from"),
        }
    }


def pararel(tmp_path, relation="P27", patterns=PATTERNS, facts=FACTS):
    for kind in ("patterns", "facts"):
        (tmp_path / kind).mkdir(exist_ok=True)
    return [
        lines(tmp_path / "patterns" / f"{relation}.jsonl", patterns),
        lines(tmp_path / "facts" / f"{relation}.jsonl", facts),
    ]


def test_pararel_for_a_causal_model(tmp_path):
    files = pararel(tmp_path)
    found = import_study(files)
    assert found.format == "pararel"
    assert prompts(found.study) == {
        "P27": {
            "France": (
                "Marie is a citizen of",
                "Jean was born in",
                "Marie was born in",
                "Jean is a citizen of",
            ),
            "Japan": ("Aiko is a citizen of", "Aiko was born in"),
        }
    }
    assert found.notes[0] == f"{files[0]}: left out 1 patterns that do not end with [Y]"
    assert "twice" in found.notes[1]


def test_pararel_for_a_masked_model(tmp_path):
    found = import_study(pararel(tmp_path), mask="[MASK]").study
    japan = found.words[1].prompts["main"]
    assert japan == (
        "Aiko is a citizen of [MASK] .",
        "[MASK] is where Aiko comes from .",
        "Aiko was born in [MASK].",
    )


def test_pararel_facts_without_patterns_are_left_out(tmp_path):
    """As of P31 and P527 in the data set itself."""
    spare = pararel(tmp_path, "P31")[1]
    whole = import_study(pararel(tmp_path))
    found = import_study([*pararel(tmp_path), spare])
    assert found.study.words == whole.study.words
    assert any("left out P31: facts without" in note for note in found.notes)


def test_pararel_files_go_together_by_name(tmp_path):
    files = [*pararel(tmp_path, "P27"), *pararel(tmp_path, "P36", facts=FACTS[3:])]
    with pytest.raises(
        StudyError, match=r"'Japan' is in group 'P36', but in 'P27' in .*P27.jsonl:4"
    ):
        import_study(files)
    with pytest.raises(StudyError, match="no file of facts for the relation 'P36'"):
        import_study(files[:3])
    renamed = import_study(files, shared="rename")
    assert [word.text for word in renamed.study.words] == ["France", "Japan (P27)", "Japan (P36)"]
    assert [word.answer for word in renamed.study.words] == ["France", "Japan", "Japan"]
    dropped = import_study(files, shared="drop")
    assert [word.text for word in dropped.study.words] == ["France"]
    assert "left out 1 words that are in two groups: Japan" in dropped.notes


def test_counterfact(tmp_path):
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps(CASES))
    found = import_study([path])
    assert found.format == "counterfact"
    assert prompts(found.study) == {
        "P103": {"French": ("The mother tongue of Danielle is", "Victor spoke")},
        "P36": {"Tokyo": ("The capital of Japan is",)},
    }


def test_numbers_of_prompts(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CASES))
    found = import_study([path], prompts=1)
    assert all(len(word.prompts["main"]) == 1 for word in found.study.words)
    assert found.notes == ("kept the first 1 prompts of 1 words that have more",)
    found = import_study([path], min_prompts=2)
    assert [word.text for word in found.study.words] == ["French"]
    assert found.notes == ("left out 1 words with fewer than 2 prompts: Tokyo",)
    with pytest.raises(StudyError, match="no word has 3 prompts"):
        import_study([path], min_prompts=3)
    with pytest.raises(SettingsError, match="at least 3 prompts and at most 2"):
        import_study([path], prompts=2, min_prompts=3)
    with pytest.raises(SettingsError, match="shared words 'keep'"):
        import_study([path], shared="keep")


def test_what_is_written_is_read_back(tmp_path):
    """Every format, through YAML, to an equal study."""
    made = {
        "csv": [table(tmp_path / "t.csv", CSV)],
        "jsonl": [lines(tmp_path / "t.jsonl", ROWS)],
        "lre": [tmp_path / "l.json"],
        "pararel": pararel(tmp_path),
        "counterfact": [tmp_path / "c.json"],
    }
    made["lre"][0].write_text(json.dumps(CAPITALS))
    made["counterfact"][0].write_text(json.dumps(CASES))
    assert set(made) == set(FORMATS)
    for kind, files in made.items():
        study = import_study(files, kind).study
        back = tmp_path / f"{kind}.yaml"
        back.write_text(study.to_yaml())
        assert load_study(back) == study
        assert import_study(files).format == kind  # detected too


H = "word,group,prompt\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "t.csv:1: the file is empty"),
        ("t.csv", "\n\n", "t.csv:1: the file is empty"),
        ("t.csv", "word;group;prompt\na;A;how\n", "Separate the cells by commas"),
        ("t.tsv", "word,group,prompt\na,A,how\n", "Separate the cells by commas"),
        ("t.csv", "wrod,group,prompt\na,A,how\n", "no column 'word'.* Did you mean 'wrod'"),
        ("t.csv", "word,group,word,prompt\n", "two columns 'word'"),
        ("t.csv", H, "nothing to import"),
        ("t.csv", H + "a,A\n", r"t\.csv:2: 2 cells; expected 3"),
        ("t.csv", H + "a,A,well, how\n", "Put a text with commas in double quotes"),
        ("t.csv", H + 'a,A,"how\nb,A,why\n', r"t\.csv:2: not valid csv"),
        ("t.csv", H + "a,A,\n", r"t\.csv:2: the prompt is empty"),
        ("t.csv", H + "a,A,how\n , A,why\n", r"t\.csv:3: the word is empty"),
        ("t.csv", H + " a,A,how\n", "the word has blanks before or after it"),
        ("t.csv", H + "a,A,how\x00\n", r"holds the character U\+0000"),
        ("t.csv", H + 'a,A,"how\nlong"\n"a",A,"how\nlong"\n', r"t\.csv:4: .* same as in .*t\.csv:2"),
        ("t.csv", H + "a,A,how\na,B,why\n", r"t\.csv:3: the word 'a' is in group 'B', but in 'A' in .*:2"),
        ("t.csv", "word,group,prompt,answer\na,A,how,x\na,A,why,y\n", "answer of 'a' is 'y', but 'x'"),
        ("t.csv", "word,group,prompt,wording\na,A,how,x\nb,A,why,y\n", "no prompts in the wording 'x'"),
        ("t.jsonl", "", "the file is empty"),
        ("t.jsonl", '{"word": "a", "group": "A", "prompt": "how"}\n{"word"', r"t\.jsonl:2: not valid JSON"),
        ("t.jsonl", '{"word": "a", "group": "A", "prompt": "how"}\n[]', r"t\.jsonl:2: no JSON object"),
        ("t.jsonl", '{"word": "a", "group": "A", "prompt": "how"}\n{"word": "b"}', r"t\.jsonl:2: no 'group'"),
        ("t.jsonl", '{"word": "a", "group": "A", "prompt": ["how"]}', r"the prompt is \['how'\]"),
        ("t.jsonl", '{"word": true, "group": "A", "prompt": "how"}', "the word is True"),
        ("t.jsonl", '{"some": 1}', "does not show which format"),
        ("t.json", '{"word": ["how"]}', "does not show which format"),
        ("t.json", "[]", "does not show which format"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.json", '{"a": 1,\n}', r"t\.json:2: not valid JSON"),
        ("t.txt", "word,group,prompt", "does not show which format"),
        ("t.yaml", "groups: {}", "does not show which format"),
    ],
)  # fmt: skip
def test_wrong_tables(name, text, message, tmp_path):
    with pytest.raises(StudyError, match=message) as failure:
        import_study([table(tmp_path / name, text)])
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 600


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("lre", [], "a list"),
        ("lre", {**CAPITALS, "samples": []}, "no list 'samples'"),
        ("lre", {**CAPITALS, "name": 5}, "'name' is 5"),
        ("lre", {**CAPITALS, "prompt_templates": ["{} of {}"]}, "template 1 is"),
        ("lre", {**CAPITALS, "prompt_templates": ["the capital is"]}, "template 1 is"),
        ("lre", {**CAPITALS, "samples": [{"subject": "a"}]}, "sample 1: no 'object'"),
        ("lre", {**CAPITALS, "samples": [{"subject": "a", "object": "b\nc"}]}, "sample 1: .* line break"),
        ("counterfact", {}, "no list"),
        ("counterfact", [{}], "case 1: no 'requested_rewrite'"),
        ("counterfact", [case("P1", "no place", "a", "b")], "case 1: the prompt is 'no place'"),
        ("counterfact", [case("P1", "{} is", "a", "")], "case 1: 'str' is ''"),
        ("counterfact", [], "nothing to import"),
    ],
)  # fmt: skip
def test_wrong_data_sets(kind, data, message, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    with pytest.raises(StudyError, match=message) as failure:
        import_study([path], kind)
    assert "\n" not in str(failure.value)


def test_wrong_pararel(tmp_path):
    with pytest.raises(StudyError, match=r"no pattern ends with \[Y\].*--mask"):
        import_study(pararel(tmp_path, patterns=PATTERNS[1:2]))
    with pytest.raises(StudyError, match=r"P27.jsonl:1: the pattern is '\[X\] is'"):
        import_study(pararel(tmp_path, patterns=[{"pattern": "[X] is"}]))
    with pytest.raises(StudyError, match=r"P27.jsonl:1: no 'obj_label'"):
        import_study(pararel(tmp_path, facts=[{"sub_label": "a"}]), "pararel")
    files = pararel(tmp_path)
    with pytest.raises(StudyError, match="no file of patterns"):
        import_study(files[1:])
    with pytest.raises(StudyError, match="two files 'P27' of one kind"):
        import_study([files[0], files[0]])
    with pytest.raises(StudyError, match="a mask only with ParaRel"):
        import_study([table(tmp_path / "t.csv", CSV)], mask="[MASK]")


def test_files_of_two_formats_and_of_none(tmp_path):
    one, two = table(tmp_path / "t.csv", CSV), lines(tmp_path / "t.jsonl", ROWS)
    with pytest.raises(StudyError, match=r"t.csv is csv, but .*t.jsonl is jsonl"):
        import_study([one, two])
    with pytest.raises(SettingsError, match=r"format 'cvs'.*Did you mean 'csv'"):
        import_study([one], "cvs")
    with pytest.raises(StudyError, match="no files"):
        import_study([])
    with pytest.raises(StudyError, match="there is no file"):
        import_study([tmp_path / "absent.csv"])
    with pytest.raises(StudyError, match="this is a folder"):
        import_study([tmp_path], "csv")
    (tmp_path / "u.csv").write_bytes(CSV.encode("utf-16"))
    with pytest.raises(StudyError, match="UTF-16"):
        import_study([tmp_path / "u.csv"])


def test_a_new_study_loads_and_passes_the_check(tmp_path):
    path = tmp_path / "new.yaml"
    for name in ("my-words", 'odd: "name" # {question}', "null", "猫"):
        path.write_text(new_study(name))
        assert load_study(path).name == name
    assert check_study(path).findings == ()
    assert path.read_text().count("#") > 10
    with pytest.raises(StudyError, match="is empty"):
        new_study(" ")


def test_twice_as_many_words_are_imported_with_twice_the_work(tmp_path):
    def work(words):
        rows = [
            {
                "word": f"w{word}",
                "group": f"g{word % (words // 20)}",
                "prompt": f"what is {word} in way {way}?",
            }
            for way in range(4)
            for word in range(words)
        ]
        file, copy = lines(tmp_path / "big.jsonl", rows), tmp_path / "big.yaml"

        def there_and_back():
            study = import_study([file]).study
            copy.write_text(study.to_yaml())
            assert load_study(copy) == study
            assert len(study.words) == words

        return there_and_back

    assert excess(work, 60) < 0.02


def test_many_wordings_of_some_words_are_not_compared_for_every_word(tmp_path):
    """Each word lacks most wordings, and the names of wordings are compared with each other."""
    names = [hashlib.sha256(bytes([place])).hexdigest() for place in range(79)]

    def import_words(words):
        rows = [
            {
                "word": f"w{word}",
                "group": f"g{word % 9}",
                "prompt": f"{word} {wording}",
                "wording": wording,
            }
            for word in range(words)
            for wording in ("main", names[word % 40], names[40 + word % 39])
        ]
        file = lines(tmp_path / "wide.jsonl", rows)
        assert len(import_study([file]).study.wordings) == 80

    with at_most(5_000_000):
        import_words(600)


# On the command line


def test_new_and_import_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = test_cli.kn("study", "new", "mine.yaml", "--name", "mine")
    assert "kntrace check mine.yaml" in done.stdout
    test_cli.kn("check", "mine.yaml", "--strict")
    again = test_cli.kn("study", "new", "mine.yaml", expect=2)
    assert "there already" in again.stderr
    table(tmp_path / "t.csv", CSV)
    done = test_cli.kn(
        "study", "import", "t.csv", "--out", "t.yaml", "--template", "Q. {question} A."
    )
    assert done.stdout.startswith("3 words in 2 groups. Next: kntrace check t.yaml")
    assert "left out 'note'" in done.stderr
    assert prompts(load_study(tmp_path / "t.yaml")) == WANTED
    test_cli.kn("study", "import", "t.csv", "--out", "t.yaml", "--force")
    assert load_study(tmp_path / "t.yaml").template is None


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "excel"],
        ["--answer-form", "glued"],
        ["--template", "no place for it"],
        ["--shared", "both"],
        ["--out", "no/such/folder.yaml"],
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "t.csv", CSV)
    done = test_cli.kn("study", "import", "t.csv", "--out", "t.yaml", *options, expect=2)
    assert done.stderr.splitlines()[-1].startswith("kntrace: input: ")
    assert not (tmp_path / "t.yaml").exists()


def test_errors_are_those_of_kntrace():
    assert issubclass(StudyError, KntraceError)
