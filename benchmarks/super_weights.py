"""Look for super weights in a pretrained model whose one is known.

SmolLM2-135M has one in layer 11, row 507, column 1229 (`make validate-model` fetches it).

    python benchmarks/super_weights.py
"""

from __future__ import annotations

from types import SimpleNamespace

from kntrace.models import load_checkpoint
from kntrace.models.tokens import encode
from kntrace.probes.opened import OpenedCheckpoint
from kntrace.suite import load_suite
from kntrace.views.super_weights import SuperWeights
from pretrained import QUESTIONS, smollm2


def main() -> None:
    """Print every layer's largest coordinate, the nearest one, and losses without it."""
    (checkpoint,) = load_suite(smollm2())
    loaded = load_checkpoint(checkpoint)
    questions = [[encode(loaded.tokenizer, *question)] for question in QUESTIONS]
    opened = OpenedCheckpoint(SimpleNamespace(), loaded, {"main": questions})  # type: ignore[arg-type]
    found = opened.spikes("main")
    found["nearness"] = SuperWeights().nearness(found)
    print(found.round(3).to_string(index=False))
    best = found.loc[[int(found["nearness"].to_numpy().argmax())]].to_dict("records")[0]
    coordinate = (int(best["layer"]), int(best["row"]), int(best["column"]))
    print(f"{int((found['nearness'] >= 1).sum())} meet the criteria; the nearest: {coordinate}")
    for name, loss in opened.losses_without("main", coordinate, 4, 0).items():
        print(f"{name:<14} {loss:.3f}")


if __name__ == "__main__":
    main()
