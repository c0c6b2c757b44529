"""Values that the shell may complete: names that options and arguments take.

Nobody waits for a completion until scipy or torch is loaded. So the names of what needs them are
written down here, and a test holds them against the tables; the others are read from these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "ANSWER_FORMS",
    "ANSWER_TOKENS",
    "ARCHITECTURES",
    "AVERAGINGS",
    "BASELINES",
    "COVARIATES",
    "DEVICES",
    "DISTANCES",
    "DTYPES",
    "KEEPS",
    "OBJECTIVES",
    "RULES",
    "SELECTIONS",
    "SHARED",
    "SITES",
    "SIZES",
    "STEPS",
    "WORLDS",
    "export_formats",
    "figures",
    "of",
    "presets",
    "studies",
    "study_formats",
    "suites",
    "views",
]

RULES = (
    "adaptive",
    "gauss_legendre",
    "gauss_lobatto",
    "midpoint",
    "trapezoid",
    "left",
    "right",
    "public_code",
    "gradient_x_activation",
)
SITES = ("post_activation", "pre_activation", "gate_activation", "up_projection")
OBJECTIVES = ("probability", "log_probability", "logit_difference")
BASELINES = ("zero", "mean")
ANSWER_TOKENS = ("error", "first", "mean", "greedy", "joint")
KEEPS = ("prompts", "means")
DTYPES = ("float32", "float64", "bfloat16", "float16", "tf32")
DISTANCES = (
    "emd",
    "emd_euclidean",
    "emd_public_code",
    "emd_bound",
    "w1",
    "w2",
    "emd_over_probability",
    "sliced",
    "jaccard",
    "identity",
    "cosine",
    "probability_curve",
)
COVARIATES = ("word_length", "answer_tokens", "token_id", "learning_time")
AVERAGINGS = ("every_prompt", "public_code")
ANSWER_FORMS = ("as_follows", "space", "no_space")
SHARED = ("refuse", "drop", "rename")
ARCHITECTURES = ("gpt_neox", "llama")
WORLDS = (
    "structured",
    "flat",
    "confounded",
    "strongly_confounded",
    "structured_confounded",
    "contexts_only",
    "phrasings_only",
    "weak",
    "weak_confounded",
    "name_length",
    "question_form",
    "structured_12",
    "flat_12",
    "structured_20",
    "flat_20",
    "structured_two",
    "flat_two",
    "structured_six",
    "flat_six",
)

SIZES = ("paper", "column", "wide", "slide")
DEVICES = ("cpu", "cuda", "mps", "auto")
STEPS = ("paper", "all", "log:", "linear:", "every:")
SELECTIONS = ("top:", "threshold:", "rare:")

Complete = Callable[[str], list[str]]


def of(names: Sequence[str]) -> Complete:
    """Offer these names."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(names, incomplete)

    return complete


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    from kntrace.presets import PRESETS

    return _beginning(PRESETS, incomplete)


def views(incomplete: str) -> list[str]:
    """Names of views."""
    from kntrace.views import all_views

    return _beginning((*all_views(), "all"), incomplete)


def figures(incomplete: str) -> list[str]:
    """Names of figures."""
    from kntrace.figures import DOSE, FIGURES

    return _beginning((*FIGURES, DOSE.name), incomplete)


def export_formats(incomplete: str) -> list[str]:
    """Formats of scores."""
    from kntrace.export import FORMATS

    return _beginning(FORMATS, incomplete)


def study_formats(incomplete: str) -> list[str]:
    """Formats of studies."""
    from kntrace.study.importing import FORMATS

    return _beginning(FORMATS, incomplete)


def studies(incomplete: str) -> list[str]:
    """Names of bundled studies, once something of one is typed: else files are meant."""
    from kntrace.study import bundled_studies

    return _beginning(bundled_studies(), incomplete) if incomplete else []


def suites(incomplete: str) -> list[str]:
    """Repositories of known suites, once something of one is typed: else folders are meant."""
    from kntrace.suite import known_suites

    ids = (id_ for suite in known_suites() for id_ in suite.ids)
    return _beginning(ids, incomplete) if incomplete else []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
