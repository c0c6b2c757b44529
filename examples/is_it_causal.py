# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Is my model's knowledge of these words in these neurons?
#
# Attribution scores say what each neuron contributes to an answer; whether the answer hangs on
# these neurons is another question, and is answered by changing them. Runs on what `kntrace demo`
# left; put a run of yours in its place.

# %%
import kntrace
from kntrace.figures import DOSE

# %%
run = kntrace.open_run("demo/run")
run

# %% [markdown]
# ## Change them, and something to compare with
#
# While a word is asked for, its strongest neurons are set to zero, or doubled, together. Then, in
# their stead, those of other words of its group, of words of other groups, random ones matched by
# layer and activation, and plain random ones. Without these a loss means little: to silence *any*
# active neurons does harm.

# %%
found = kntrace.ablate(
    run, doses=[1, 5, 10], methods=["zero", "x2"], partners=2, draws=2, singles=10, anew=True
)
found

# %% [markdown]
# ## The answer, and what it rests on

# %%
print(found.verdict)
print(found.text)

# %%
# Own neurons minus the others, paired over words, with 95 % intervals: where an interval holds
# zero, own neurons are not shown to matter more.
at_main = found.at(found.contrasts, **found.main)
at_main[["of", "against", "log_odds", "log_odds_low", "log_odds_high"]]

# %%
# One at a time: do scores foretell what silencing a single neuron costs?
found.correlations[["kind", "words", "probability", "log_odds"]]

# %%
DOSE.draw(DOSE.prepare(found))
