"""A first study for somebody to fill in."""

from __future__ import annotations

import json

from kntrace.documents import Fault, one_name
from kntrace.errors import StudyError

__all__ = ["new_study"]

_TEXT = """\
# A study: groups of words, and the questions a model should answer with each word.
# Fill in your own words, then look for mistakes before you run it:
#   kntrace check THIS-FILE --suite SUITE

name: {name}

# Put around every question, in place of {question}. Leave the line out to ask the questions as
# they are.
template: "Answer the following question in one word: Q. {question} A."

# How the answer joins the prompt. as_follows: as it stands in running text, with the blank that
# belongs between the two. space, no_space: the answer by itself, with one blank before it or
# with none.
answer_form: as_follows

# Group -> word -> questions. Each word stands in one group. Two groups at least, of five words
# or more, and equally many questions for every word (three or four are good). A question must
# not hold its own answer. Put yes, no, numbers, and texts with a colon in quotes.
groups:
  Animals:
    Cat:
      - Which pet purrs?
      - What does a kitten become?
      - Which creature is said to have nine lives?
    Dog:
      - Which pet barks at strangers?
      - What does a puppy become?
      - Which animal fetches sticks?
    Horse:
      - Which animal wears a saddle?
      - What does a foal become?
      - Which creature neighs?
    Sheep:
      - Which animal gives wool?
      - What does a lamb become?
      - Which creature is sheared every year?
    Cow:
      - Which animal gives milk?
      - What does a calf become?
      - Which farm creature moos?

  Colours:
    Red:
      - Which colour is blood?
      - What colour are ripe strawberries?
      - Which colour stops the traffic?
    Blue:
      - Which colour is a cloudless sky?
      - What colour are sapphires?
      - Which colour is the sea on maps?
    Green:
      - Which colour is fresh grass?
      - What colour are emeralds?
      - Which colour lets the traffic go?
    White:
      - Which colour is fresh snow?
      - What colour is milk?
      - Which colour is a swan?
    # The long form of a word, for an answer that is spelt differently, or for questions in
    # several wordings that are analysed apart from each other:
    #   answer: what the model should say
    #   prompts:
    #     main: [a question, another question]
    #     plain: [the same in other words, and again]
    Yellow:
      answer: Yellow
      prompts:
        - Which colour is the yolk of an egg?
        - What colour are ripe lemons?
        - Which colour is a canary?
"""


def new_study(name: str = "my-words") -> str:
    """Return a commented study file that loads as it is.

    Raises
    ------
    StudyError
        If the name is blank or spans lines.
    """
    try:
        one_name(name)
    except Fault as fault:
        raise StudyError(f"the name {name!r} {fault.says}", fix=fault.fix) from None
    return _TEXT.replace("{name}", json.dumps(name, ensure_ascii=False), 1)
