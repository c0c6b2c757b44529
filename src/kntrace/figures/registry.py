"""Every figure by name."""

from __future__ import annotations

from kntrace.figures.audit import AuditStrip
from kntrace.figures.base import Drawing
from kntrace.figures.clusters import ClusterMap
from kntrace.figures.contrast_map import ContrastMap
from kntrace.figures.distances import DistanceMap
from kntrace.figures.dose import DoseCurves
from kntrace.figures.embedding import Embedding
from kntrace.figures.forest import Forest
from kntrace.figures.formation import Formation
from kntrace.figures.formation_layers import FormationByLayer
from kntrace.figures.layers import LayerMap
from kntrace.figures.neuron_overlap import NeuronOverlap
from kntrace.figures.probability import ProbabilityCurves
from kntrace.figures.probability_prompts import PromptBands
from kntrace.figures.runs import SeveralRuns

__all__ = ["COMPARISON", "DOSE", "FIGURES"]

_BY_NEURON = (
    "The same by the distance that keeps which neuron is which, on which the verdict rests: 1 − "
    "cosine of the words' shares of attribution, less the mean word's, averaged over "
    "checkpoints. How well a word is known does not enter. About 1 is unrelated; dark squares "
    "along the diagonal are groups whose words use the same neurons."
)

# In the order in which a reader should look at them: the whole, the confound, the details.
_KNOWN: tuple[Drawing, ...] = (
    Forest(),
    ProbabilityCurves(),
    PromptBands(),
    DistanceMap(),
    DistanceMap(
        name="distances_identity",
        title="Distances between words by neuron identity",
        how_to_read=_BY_NEURON,
        distance="identity",
        log=False,
    ),
    ClusterMap(),
    Embedding(),
    ContrastMap(),
    ContrastMap(
        name="contrast_map_identity",
        title="Other-group words against a word's own group, by neuron identity",
        distance="identity",
    ),
    NeuronOverlap(),
    LayerMap(),
    Formation(),
    FormationByLayer(),
    AuditStrip(),
)
FIGURES: dict[str, Drawing] = {drawing.name: drawing for drawing in _KNOWN}

DOSE = DoseCurves()
"""The figure of an ablation, which is no part of an analysis."""

COMPARISON = SeveralRuns()
"""The figure of several runs."""
