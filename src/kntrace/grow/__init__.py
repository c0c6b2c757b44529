"""Worlds of invented facts, texts of one's own, and small models pretrained on them."""

from kntrace.grow.growing import grow
from kntrace.grow.recipe import Recipe, TextRecipe, schedule
from kntrace.grow.text_growing import grow_text
from kntrace.grow.worlds import WORLDS, Plan, World, make_world

__all__ = [
    "WORLDS",
    "Plan",
    "Recipe",
    "TextRecipe",
    "World",
    "grow",
    "grow_text",
    "make_world",
    "schedule",
]
