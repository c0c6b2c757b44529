"""What the linter asks of tokenizers and models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kntrace.errors import SettingsError, SuiteError
from kntrace.lint import check_study
from kntrace.suite import Suite, load_suite
from linted import (
    GOOD,
    MASK,
    TOKENS,
    TRAP,
    codes,
    fixture_causal,  # noqa: F401
    masked,
    saved,
    study,
)

NEEDS_MASKS = {"K206": (True, True), "K209": (True, False)}


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
    return saved(tmp_path_factory.mktemp("bert"), fast, config)


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
