"""What the paper's public code computes, written out slowly from its definition.

Nothing here is shared with kntrace: a hook on one layer's first linear map, the whole sequence
again for every value, loops over words and prompts, dictionaries of lists. It follows the code
for GPT-NeoX and takes the text of its questions as it is.
"""

from __future__ import annotations

import numpy as np
import ot
import torch

NODES = 20


def scores_of(model, tokenizer, question, word):
    """Score per layer and neuron; the mean over the word's tokens, the model writing between."""
    wanted, text, found = tokenizer.encode(word), question, []
    for token in wanted:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        found.append(
            [_layer(model, ids, token, layer.mlp.dense_h_to_4h) for layer in model.gpt_neox.layers]
        )
        with torch.no_grad():
            text += tokenizer.decode(int(model(ids).logits[0, -1].argmax()))
    return np.mean(np.array(found, dtype=np.float32), axis=0)


def _layer(model, ids, token, linear):
    seen = {}

    def put(_module, _given, output):
        if "value" not in seen:
            seen["activation"] = output[0, -1].detach()
            return None
        return torch.cat([output[:, :-1], seen["value"][:, None]], dim=1)

    with torch.no_grad():
        hook = linear.register_forward_hook(put)
        model(ids)
    shares = torch.linspace(0, 1, NODES)
    seen["value"] = (shares[:, None] * seen["activation"]).requires_grad_()
    likely = model(ids.repeat(NODES, 1)).logits[:, -1].softmax(-1)[:, token]
    (slopes,) = torch.autograd.grad(likely.sum(), seen["value"])
    hook.remove()
    return (slopes.sum(0) * seen["activation"] / NODES).numpy()


def kept_scores(per_prompt):
    """(layer, neuron) -> the scores that count, of neurons that count in half of the prompts."""
    lists = {}
    for scores in per_prompt:
        limit = np.float32(-10 * float(scores.max()))
        for place, score in np.ndenumerate(scores):
            if score > limit:
                lists.setdefault(place, []).append(float(score))
    return {place: some for place, some in lists.items() if len(some) >= 0.5 * len(per_prompt)}


def processes(by_checkpoint):
    """(layer, neuron) -> its means times a million, checkpoint by checkpoint, gaps left out."""
    rows = {}
    for lists in by_checkpoint:
        for place, some in lists.items():
            rows.setdefault(place, []).append(sum(some) / len(some) * 10**6)
    return rows


def largest(rows, k):
    """The k neurons with the largest last value."""
    return sorted(rows, key=lambda place: -rows[place][-1])[:k]


def distance(one, other):
    """POT's earth mover's distance between two lists of processes, as float32."""
    weights = np.full(len(one), 1 / len(one))
    cost = np.array([[sum((np.array(a) - np.array(b)) ** 2) for b in other] for a in one])
    return np.float32(ot.emd2(weights, weights, cost))


def percentages(distances, groups):
    """Group -> share of the cells above the row's own mean; the word itself is such a cell."""
    shares = {}
    for group, members in groups.items():
        above = cells = 0
        for word in members:
            own = np.mean([distances[word, mate] for mate in members if mate != word])
            for other in {first for first, _ in distances}:
                if other == word or other not in members:
                    cells += 1
                    above += other != word and bool(distances[word, other] > own)
        shares[group] = above / cells
    return shares
