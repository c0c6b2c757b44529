"""Exact integrated gradients of every feed-forward neuron."""

from kntrace.attribution.engine import Engine, attribute
from kntrace.attribution.result import Attribution

__all__ = ["Attribution", "Engine", "attribute"]
