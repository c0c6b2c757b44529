"""Figures for papers, drawn from an analysis.

Each is a small frozen object in a file of its own: `prepare(analysis)` makes the table of all
numbers that are shown, `draw(table)` makes a matplotlib figure of it, and `describe(table)`
says in words what is to be seen. To add one, write the object and enter it in `FIGURES`; the
tests of what every figure must do, and the report, pick it up from there.
"""

from __future__ import annotations

from kntrace.figures.audit import AuditStrip
from kntrace.figures.base import Drawing
from kntrace.figures.clusters import ClusterMap
from kntrace.figures.contrast_map import ContrastMap
from kntrace.figures.distances import DistanceMap
from kntrace.figures.dose import DoseCurves
from kntrace.figures.drawn import (
    draw_ablation,
    draw_all,
    draw_comparison,
    draw_one,
    figures_folder,
    find_figures,
    known_formats,
)
from kntrace.figures.embedding import Embedding
from kntrace.figures.files import FORMATS, render
from kntrace.figures.forest import Forest
from kntrace.figures.formation import Formation
from kntrace.figures.formation_layers import FormationByLayer
from kntrace.figures.layers import LayerMap
from kntrace.figures.neuron_overlap import NeuronOverlap
from kntrace.figures.probability import ProbabilityCurves
from kntrace.figures.probability_prompts import PromptBands
from kntrace.figures.registry import COMPARISON, DOSE, FIGURES
from kntrace.figures.runs import SeveralRuns
from kntrace.figures.sizes import SIZES, Size, find_size, sized

__all__ = [
    "COMPARISON",
    "DOSE",
    "FIGURES",
    "FORMATS",
    "SIZES",
    "AuditStrip",
    "ClusterMap",
    "ContrastMap",
    "DistanceMap",
    "DoseCurves",
    "Drawing",
    "Embedding",
    "Forest",
    "Formation",
    "FormationByLayer",
    "LayerMap",
    "NeuronOverlap",
    "ProbabilityCurves",
    "PromptBands",
    "SeveralRuns",
    "Size",
    "draw_ablation",
    "draw_all",
    "draw_comparison",
    "draw_one",
    "figures_folder",
    "find_figures",
    "find_size",
    "known_formats",
    "render",
    "sized",
]
