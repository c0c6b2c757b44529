"""One model, one prompt: attribution without a study, a suite or a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kntrace.attribution.engine import Engine
from kntrace.attribution.result import Attribution
from kntrace.models.tokens import AnswerForm
from kntrace.settings import Settings

__all__ = ["attribute"]


def attribute(
    model: Any,
    tokenizer: Any,
    prompt: str,
    answer: str,
    rule: str = "adaptive",
    nodes: int = 8,
    site: str = "post_activation",
    tolerance: float = 1e-3,
    objective: str = "probability",
    answer_tokens: str = "error",
    answer_form: AnswerForm | str = "as_follows",
    baseline: Any = None,
    alternatives: Sequence[str] = (),
) -> Attribution:
    """Score every feed-forward neuron of `model` for one prompt and its answer.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face language model, in any state; it is left exactly as it was. Decoders and
        masked models are read; encoder-decoders and mixtures of experts refused.
    prompt
        What the model reads. The neurons are those at its last token; of a masked model, those
        at the mask, of which the prompt has exactly one.
    answer
        What it should produce next, as it follows the prompt in running text (a missing space
        between the two is supplied), or at the mask.
    rule, nodes
        `adaptive` takes as many nodes as each layer needs; the fixed rules
        (`kntrace.attribution.rules.RULES`) take `nodes`.
    site
        Which tensor is "the neuron" (`kntrace.models.feedforward.SITES`).
    tolerance
        Relative error of a layer's scores at which `adaptive` stops, and above which a layer
        counts as not converged.
    objective, answer_tokens
        What is attributed, and what to do with an answer of several tokens; see
        `kntrace.Settings`.
    answer_form
        `as_follows`, `space` or `no_space`; see `kntrace.models.tokens.encode`.
    baseline
        Where the paths start, (layer, neuron), such as the `activation` of another prompt or
        a mean of many; zero unless given.
    alternatives
        Other answers, against which the objective `logit_difference` holds this one.

    Returns
    -------
    Attribution
        `.score` (layer, neuron), `.gap` (layer,), `.probability`, `.rank`,
        `.activation` (layer, neuron), `.nodes` and `.converged` (layer,).

    Raises
    ------
    ModelError, SettingsError
        With one line that says what does not fit.
    """
    settings = Settings.of(
        rule=rule,
        nodes=nodes,
        site=site,
        tolerance=tolerance,
        objective=objective,
        answer_tokens=answer_tokens,
    )
    with Engine(model, tokenizer, settings, baseline=baseline) as engine:
        encoded = engine.encode(prompt, answer, answer_form, alternatives)
        return engine.attribute_many([encoded])[0]
