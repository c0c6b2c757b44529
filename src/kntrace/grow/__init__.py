"""Worlds of invented facts, and tiny models pretrained on them."""

from kntrace.grow.growing import grow
from kntrace.grow.recipe import Recipe, schedule
from kntrace.grow.worlds import WORLDS, Plan, World, make_world

__all__ = ["WORLDS", "Plan", "Recipe", "World", "grow", "make_world", "schedule"]
