"""The check of a study: every rule fires where it must, and is silent where it must."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import test_cli
from conftest import save_checkpoint
from kntrace.errors import SettingsError, SuiteError
from kntrace.lint import RULES, check_study, endings
from kntrace.lint.finding import Checked, Finding
from kntrace.lint.views import StudyView
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite, load_suite

MASK = "[MASK]"

GOOD = {
    "Pets": {
        "cat": ["which pet says meow?", "what hunts mice?"],
        "dog": ["which pet says woof?", "what guards houses?"],
        "fox": ["who is sly?", "who lives in an earth?"],
        "hen": ["who lays eggs?", "what bird clucks?"],
    },
    "Hues": {
        "red": ["which hue has blood?", "what hue stops cars?"],
        "blue": ["which hue has the sky?", "what hue has water?"],
        "green": ["which hue has grass?", "what hue starts cars?"],
        "gray": ["which hue has ash?", "what hue has an elephant?"],
    },
    "Lights": {
        "sun": ["what shines by day?", "what warms us?"],
        "moon": ["what wanes?", "what pulls tides?"],
    },
}


def study(groups=GOOD, *, template="Q. {question} A.", form="as_follows", answers=None):
    words = tuple(
        Word(text=text, group=group, answer=(answers or {}).get(text, text), prompts=_main(prompts))
        for group, entries in groups.items()
        for text, prompts in entries.items()
    )
    return Study(name="words", template=template, answer_form=form, words=words)


def _main(prompts):
    return prompts if isinstance(prompts, dict) else {"main": prompts}


def asking(word, *prompts, groups=GOOD):
    """Return the good groups with other prompts of one word."""
    return {
        group: {text: list(prompts) if text == word else asked for text, asked in words.items()}
        for group, words in groups.items()
    }


def masked(*prompts):
    """Ask for the cat in these words, and for all others with one mask at the end."""
    groups = {
        group: {
            text: [f"{question} {MASK} ." for question in asked] for text, asked in each.items()
        }
        for group, each in GOOD.items()
    }
    return study(asking("cat", *prompts, groups=groups) if prompts else groups, template=None)


TRAP = "Q. {question} A. "

FILE_OF_TWO = """\
groups:
  Pets:
    cat: [which pet says meow, what hunts mice]
    dog: [which pet says woof, what guards houses]
  Hues:
    red: [which hue has blood, what hue stops cars]
    cat: [which hue has a cat, what hue has a mouse]
"""

# code -> what the rule must speak of, and what it must keep silent about
FILES = {
    "K101": ("groups: {Pets: {cat: [what is it, 5]}}", "groups: {Pets: {cat: [what is it]}}"),
    "K102": (FILE_OF_TWO, FILE_OF_TWO.replace("    cat: [which h", "    ash: [which h")),
    "K103": ("groups: {A: {a: [how, why, how]}}", "groups: {A: {a: [how, why], b: [how]}}"),
}


def ending(ends):
    """The good groups, each word's prompts ending in the words that `ends` has for it in turn."""
    words = [(group, word) for group, entries in GOOD.items() for word in entries]
    groups = {}
    for place, (group, word) in enumerate(words):
        first, second = ends(group, place)
        groups.setdefault(group, {})[word] = [f"{word}1 is {first}", f"{word}2 is {second}"]
    return study(groups, template=None)


GIVEN_AWAY = ending(lambda group, place: {"Pets": ("his", "the"), "Hues": ("of", "of")}.get(
    group, ("of", "the")))  # fmt: skip
DEALT_OUT = ending(lambda group, place: [("his", "the"), ("of", "of"), ("of", "his")][place % 3])

STUDIES = {
    "K104": (asking("cat", "Which pet, says meow", "which pet says  Meow?"), GOOD),
    "K105": (asking("dog", "Which pet says meow?", "what guards houses?"), GOOD),
    "K106": (
        asking("cat", "Which Cat says meow?", "what hunts mice?"),
        asking("cat", "is it a caterpillar?", "what concatenates?"),
    ),
    "K107": (study(answers={"dog": "Cat"}), study(answers={"dog": "hound"})),
    "K108": ({"Pets": GOOD["Pets"]}, GOOD),
    "K109": ({**GOOD, "Lone": {"one": ["what number is first?", "how many are alone?"]}}, GOOD),
    "K110": ({group: GOOD[group] for group in ("Pets", "Hues")}, GOOD),
    "K111": (asking("cat", "which pet says meow?"), GOOD),
    "K112": (study(form="space", template=TRAP), study(form="no_space", template=TRAP)),
    "K113": (GIVEN_AWAY, DEALT_OUT),
}

TOKENS = {
    "K201": (study(form="as_follows", template="{question} A.", answers={"cat": "<odd>"}), study()),
    "K202": (study(answers={"cat": "zebra crossing"}), study()),
    "K203": (study(form="no_space", template=TRAP), study(form="space")),
    "K204": (study(answers={"cat": "<end>"}), study()),
    "K205": (study(asking("cat", "which pet " * 30, "what hunts mice?")), study()),
    "K206": (masked(f"a {MASK} or a {MASK} says meow .", "what hunts mice ?"), masked()),
    "K207": (masked(), study()),
    "K208": (study(answers={"dog": " cat"}), study()),
    "K209": (masked(), study()),
    "K210": (study(), study(answers={word: "<odd>" for words in GOOD.values() for word in words})),
}  # fmt: skip
NEEDS_MASKS = {"K206": (True, True), "K209": (True, False)}


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    """A folder with a byte-level tokenizer whose words carry their leading space."""
    import tokenizers
    import transformers

    raw = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<odd>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    every = " ".join(
        f"Q. {question} A. {word} {word}"
        for each in GOOD.values()
        for word, asked in each.items()
        for question in asked
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<odd>", "<end>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([every] * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<odd>", eos_token="<end>", bos_token="<end>"
    )
    config = transformers.GPTNeoXConfig(
        architectures=["GPTNeoXForCausalLM"], max_position_embeddings=40, vocab_size=600
    )
    return _saved(tmp_path_factory.mktemp("causal"), fast, config)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a tokenizer that has a mask and puts special tokens around every text."""
    import tokenizers
    import transformers

    asked = [f"{word} {' '.join(asked)}" for each in GOOD.values() for word, asked in each.items()]
    words = sorted(set(" ".join(asked).replace("?", "").split()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK, "?", ".", "a", "or", *words]
    places = {piece: place for place, piece in enumerate(dict.fromkeys(vocabulary))}
    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece(places, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    raw.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token=MASK, pad_token="[PAD]", model_max_length=20,
    )  # fmt: skip
    config = transformers.BertConfig(architectures=["BertForPreTraining"], vocab_size=len(places))
    return _saved(tmp_path_factory.mktemp("bert"), fast, config)


def _saved(home, tokenizer, config):
    tokenizer.save_pretrained(home / "step7")
    config.save_pretrained(home / "step7")
    return Suite("made", (Checkpoint("step7", 7, None, str(home / "step7"), None),))


def codes(checked):
    return [finding.code for finding in checked.findings]


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


@pytest.mark.parametrize("code", TOKENS)
def test_a_rule_of_tokens(code, causal, bert):
    for case, needs_mask, fires in zip(
        TOKENS[code], NEEDS_MASKS.get(code, (False, False)), (True, False), strict=True
    ):
        found = codes(check_study(case, bert if needs_mask else causal))
        assert (code in found) is fires, found


def test_the_trap_of_the_prompt_that_ends_in_a_blank(causal):
    trapped = study(form="no_space", template=TRAP)
    found = [one for one in check_study(trapped, causal).findings if one.code == "K203"]
    assert len(found) == 10  # once a word
    assert "read ' ' + 'c' + 'at' where running text has ' cat', since the" in found[0].says
    freed = check_study(study(template=TRAP), causal)
    assert set(codes(freed)) == {"K210"}
    assert freed.findings[0].says.startswith("' cat' (")


def test_several_tokens_are_an_error_only_where_the_run_refuses_them(causal):
    long = study(answers={"cat": "zebra crossing"})
    by_policy = {
        policy: finding.severity
        for policy in ("error", "first", "mean", "joint")
        for finding in check_study(long, causal, answer_tokens=policy).findings
        if finding.code == "K202"
    }
    assert by_policy == {
        "error": "error",
        "first": "warning",
        "mean": "warning",
        "joint": "warning",
    }


def test_first_tokens_that_are_the_same_matter_where_only_the_first_is_scored(causal):
    alike = study(answers={"cat": "cat dog", "dog": "cat fox"})
    assert "K208" in codes(check_study(alike, causal, answer_tokens="first"))
    assert "K208" not in codes(check_study(alike, causal, answer_tokens="joint"))


def test_a_masked_answer_is_read_in_place_of_the_mask(bert):
    checked = check_study(masked(), bert)
    notes = [finding.says for finding in checked.findings if finding.code == "K210"]
    assert len(notes) == 10
    assert all(note.endswith("is read in place of the mask") for note in notes)
    assert "K205" in codes(check_study(masked(f"what {MASK} " + "which " * 30), bert))
    wrong = next(
        f for f in check_study(masked("the pet <mask> ."), bert).findings if f.code == "K206"
    )
    assert wrong.fix == f"This model's mask is written {MASK}, not <mask>."


def test_no_weights_are_read_for_a_tokenizer(causal, tmp_path):
    """The folders of these suites have none."""
    assert check_study(study(), causal).checkpoint == "step7"
    with pytest.raises(SuiteError, match=r"checkpoint step7: .* cannot be loaded"):
        check_study(study(), causal, answers=True)
    gone = Suite("gone", (replace(causal.checkpoints[0], source=str(tmp_path / "none")),))
    with pytest.raises(SuiteError, match=r"no config\.json"):
        check_study(study(), gone)


def test_a_tokenizer_that_is_damaged_is_one_line(causal, tmp_path):
    import shutil

    folder = shutil.copytree(causal.checkpoints[0].source, tmp_path / "step7")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(SuiteError) as failure:
        check_study(study(), load_suite(tmp_path))
    assert "\n" not in str(failure.value)


def test_words_that_the_model_does_not_know(tiny_suite):
    """A random model knows nothing: ranks agree with an ordinary forward pass."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    last = tiny_suite.suite.checkpoints[-1].source
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(last),
        AutoTokenizer.from_pretrained(last),
    )
    best = {}
    for word in tiny_suite.study.words:
        ranks = []
        for prompt in filter(None, tiny_suite.study.rendered(word)):
            with torch.no_grad():
                logits = model(
                    **tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
                ).logits[0, -1]
            order = logits.argsort(descending=True).tolist()
            ranks.append(order.index(tokenizer.convert_tokens_to_ids(word.answer)))
        best[word.text] = min(ranks)
    for top in (1, 5, 10):
        checked = check_study(tiny_suite.study, tiny_suite.suite, answers=True, top=top)
        unknown = {f.word for f in checked.findings if f.code == "K301"}
        assert unknown == {word for word, rank in best.items() if rank >= top}
    assert {word for word, rank in best.items() if rank >= 1}


def test_masked_models_are_asked_at_the_mask(tmp_path):
    """Two prompts of one length whose masks stand in different places, against the model itself."""
    import torch

    from kntrace.lint.answers import answer_all
    from kntrace.lint.reader import load_reader
    from kntrace.lint.views import TokenView
    from test_masked import make, masked_tokenizer

    model, tokenizer = make("bert", torch.float32), masked_tokenizer()
    model.save_pretrained(tmp_path / "step7")
    tokenizer.save_pretrained(tmp_path / "step7")
    groups = {"a": {"w10": ["w9 [MASK] w7"]}, "b": {"w11": ["[MASK] w20 w21"]}}
    asked = study(groups, template=None)
    suite = load_suite(tmp_path)
    view = TokenView(asked, load_reader(suite.checkpoints[0]))
    for one, ids, place, answer in zip(
        answer_all(model, view.read), ([1, 9, 3, 7, 2], [1, 3, 20, 21, 2]), (2, 1), (10, 11),
        strict=True,
    ):  # fmt: skip
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, place]
        assert one.probability == pytest.approx(float(logits.softmax(-1)[answer]), rel=1e-5)
        assert one.rank == int((logits > logits[answer]).sum())
    assert check_study(asked, suite, answers=True, top=1).checkpoint == "step7"


def test_probabilities_do_not_depend_on_what_else_is_asked(tiny_suite):
    from kntrace.lint.answers import answer_all
    from kntrace.lint.reader import load_reader
    from kntrace.lint.views import TokenView
    from kntrace.models.load import load_checkpoint

    last = tiny_suite.suite.checkpoints[-1]
    model, view = load_checkpoint(last).model, TokenView(tiny_suite.study, load_reader(last))
    together = answer_all(model, view.read)
    assert [one.asked for one in together] == [read.asked for read in view.read]
    for read, one in zip(view.read, together, strict=True):
        (alone,) = answer_all(model, [read])
        assert (alone.rank, alone.probability) == (one.rank, pytest.approx(one.probability))
        assert 0 < one.probability < 1


def test_options_that_make_no_sense(causal):
    with pytest.raises(SettingsError, match="answer_tokens"):
        check_study(study(), causal, answer_tokens="second")
    with pytest.raises(SettingsError, match="without a suite"):
        check_study(study(), answers=True)
    with pytest.raises(SettingsError, match="top = 0"):
        check_study(study(), causal, answers=True, top=0)


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


def test_two_thousand_words_are_checked_in_seconds(causal):
    groups = {
        f"g{group}": {
            f"w{group}x{word}": [f"what is {group} and {word} in way {way}?" for way in range(4)]
            for word in range(20)
        }
        for group in range(100)
    }
    begun = time.process_time()
    check_study(study(groups))
    assert time.process_time() - begun < 3
    checked = check_study(study(groups), causal, answer_tokens="joint")
    assert time.process_time() - begun < 20
    assert sum(code == "K210" for code in codes(checked)) >= 2000


# On the command line


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("files")
    for name, groups in (("good", GOOD), ("warned", STUDIES["K111"][0])):
        (home / f"{name}.yaml").write_text(study(groups).to_yaml())
    (home / "wrong.yaml").write_text(FILE_OF_TWO)
    return home


@pytest.mark.parametrize(
    ("name", "options", "expect"),
    [("good", [], 0), ("warned", [], 0), ("warned", ["--strict"], 2), ("wrong", [], 2)],
)
def test_exit_codes(name, options, expect, files):
    done = test_cli.kn("check", files / f"{name}.yaml", *options, expect=expect)
    errors, warnings = int(name == "wrong"), int(name == "warned")
    said = done.stderr.strip().split(": ")[-1]
    assert said == f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    lines = done.stdout.splitlines()
    assert all(line.startswith("K1") for line in lines)
    assert bool(lines) is (name != "good")


def test_check_as_json(files, causal):
    done = test_cli.kn("check", files / "wrong.yaml", "--json", expect=2)
    found = json.loads(done.stdout)
    assert (found["errors"], found["findings"][0]["code"]) == (1, "K102")
    folder = causal.checkpoints[0].source
    done = test_cli.kn(
        "check", files / "good.yaml", "--suite", folder, "--json", "--answer-tokens", "joint"
    )
    assert json.loads(done.stdout)["checkpoint"] == "step7"
    shown = test_cli.kn("check", files / "good.yaml", "--suite", folder, "--answer-tokens", "joint")
    quiet = test_cli.kn(
        "check", files / "good.yaml", "--suite", folder, "--no-notes", "--answer-tokens", "joint"
    )
    assert "K210 note" in shown.stdout
    assert "K210" not in quiet.stdout


def test_answers_on_the_command_line(tiny_suite, tmp_path):
    save_checkpoint(tmp_path / "step3", seed=1)
    done = test_cli.kn(
        "check", tiny_suite.study_file, "--suite", tmp_path, "--answers", "--top", "1"
    )
    assert "K301 warning" in done.stdout


def by_pairs(given):
    """Share of alike endings within and between groups, pair by pair of prompts."""
    ends = {
        word.text: [prompt.split()[-1].strip("?").lower() for prompt in given.rendered(word)]
        for word in given.words
    }
    shares = {True: [], False: []}
    for one, other in combinations(given.words, 2):
        alike = [a == b for a in ends[one.text] for b in ends[other.text]]
        shares[one.group == other.group].append(np.mean(alike))
    return np.mean(shares[True]), np.mean(shares[False])


@pytest.mark.parametrize("given", [GIVEN_AWAY, DEALT_OUT])
def test_endings_are_counted_over_pairs_of_words(given):
    asked = StudyView(given).asked
    found = endings._Alike.of(asked)
    np.testing.assert_allclose((found.within, found.between), by_pairs(given), atol=1e-12)
    assert (found.p <= 0.01) == (given is GIVEN_AWAY)


def test_endings_tell_which_group_and_how_often():
    (found,) = [one for one in check_study(GIVEN_AWAY).findings if one.code == "K113"]
    assert "'of', the end of 8 of the 8 prompts of 'Hues'" in found.says
    assert found.severity == "warning"


def test_a_template_ends_all_prompts_alike():
    """The model reads the template last, whatever the questions end in."""
    asked = GIVEN_AWAY.model_copy(update={"template": "Q. {question} A."})
    assert "K113" not in codes(check_study(asked))
    open_end = GIVEN_AWAY.model_copy(update={"template": "Say it: {question}"})
    assert "K113" in codes(check_study(open_end))


def test_labels_dealt_out_anew_seldom_look_given_away():
    """Thirty studies whose endings mean nothing: a warning at most where chance allows one."""
    rng = np.random.default_rng(0)
    ends = np.array(["of", "his", "the", "unto", "a"])
    warned = sum(
        any(endings.endings_tell_groups(StudyView(ending(lambda *_: rng.choice(ends, 2)))))
        for _ in range(30)
    )
    assert warned <= 2


def test_the_bundled_studies_and_their_endings():
    assert "K113" not in codes(check_study("similar-words"))
    kjv = Path(__file__).parents[1] / "examples" / "kjv" / "study.yaml"
    assert "K113" in codes(check_study(kjv))


def test_without_spaces_the_last_letter_is_the_ending():
    groups = {
        "動物": {word: [f"{word}一は", f"{word}二は"] for word in ("犬", "猫", "狐", "鶏")},
        "色": {word: [f"{word}一の", f"{word}二の"] for word in ("赤", "青", "緑", "灰")},
    }
    assert "K113" in codes(check_study(study({**groups, "光": GOOD["Lights"]}, template=None)))
