"""The whole analysis of a run: from scores to a verdict, kept in the run's folder."""

from kntrace.analysis.compute import DEFAULT_DISTANCES, analyse, analyse_scores, load_analysis
from kntrace.analysis.covariates import COVARIATES
from kntrace.analysis.result import Analysis

__all__ = [
    "COVARIATES",
    "DEFAULT_DISTANCES",
    "Analysis",
    "analyse",
    "analyse_scores",
    "load_analysis",
]
