"""A study: groups of words, and the prompts that a model should answer with each word.

`load_study` reads one from a file, or one of those that come with kntrace.
"""

from kntrace.study.files import bundled_studies, load_study
from kntrace.study.model import AnswerForm, Study, Word

__all__ = ["AnswerForm", "Study", "Word", "bundled_studies", "load_study"]
