"""Studies with one fault each, and tokenizers to read them with."""

from __future__ import annotations

import pytest

from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite

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


@pytest.fixture(name="causal", scope="module")
def fixture_causal(tmp_path_factory):
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
    return saved(tmp_path_factory.mktemp("causal"), fast, config)


def saved(home, tokenizer, config):
    tokenizer.save_pretrained(home / "step7")
    config.save_pretrained(home / "step7")
    return Suite("made", (Checkpoint("step7", 7, None, str(home / "step7"), None),))


def codes(checked):
    return [finding.code for finding in checked.findings]
