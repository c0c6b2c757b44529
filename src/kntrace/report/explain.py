"""What the report says of its figures and verdicts in plain words."""

from __future__ import annotations

__all__ = ["EXPLAINED", "HEADLINES"]

HEADLINES = {
    "yes": "Yes: words of one group form alike.",
    "no": "No: words of one group do not form more alike than others.",
    "cannot tell": "It cannot be told whether words of one group form alike.",
}

EXPLAINED = {
    "forest": (
        "One row a distance. The further a mark lies to the right of its bar, the better the "
        "distance tells pairs of one group from pairs of different groups; it is filled where "
        "the permutation p-value is .05 or less. The first row is the baseline: it knows only "
        "when each word was learnt. A distance that does no better may show nothing but that."
    ),
    "distances": (
        "Dark is alike. Squares along the diagonal darker than the rest would mean that groups "
        "form alike. Bright or dark stripes are single words that are far from or near to "
        "everything, which says nothing of groups. The scale leaves out the outermost 1 %."
    ),
    "contrast_map": (
        "Every cell is compared with the mean distance of its row's word to the other words of "
        "its group, outlined. Orange is farther than that, blue nearer. The bars count the "
        "other-group words that are farther; the dashed line is what shuffled labels give, which "
        "is not one half, because distances are skewed."
    ),
    "neuron_overlap": (
        "Which neurons are shared at the last checkpoint. The dashed mark on the scale is what "
        "two random sets would share; most of what lies above it is common to all words."
    ),
    "probability": (
        "When the model came to know the words. If the groups' thick lines rise at different "
        "times, any distance between formation processes will tell the groups apart for that "
        "reason alone."
    ),
    "formation": (
        "How one word's knowledge neurons came to be: left all of the strongest, sorted by when "
        "each had half of its final score; right the strongest six."
    ),
}
