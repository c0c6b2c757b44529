"""What the report says in sentences."""

from __future__ import annotations

import math

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.emergence import FormationTimes
from kntrace.report.tables import p_value, per_cent, share
from kntrace.verdict import Verdict, VerdictRule

__all__ = [
    "HEADLINES",
    "QUESTION",
    "facts",
    "meaning",
    "methods",
    "noise",
    "sentence",
    "subject",
    "tied",
    "times",
]

_SIGNIFICANT = 0.05

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


def facts(verdict: Verdict, rule: VerdictRule) -> tuple[tuple[str, str, str], ...]:
    """The numbers that the verdict rests on: name, value, and what to hold it against."""
    return (
        (
            "adjusted AUC",
            share(verdict.adjusted_auc, 2),
            f"90 % interval {share(verdict.low, 2)} to {share(verdict.high, 2)}; 0.5 is nothing, "
            f"“no” needs an upper end below {0.5 + rule.delta:g}",
        ),
        ("p", p_value(verdict.p), f"“yes” needs {rule.alpha:g} or less, in every wording"),
        (
            "leverage",
            share(verdict.leverage, 2),
            f"1 is best; below {rule.min_leverage:g} nothing can be told",
        ),
        (
            "learning time explained",
            per_cent(verdict.time_share, 0),
            "by groups; all of it would leave nothing to compare",
        ),
    )


def times(found: FormationTimes) -> str:
    """When neurons form beside when the word is learnt."""
    if math.isnan(found.lead):
        return "No word rises over these checkpoints, so that none of its neurons has a half-rise."
    side = "before" if found.lead >= 0 else "after"
    text = (
        "A neuron's half-rise is where its score comes to stay above half of its last value. The "
        f"median neuron of a word is there {abs(found.lead):.2f} checkpoints {side} P(answer) in "
        f"the median over words (Wilcoxon's signed-rank test, p = {p_value(found.lead_p)}). "
    )
    if not math.isnan(found.order):
        text += (
            "Words whose answer comes early have early neurons: Spearman's correlation is "
            f"{share(found.order, 2)} (p = {p_value(found.order_p)}). "
            if found.order_p <= _SIGNIFICANT
            else "The order in which words are learnt and that in which their neurons form do not "
            f"agree beyond chance: {share(found.order, 2)} (p = {p_value(found.order_p)}). "
        )
    return text + (
        "A layer's scores add up to what it does to P(answer), so agreement is what to expect; a "
        "lead, or disagreement, is what could surprise."
    )


def noise(analysis: Analysis) -> str:
    """Where the noise of the judged distance comes from, and what it allows at best."""
    parts = []
    for row in analysis.reliability.to_dict("records"):
        if row["distance"] != "identity":
            continue
        parts.append(
            f"From one half of the prompts to the other, neuron identity repeats with Spearman "
            f"{share(row['halves'], 2)}; for all prompts that is a reliability of "
            f"{share(row['reliability'], 2)} (Spearman-Brown), and a noise ceiling of "
            f"{share(row['ceiling'], 2)} for its correlation with anything."
        )
    found = analysis.prompt_noise
    if not math.isnan(found.share):
        parts.append(
            f"Drawing every word's prompts anew moves its AUC by {share(found.prompt_sd)}, which "
            f"is {per_cent(found.share, 0)} of the variance that the jackknife over words gives. "
            "That is the prompts' own share of the noise and no interval: other words, and "
            "another training, move it more."
        )
    return " ".join(parts)


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
        "integrated gradient (Sundararajan et al., 2017), along the straight line from zero to "
        "the activation, of the probability of the answer's token at the last position, the "
        f"activations of one layer being scaled together, by {nodes} in {settings.dtype} "
        "arithmetic. "
        f"{_chosen(analysis)} (Dai et al., 2022); their formation process is their mean "
        "score at every checkpoint (Ariyama et al., 2025).",
        "Formation processes were compared by exact earth mover's distance (Rubner et al., 1998) "
        "with uniform weights"
        f"{_proved(analysis)}; "
        "neuron identity by one minus the cosine of the words' shares of attribution less the "
        "mean word's, averaged over checkpoints. Same-group and other-group pairs were compared "
        "by the area under the curve and by the shares of Ariyama et al.'s (2025) table 2, with "
        f"one-sided p-values from {analysis.permutations:,} permutations of the labels (seed "
        f"{analysis.seed}; Phipson and Smyth, 2010), which are adjusted over groups (Holm, 1979), "
        "and standard errors "
        "from a jackknife over words. The verdict compares neuron identity after regressing its "
        "ranks on what learning time says of a pair, and permutes labels only within blocks of "
        "about four words of like learning time.",
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
