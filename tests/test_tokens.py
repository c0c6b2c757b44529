"""How a prompt and its answer become token ids, traps included."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kntrace.errors import ModelError, SettingsError
from kntrace.models.tokens import encode

CORPUS = ["The capital of France is Paris. Answer: Q. A. Cat cat the dog Dog isCat", "ああ"] * 50


@pytest.fixture(scope="module")
def bpe():
    """A byte-level tokenizer as GPT-NeoX's: a word's token holds the space before it."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|end|>")


@pytest.fixture(scope="module")
def framed(bpe):
    """The same, with a token put before and after every text."""
    plain = Tokenizer.from_str(bpe.backend_tokenizer.to_str())
    plain.add_special_tokens(["<s>", "</s>"])
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(t, plain.token_to_id(t)) for t in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")


def shown(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_a_closing_space_belongs_to_the_answer(bpe):
    """The paper's template ends in a space; the model reads " Cat", not " " and "Cat"."""
    found = encode(bpe, "A. ", "Cat")
    assert shown(bpe, found.answer) == ["ĠCat"]
    assert shown(bpe, found.ids)[-1] == "."


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("is", " Paris"), ("is ", "Paris"), ("is", "Paris"), ("is  ", " Paris"), ("is\t", "Paris")],
)
def test_all_ways_to_write_the_space_are_one(bpe, prompt, answer):
    found = encode(bpe, prompt, answer)
    assert (shown(bpe, found.ids), shown(bpe, found.answer)) == (["is"], ["ĠParis"])


def test_the_forms_with_and_without_space_take_the_prompt_as_it_is(bpe):
    assert shown(bpe, encode(bpe, "is", "Cat", "space").answer) == ["ĠCat"]
    assert shown(bpe, encode(bpe, "is", " Cat", "no_space").answer) == ["Cat"]
    assert shown(bpe, encode(bpe, "is ", "Cat", "space").ids) == ["is", "Ġ"]


def test_special_tokens_are_kept_before_and_dropped_after(framed):
    found = encode(framed, "The capital", "Cat")
    assert shown(framed, found.ids)[0] == "<s>"
    assert "</s>" not in shown(framed, found.ids + found.answer)
    assert shown(framed, found.answer) == ["ĠCat"]
    assert shown(framed, encode(framed, "is", "Cat", "no_space").answer) == ["Cat"]


def test_scripts_without_spaces_get_none(bpe):
    joined = encode(bpe, "フランスの首都は", "パリ")
    assert bpe.decode(joined.ids + joined.answer) == "フランスの首都はパリ"


def test_an_answer_of_several_tokens_is_given_whole(bpe):
    found = encode(bpe, "is", "xylophone")
    assert len(found.answer) > 1
    assert bpe.decode(found.answer) == " xylophone"


@pytest.mark.parametrize(
    ("prompt", "answer", "form", "error", "message"),
    [
        ("is", " ", "as_follows", ModelError, "answer is empty"),
        ("", "Cat", "as_follows", ModelError, "prompt has no token"),
        ("   ", "Cat", "as_follows", ModelError, "prompt has no token"),
        ("is", "Cat", "shouted", SettingsError, "answer form 'shouted'"),
    ],
)
def test_what_cannot_be_meant_is_refused(bpe, prompt, answer, form, error, message):
    with pytest.raises(error, match=message):
        encode(bpe, prompt, answer, form)


def test_an_answer_that_melts_into_the_prompt_is_refused(bpe):
    """Without a space between them the two may be one token, and then neither has its own."""
    assert len(encode(bpe, "is", "ああ").answer) == 1
    with pytest.raises(ModelError, match="melts into the prompt"):
        encode(bpe, "あ", "あ")
