"""Study files that the tests of reading begin from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kntrace.errors import StudyError
from kntrace.study import Word, load_study

STUDY = """\
name: pets
template: "Q. {question} A. "
answer_form: space
groups:
  Animals:
    Cat: [Who purrs?, Who mews?]
    Dog:
      main:
        - Who barks?
      neutral: [What barks?, What growls?, What digs?]
    Fox: {answer: fox, prompts: [Who is sly?]}
  Colours:
    Red:
      answer: " red"
      prompts: {neutral: [What is blood?], main: [How is a rose?, How is a cherry?]}
"""


def write(folder: Path, text: str | bytes, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: str | Path, **options: Any) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def word(text: str = "Cat", group: str = "A", **prompts: tuple[str, ...]) -> Word:
    return Word(text=text, group=group, prompts=prompts or {"main": ("q",)})
