"""Which regular expressions of a stranger's tokenizer are used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kntrace.errors import ModelError, SuiteError
from kntrace.models.beside import check_beside
from kntrace.models.patterns import fault_of_pattern
from kntrace.models.tokens import token_ids

# What public tokenizers cut text with.
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLIC = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}",
    "qwen": rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDINGS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}",
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+"
    rf"[{_LOWER}]*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}",
    "deepseek": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _BLANKS,
    "deepseek, Chinese": "[一-龥\u0800-一가-\ud7ff]+",
    "kimi": rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}&&[^\p{{Han}}]]*"
    rf"[{_LOWER}&&[^\p{{Han}}]]+{_ENDINGS}?|\p{{N}}{{1,3}}|{_BLANKS}",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "clip": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
    r"|[^\s\p{L}\p{N}]+",
    "falcon": "[0-9][0-9][0-9]",
    "digits from the right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
    "t5": " {2,}",
    "a class by name": r"[[:alpha:]]+|(?<digits>[0-9]{1,4})",
}

ENDLESS = {
    "(a+)+$": "repeats what has several lengths",
    "(a|a)*b": "repeats what has several lengths",
    "(?:a?){30}b": "repeats what has several lengths",
    "(?:x|(?:a*b)*)c": "repeats what has several lengths",
    "(?i)(a+)+$": "repeats what has several lengths",
    "[(a+)]|([^)]*[^]]*)*x": "a set begins with ]",
    r"(\(a+\))*b": "repeats what has several lengths",
    "(?<word>a+)+b": "repeats what has several lengths",
    "(?>(?:a+)+b)": "repeats what has several lengths",
    "a{1,3}+b": "repeats a repetition",
    "(?:a{1,3}+)x": "repeats a repetition",
    "a**b": "repeats a repetition",
    "a*a*a*b": "3 repetitions stand in a row",
    "a*(?:b|c*d*)e": "3 repetitions stand in a row",
    "a*(?=b*c*d)": "3 repetitions stand in a row",
    "a?" * 9 + "b": "9 optional parts",
    "|".join(["a*b*"] * 11): "11 of its alternatives",
    r"(a*)\1b": "refers to another part",
    r"(?<n>a|b\g<n>c)": "refers to another part",
    r"\X*b": "signs of any number",
    "(?~a+)b": "uncommon kind",
    "(*FAIL)": "uncommon kind",
    "(?x)( a + # )\n)+b": "uncommon kind",
    "(?:(?:a{1000}){1000}){1000}": "written out",
    "(" * 25 + "a" + ")" * 25: "nested",
    "a" * 20_000: "20,000 characters",
    "(a": "not closed",
    "[a": "not closed",
    "a)": "not opened",
    "a\\": "ends with",
    "*a": "repeats nothing",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_tokenizers_are_used(name: str) -> None:
    assert fault_of_pattern(PUBLIC[name]) is None
    Regex(PUBLIC[name])  # which it is for the library, too


@pytest.mark.parametrize("pattern", ENDLESS, ids=lambda pattern: pattern[:20])
def test_what_may_take_forever_is_refused(pattern: str) -> None:
    assert ENDLESS[pattern] in str(fault_of_pattern(pattern))


def test_the_danger_is_real() -> None:
    """Twenty-eight letters are enough for the library to give up, by a panic."""
    cut = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(BaseException, match="retry-limit") as caught:
        cut.pre_tokenize_str("a" * 28 + "!")
    assert not isinstance(caught.value, Exception)


_PIECES = st.sampled_from(
    [*r"ab.|()*+?[]^-{}\\$ ", "(?:", "(?=", "(?!", "(?>", "{1,3}", "{2}", "{2,}", r"\p{L}", "&&"]
)


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_what_is_passed_ends_soon(pattern: str) -> None:
    """Whatever the reader makes of it: tries enough for a second would end in a panic."""
    if fault_of_pattern(pattern) is not None:
        return
    try:
        expression = Regex(pattern)
    except Exception:
        return  # no expression, for the library
    for text in ("a" * 150 + "!", "ab" * 75 + "!", "aab " * 30):
        pre_tokenizers.Split(expression, "isolated").pre_tokenize_str(text)


@pytest.mark.parametrize(
    "rules",
    [
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}],
            }
        },
        {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}},
    ],
    ids=lambda rules: next(iter(rules)),
)
def test_a_model_with_one_is_refused(tmp_path: Path, rules: dict[str, object]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(SuiteError, match=r"may take forever: \(a\+\)\+ repeats") as caught:
        check_beside(tmp_path, "checkpoint here")
    assert "\n" not in str(caught.value)


def test_a_model_with_very_many_is_refused(tmp_path: Path) -> None:
    rules = [{"type": "Split", "pattern": {"Regex": "a"}}] * 33
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": rules}))
    with pytest.raises(SuiteError, match="very many regular expressions"):
        check_beside(tmp_path, "checkpoint here")


def test_a_tokenizer_that_gives_up_is_an_error_in_one_line() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(ModelError, match=r"the tokenizer gives up on it .*retry-limit") as caught:
        token_ids(tokenizer, "a" * 28 + "!")
    assert "\n" not in str(caught.value)
