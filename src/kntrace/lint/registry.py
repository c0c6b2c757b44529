"""All rules of the check. To add one: a function, a line here, two cases in its test."""

from __future__ import annotations

from kntrace.lint import endings, model_rules, study_rules, token_rules
from kntrace.lint.finding import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    Rule("K101", "error", "file", study_rules.unreadable),
    Rule("K102", "error", "file", study_rules.word_in_two_groups),
    Rule("K103", "error", "file", study_rules.prompt_twice),
    Rule("K104", "warning", "study", study_rules.nearly_the_same_prompt),
    Rule("K105", "warning", "study", study_rules.prompt_of_two_words),
    Rule("K106", "warning", "study", study_rules.answer_in_its_prompt),
    Rule("K107", "warning", "study", study_rules.same_answer),
    Rule("K108", "error", "study", study_rules.no_contrast),
    Rule("K109", "warning", "study", study_rules.group_of_one),
    Rule("K110", "warning", "study", study_rules.too_few_words),
    Rule("K111", "warning", "study", study_rules.unbalanced_prompts),
    Rule("K112", "warning", "study", study_rules.blank_at_the_joint),
    Rule("K113", "warning", "study", endings.endings_tell_groups),
    Rule("K201", "error", "tokens", token_rules.cannot_be_read),
    Rule("K202", "error", "tokens", token_rules.answer_of_several_tokens),
    Rule("K203", "warning", "tokens", token_rules.apart_unlike_together),
    Rule("K204", "error", "tokens", token_rules.special_token_in_the_answer),
    Rule("K205", "error", "tokens", token_rules.prompt_too_long),
    Rule("K206", "error", "tokens", token_rules.number_of_masks),
    Rule("K207", "error", "tokens", token_rules.mask_for_a_causal_model),
    Rule("K208", "warning", "tokens", token_rules.same_answer_tokens),
    Rule("K209", "note", "tokens", token_rules.special_tokens_around),
    Rule("K210", "note", "tokens", token_rules.answer_as_read),
    Rule("K301", "warning", "model", model_rules.unknown_word),
)
"""Every rule, in the order in which reports list their findings."""
