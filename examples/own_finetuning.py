# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Your own fine-tuning: which neurons come to hold a new fact?
#
# A model of yours, a training loop of yours, a folder of checkpoints. The "pretrained" model is
# the last checkpoint of `kntrace demo`, so that this runs anywhere; put yours in its place.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import kntrace
from kntrace.selection import default_k
from kntrace.study import Study

# %%
start = kntrace.load_suite("demo/suite").checkpoints[-1].source
model = AutoModelForCausalLM.from_pretrained(start)
tokenizer = AutoTokenizer.from_pretrained(start)

# %% [markdown]
# ## What it should learn, and how it is asked
#
# Four of the study's words, by all their questions; any words of one token each would do.

# %%
study = kntrace.load_study("demo/suite/study.yaml")
few = [word for words in list(study.groups.values())[:2] for word in words[:2]]
small = Study(
    name="fine-tuned",
    template=study.template,
    answer_form=study.answer_form,
    words=[word for word in study.words if word.text in few],
)
facts = [(text, word.answer) for word in small.words for text in small.rendered(word) if text]
facts[:2]

# %% [markdown]
# ## A model in memory
#
# At any moment of the loop, a prompt is scored without a file. Nothing of the model is changed:
# hooks, attention, training mode and gradients are as before.

# %%
kntrace.attribute(model.train(), tokenizer, *facts[0])

# %% [markdown]
# ## The loop
#
# `finetuning/step0` is the model as it was: what fine-tuning changed can only be seen against it.


# %%
def loss_of(prompt, answer):
    """Of the answer's first token, after the prompt."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    target = tokenizer(prompt + " " + answer, return_tensors="pt")["input_ids"][0, ids.shape[1]]
    return torch.nn.functional.cross_entropy(model(ids).logits[:, -1], target[None])


def save(step):
    """A Hugging Face folder, as the Trainer leaves them too."""
    model.save_pretrained(f"finetuning/step{step}")
    tokenizer.save_pretrained(f"finetuning/step{step}")


optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
save(0)
for step in range(1, 17):
    optimizer.zero_grad()
    torch.stack([loss_of(*fact) for fact in facts]).mean().backward()
    optimizer.step()
    if step in (4, 8, 16):
        save(step)

# %% [markdown]
# ## The folder of checkpoints is a suite

# %%
suite = kntrace.load_suite("finetuning")
run = kntrace.run(small, suite, "finetuning-run")
run

# %%
known = run.scores["probability"].mean("prompt")
known.to_pandas().T  # P(answer), word by word

# %% [markdown]
# ## Which neurons, and since when?
#
# A word's knowledge neurons are chosen at the end of fine-tuning. The share of them that were
# among its strongest before says how much fine-tuning used what was there.

# %%
k = default_k(run.scores)
after = kntrace.knowledge_neurons(run.scores, k)
before = kntrace.knowledge_neurons(run.scores, k, checkpoint=0)


def places(chosen, word):
    """A word's neurons, as a set."""
    one = chosen.sel(word=word)
    return set(zip(one["layer"].values.tolist(), one["neuron"].values.tolist(), strict=True))


kept = {
    word.text: len(places(after, word.text) & places(before, word.text)) / k for word in small.words
}
kept

# %%
kntrace.formation_processes(run.scores, after).mean("rank").to_pandas()
