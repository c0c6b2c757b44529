"""Suppress and amplify neurons, and see what becomes of the answers."""

from kntrace.causal.work import ablate

__all__ = ["ablate"]
