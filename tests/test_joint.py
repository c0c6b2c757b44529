"""Joint changes of neurons against plain hooks, one row at a time, that share no code with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from families import make
from kntrace.attribution import Engine
from kntrace.attribution.joint import Intervention
from kntrace.errors import SettingsError
from kntrace.models.feedforward import find_stack
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

IDS, ANSWER = (5, 90, 3, 17, 2, 33), (61, 7, 12)
SETS = ((4, 9), (), (2,))
# plain and gated, one that upcasts, one for each way of replaying
SOME = ("gpt_neox_parallel", "gpt_neox_sequential", "llama", "phi3", "gemma2", "opt_post", "bloom")


def downs(model):
    """The maps that the neurons enter; the only thing taken from kntrace."""
    return [block.down for block in find_stack(model)]


def by_hand(model, ids, answer, changes, *, everywhere=False):
    """P, log-odds and rank with hooks, (layer, neuron) -> (factor, offset), in double precision."""
    ids = torch.tensor([[*ids, *answer[:-1]]])
    position = ids.shape[1] - len(answer)
    hooks = []
    for layer, down in enumerate(downs(model)):

        def put(_, args, layer=layer):
            whole = args[0].reshape(1, ids.shape[1], -1).clone()
            for (where, neuron), (factor, offset) in changes.items():
                if where == layer:
                    for token in range(ids.shape[1]) if everywhere else [position]:
                        whole[0, token, neuron] = factor * whole[0, token, neuron] + offset
            return (whole.reshape(args[0].shape), *args[1:])

        hooks.append(down.register_forward_pre_hook(put))
    try:
        with torch.no_grad():
            logits = model(ids).logits[0, position:].double()
    finally:
        for hook in hooks:
            hook.remove()
    each = logits.softmax(-1)
    p = float(np.prod([each[place, token] for place, token in enumerate(answer)]))
    rank = int((logits[0] > logits[0, answer[0]]).sum())
    return p, np.log(p) - np.log1p(-p), rank, [float(each[0, list(some)].sum()) for some in SETS]


def drawn(seed, count=9, layers=3, width=56):
    """Sets of neurons in one layer and in several, scaled, silenced, and set to numbers."""
    rng = np.random.default_rng(seed)
    rows = [{}]
    for place in range(count):
        where = range(layers) if place % 3 else [place // 3 % layers]
        pairs = [(int(rng.choice(list(where))), int(neuron)) for neuron in rng.permutation(width)]
        pairs = pairs[: [1, 4, 30][place % 3]]
        factor = [0.0, 2.0, 0.5][place // 3]
        rows.append({pair: (factor, float(rng.normal()) * (place % 2)) for pair in pairs})
    return rows


def as_interventions(rows):
    made = []
    for row in rows:
        layer, neuron = np.array([*row], dtype=np.int64).reshape(-1, 2).T
        factor = next(iter(row.values()))[0] if row else 1.0
        offset = np.array([offset for _, offset in row.values()], dtype=np.float64)
        made.append(Intervention(layer, neuron, factor, offset))
    return made


def check(found, expected, rtol=1e-9):
    p, odds, rank, sets = zip(*expected, strict=True)
    np.testing.assert_allclose(found.probability, p, rtol=rtol)
    np.testing.assert_allclose(found.log_odds, odds, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_allclose(found.elsewhere, sets, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", SOME)
def test_rows_are_those_of_plain_hooks(name, everywhere):
    model = make(name, torch.float64).eval()
    width = downs(model)[0].weight.shape[1]
    rows = drawn(1, width=width)
    expected = [by_hand(model, IDS, ANSWER[:1], row, everywhere=everywhere) for row in rows]
    with Engine(model, None) as engine:
        found = engine.intervene(
            Encoded(IDS, ANSWER[:1]), as_interventions(rows), elsewhere=SETS, everywhere=everywhere
        )
    check(found, expected)
    # Every row does something of its own, but for a neuron that is silent anyway.
    assert len(np.unique(found.log_odds.round(9))) >= len(rows) - 1


@pytest.mark.parametrize("name", ["llama", "bloom"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_answers_of_several_tokens(name, everywhere):
    """`joint`: the whole answer; `mean`: each token at its own last position."""
    model = make(name, torch.float64).eval()
    width = downs(model)[0].weight.shape[1]
    rows = drawn(2, width=width)
    whole = [by_hand(model, IDS, ANSWER, row, everywhere=everywhere) for row in rows]
    parts = [
        [by_hand(model, IDS + ANSWER[:i], ANSWER[i : i + 1], row, everywhere=everywhere)
         for i in range(3)]
        for row in rows
    ]  # fmt: skip
    how = {"elsewhere": SETS, "everywhere": everywhere}
    with Engine(model, None, Settings(answer_tokens="joint")) as engine:
        check(engine.intervene(Encoded(IDS, ANSWER), as_interventions(rows), **how), whole)
    with Engine(model, None, Settings(answer_tokens="mean")) as engine:
        found = engine.intervene(Encoded(IDS, ANSWER), as_interventions(rows), **how)
    p = np.array([np.mean([part[0] for part in row]) for row in parts])
    np.testing.assert_allclose(found.probability, p, rtol=1e-9)
    np.testing.assert_allclose(found.log_odds, np.log(p) - np.log1p(-p), rtol=1e-9)
    np.testing.assert_array_equal(found.rank, [row[0][2] for row in parts])


@pytest.mark.parametrize("site", ["pre_activation", "gate_activation", "up_projection"])
def test_other_sites_change_what_they_name(site):
    """Of a SiLU-gated layer, silencing any of the three silences the product."""
    model = make("llama", torch.float64)
    rows = [row for row in drawn(3) if all(change == (0.0, 0.0) for change in row.values())][1:]
    with Engine(model, None) as engine:
        product = engine.intervene(Encoded(IDS, (61,)), as_interventions(rows))
    with Engine(model, None, Settings(site=site)) as engine:
        found = engine.intervene(Encoded(IDS, (61,)), as_interventions(rows))
    np.testing.assert_allclose(found.log_odds, product.log_odds, rtol=1e-9)


def test_the_memory_changes_no_number_and_the_order_is_kept():
    model = make("gpt_neox_parallel", torch.float64)
    rows = as_interventions(drawn(4))
    with Engine(model, None) as engine:
        found = engine.intervene(Encoded(IDS, (61,)), rows)
        back = engine.intervene(Encoded(IDS, (61,)), rows[::-1])
    with Engine(model, None, memory=1) as engine:
        slowly = engine.intervene(Encoded(IDS, (61,)), rows)
    for other in (slowly.log_odds, back.log_odds[::-1]):
        np.testing.assert_allclose(found.log_odds, other, rtol=1e-10)


def test_one_is_nothing_and_singles_are_the_ablation():
    model = make("llama", torch.float64)
    pairs = [(2, 5), (0, 1), (1, 55)]
    ones = [Intervention(np.array([layer]), np.array([i])) for layer, i in pairs]
    every = np.divmod(np.arange(3 * 56), 56)
    with Engine(model, None) as engine:
        plain = Intervention(*np.zeros((2, 0), dtype=np.int64))
        found = engine.intervene(Encoded(IDS, (61,)), [plain, Intervention(*every, 1.0), *ones])
        lost = engine.ablate(Encoded(IDS, (61,)), pairs)
        whole = engine.attribute_many([Encoded(IDS, (61,))])[0]
    assert found.log_odds[0] == found.log_odds[1]
    assert found.probability[0] == pytest.approx(whole.probability, rel=1e-12)
    assert found.rank[0] == whole.rank
    np.testing.assert_allclose(found.probability[0] - found.probability[2:], lost, rtol=1e-9)


def test_log_odds_keep_their_digits_where_probabilities_have_none():
    model = make("gpt_neox_parallel", torch.float64)
    head = model.get_output_embeddings()
    head.weight.data[61] *= 40
    with torch.no_grad():
        sign = model(torch.tensor([IDS])).logits[0, -1, 61].sign()
    head.weight.data[61] *= sign
    silent = Intervention(np.array([2]), np.array([3]))
    with Engine(model, None) as engine:
        found = engine.intervene(Encoded(IDS, (61,)), [silent])
    assert found.probability[0] == 1.0
    assert np.isfinite(found.log_odds[0])
    assert found.log_odds[0] > 40


def test_the_model_is_left_as_it_was_also_after_a_failure(monkeypatch):
    model = make("llama")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    hooks = sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in model.modules())
    rows = as_interventions(drawn(5))

    def fail(*_):
        raise RuntimeError("on purpose")

    with Engine(model, None) as engine:
        engine.intervene(Encoded(IDS, (61,)), rows)
        last = downs(model)[-1].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            engine.intervene(Encoded(IDS, (61,)), rows)
        last.remove()
    assert hooks == sum(
        len(part._forward_pre_hooks) + len(part._forward_hooks) for part in model.modules()
    )
    assert not any("forward" in vars(part) for part in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("pair", [(3, 0), (0, 56), (-1, 2)])
def test_a_neuron_that_is_not_there_is_named(pair):
    row = Intervention(np.array([0, pair[0]]), np.array([0, pair[1]]))
    named = pytest.raises(SettingsError, match=f"neuron {pair[1]} of layer {pair[0]}")
    with Engine(make("gpt_neox_parallel"), None) as engine, named:
        engine.intervene(Encoded(IDS, (61,)), [row])
