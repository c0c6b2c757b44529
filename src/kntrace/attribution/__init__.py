"""Exact integrated gradients of every feed-forward neuron."""

from kntrace.attribution.engine import Engine
from kntrace.attribution.joint import Answered, Intervention
from kntrace.attribution.one_prompt import attribute
from kntrace.attribution.result import Attribution

__all__ = ["Answered", "Attribution", "Engine", "Intervention", "attribute"]
