# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # The paper's study, from a suite to a verdict
#
# Do words of one group (animals, colours, countries, languages) form alike while a language
# model is pretrained? Here the question is put to the small model that `kntrace demo` pretrains
# (2 to 5 minutes, no network). The comments say what to write for the paper's own model.

# %%
import kntrace
from kntrace.analysis import analyse
from kntrace.figures import FIGURES

# %% [markdown]
# ## What is asked, and of what
#
# For the paper: `kntrace.load_study("similar-words")`, and
# `kntrace.load_suite("EleutherAI/pythia-410m-deduped", steps="paper")`.

# %%
study = kntrace.load_study("demo/suite/study.yaml")
study

# %%
suite = kntrace.load_suite("demo/suite")
suite

# %% [markdown]
# ## Scores
#
# Every neuron of every checkpoint for every prompt, by integrated gradients. Stopped at any
# moment, the same call goes on where it was; here the demonstration has done most of it.

# %%
run = kntrace.run(study, suite, "demo/run")
run

# %%
# Does the model know these words at all, and from when on?
run.scores["probability"].mean(["word", "prompt"]).to_series()

# %% [markdown]
# ## Knowledge neurons, formation processes, distances, tests

# %%
analysis = analyse(run)
analysis

# %% [markdown]
# The paper's distance, and beside it the baseline that knows only *when* each word was learnt. A
# distance that tells groups apart no better than this baseline shows nothing about meaning.

# %%
analysis.contrasts["emd"]

# %%
analysis.contrasts["probability_curve"]

# %% [markdown]
# ## The verdict

# %%
analysis.verdict

# %%
print(analysis)  # all of it, with the rule's thresholds, measured error rates and limits

# %% [markdown]
# ## Figures
#
# `kntrace.figures.draw_all(analysis, folder)` writes all of them, and
# `kntrace.report.write_report(run, analysis)` a page to hand on.

# %%
forest = FIGURES["forest"]
forest.draw(forest.prepare(analysis))

# %%
distances = FIGURES["distances"]
distances.draw(distances.prepare(analysis))
