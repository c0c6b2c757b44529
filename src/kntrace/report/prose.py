"""What the report says in sentences."""

from __future__ import annotations

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.report.tables import p_value, per_cent, share
from kntrace.verdict import Verdict

__all__ = [
    "HEADLINES",
    "QUESTION",
    "REFERENCES",
    "facts",
    "meaning",
    "methods",
    "sentence",
    "subject",
    "tied",
]

QUESTION = (
    "Do words of one group form alike in this model, beyond being learnt at about the same time?"
)

HEADLINES = {
    "yes": "Yes: words of one group form alike.",
    "no": "No: words of one group form no more alike than others.",
    "cannot tell": "It cannot be told whether words of one group form alike.",
}

_MEANINGS = {
    "yes": (
        "“Yes” says that the words of a group draw on more of the same neurons than learning "
        "time explains. It does not say why: what they mean, and how their questions are "
        "worded, look the same from here."
    ),
    "no": (
        "“No” says that an excess worth speaking of is unlikely. It is no proof that the groups "
        "have nothing in common."
    ),
    "cannot tell": (
        "That is an answer about these data, not about the model: more words, or groups that "
        "are learnt at more alike times, could still decide it."
    ),
}

REFERENCES = (
    "Ariyama, Heinzerling, Kokuta, Inui: Knowledge neurons of similar words go through similar "
    "formation processes. NLP2025, A8-1 (in Japanese).",
    "Dai, Dong, Hao, Sui, Chang, Wei: Knowledge neurons in pretrained transformers. ACL 2022.",
    "Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML 2017.",
    "Rubner, Tomasi, Guibas: A metric for distributions with applications to image databases. "
    "ICCV 1998.",
    "Phipson, Smyth: Permutation p-values should never be zero. Statistical Applications in "
    "Genetics and Molecular Biology 9, 2010.",
)


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def tied(text: str) -> str:
    """Keep numbers on one line with what they belong to."""
    for loose in (" = ", " %", " ± ", " × "):
        text = text.replace(loose, loose.replace(" ", "\N{NO-BREAK SPACE}"))
    return text


def subject(run: Run, analysis: Analysis) -> str:
    """What was studied, in a line."""
    return (
        f"{len(run.study.words)} words in {len(analysis.groups)} groups · "
        f"{_series(run)} · {run.layers} layers × {run.width:,} neurons"
    )


def facts(verdict: Verdict) -> tuple[tuple[str, str, str], ...]:
    """The numbers that the verdict rests on: name, value, and what to hold it against."""
    return (
        (
            "adjusted AUC",
            share(verdict.adjusted_auc, 2),
            f"90 % interval {share(verdict.low, 2)} to {share(verdict.high, 2)}; 0.5 is nothing",
        ),
        ("p", p_value(verdict.p), "“yes” needs .025 or less, in every wording"),
        ("leverage", share(verdict.leverage, 2), "1 is best; below .25 nothing can be told"),
        (
            "learning time explained",
            per_cent(verdict.time_share, 0),
            "by groups; all of it would leave nothing to compare",
        ),
    )


def meaning(verdict: Verdict) -> str:
    """What the answer means and what it does not."""
    return _MEANINGS[verdict.answer]


def methods(run: Run, analysis: Analysis) -> tuple[str, ...]:
    """Paragraphs that say what was computed, to be pasted into a paper."""
    settings, study = run.settings, run.study
    prompts = sum(text is not None for word in study.words for text in study.rendered(word))
    nodes = (
        f"adaptive quadrature to a relative error of {settings.tolerance:g}"
        if settings.rule == "adaptive"
        else f"the rule {settings.rule} with {settings.nodes} nodes"
    )
    return (
        f"We scored every feed-forward neuron (site {settings.site}; {run.layers} layers of "
        f"{run.width:,}) of {_series(run)} of {run.suite.name} for {len(study.words)} words in "
        f"{len(study.groups)} groups with {prompts} prompts. The score of a neuron is the "
        "integrated gradient, along the straight line from zero to the activation, of the "
        "probability of the answer's token at the last position, the activations of one layer "
        f"being scaled together, by {nodes} in {settings.dtype} arithmetic. "
        f"{_chosen(analysis)}; their formation process is their mean score at every checkpoint.",
        "Formation processes were compared by exact earth mover's distance with uniform weights"
        f"{_proved(analysis)}; "
        "neuron identity by one minus the cosine of the words' shares of attribution less the "
        "mean word's, averaged over checkpoints. Same-group and other-group pairs were compared "
        "by the area under the curve and by the shares of Ariyama et al.'s table 2, with "
        f"one-sided p-values from {analysis.permutations:,} permutations of the labels (seed "
        f"{analysis.seed}). The verdict compares neuron identity after regressing its ranks on "
        "what learning time says of a pair, and permutes labels only within blocks of about "
        "four words of like learning time.",
    )


def _proved(analysis: Analysis) -> str:
    """How many of the optima were proved."""
    proved = [matrix.attrs for matrix in analysis.distances.values() if "proved" in matrix.attrs]
    if not proved:
        return ""
    pairs, count = (sum(attrs[name] for attrs in proved) for name in ("pairs", "proved"))
    gap = max(attrs["largest_gap"] for attrs in proved)
    said = f"{count:,} of {pairs:,} optima proved by duality, largest relative gap {gap:.0e}"
    return f" ({said})"


def _chosen(analysis: Analysis) -> str:
    kind, *parts = analysis.selection.split(":")
    where = f"({analysis.wording} wording) at the last checkpoint"
    if kind != "threshold":
        return (
            f"A word's {analysis.k:,} knowledge neurons are those with the largest mean score "
            f"over its prompts {where}"
        )
    floor = f", of those in which P(answer) was {parts[2]} or more," if len(parts) > 2 else ""
    return (
        f"A word's knowledge neurons are those with a score of at least {parts[0]} times the "
        f"prompt's largest in at least {parts[1]} of its prompts{floor} {where}, {analysis.k:,} "
        "at most"
    )


def _series(run: Run) -> str:
    steps = [checkpoint.step for checkpoint in run.suite if checkpoint.step is not None]
    many = "checkpoint" if len(run.suite) == 1 else "checkpoints"
    known = len(steps) > 1 and len(run.suite.stages) == 1
    span = f" (steps {min(steps):,} to {max(steps):,})" if known else ""
    return f"{len(run.suite)} {many}{span}"
