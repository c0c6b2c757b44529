"""The check of a study before it is run: rules with codes, one line a finding.

`check_study` applies the rules of `RULES`. None but those that ask a tokenizer or a model
import anything heavy, and only when they are asked.
"""

from kntrace.lint.checking import check_study
from kntrace.lint.finding import Checked, Finding, Remark, Rule
from kntrace.lint.registry import RULES

__all__ = ["RULES", "Checked", "Finding", "Remark", "Rule", "check_study"]
