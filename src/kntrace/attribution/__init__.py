"""Exact integrated gradients of every feed-forward neuron."""

from kntrace.attribution.engine import Engine
from kntrace.attribution.one_prompt import attribute
from kntrace.attribution.result import Attribution

__all__ = ["Attribution", "Engine", "attribute"]
