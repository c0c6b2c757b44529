"""How early in training a word's knowledge neurons can be told, and when they form.

Both hang on the answer's probability: a layer's scores add up to what the layer does to
P(answer), so that neurons can hardly form long before the word is known. So every number here
stands beside P(answer), or beside the neurons of other words.
"""

from kntrace.emergence.early import EARLY_COLUMNS, Early, early_neurons
from kntrace.emergence.times import FormationTimes, formation_times, half_rise

__all__ = [
    "EARLY_COLUMNS",
    "Early",
    "FormationTimes",
    "early_neurons",
    "formation_times",
    "half_rise",
]
