"""Exact integrated gradients of every feed-forward neuron."""

from kntrace.attribution.engine import Attribution, Engine, attribute

__all__ = ["Attribution", "Engine", "attribute"]
