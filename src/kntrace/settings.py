"""Settings: what is computed, frozen and saved with the run.

Where and how it is computed (paths, device, threads) is not here: that must not change a
number, and so it lives in flags.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from kntrace.documents import parse_document, shown, write_yaml
from kntrace.errors import SettingsError
from kntrace.nearest import nearest

__all__ = ["Settings"]


class Settings(BaseModel):
    """How the neurons are scored.

    Attributes
    ----------
    rule
        The integration rule: a name in `kntrace.attribution.rules.RULES`, or `adaptive`, which
        takes as many nodes as each layer of each prompt needs.
    nodes
        Points at which the rule evaluates the gradient, per layer and prompt; `adaptive`
        chooses them itself.
    tolerance
        Relative error of a layer's scores at which `adaptive` stops, and above which a layer
        counts as not converged.
    site
        Which tensor is "the neuron"; `post_activation` is what enters the second linear
        layer, `pre_activation` what leaves the first.
    objective
        What is attributed: `probability` of the answer (the paper's), `log_probability`, or
        `logit_difference` (of the answer, minus the mean of its alternatives').
    baseline
        Where the paths start: `zero` (the paper's), `mean` (of each checkpoint's activations
        over the study's prompts), or `sha256:...`, which stands for a vector given with the run.
    answer_tokens
        What to do with an answer of several tokens. `error`: refuse it; `first`: attribute its
        first token; `mean`: attribute each token after those before it, each at its own last
        position, and take the mean; `greedy`: likewise, but each token after what the model
        itself would have written before it (the public code's); `joint`: attribute the whole
        answer at the prompt's last position.
    longest_prompt
        Most tokens that a prompt may have beside what the model allows; None: no limit.
    dtype
        Number format of the weights and of all arithmetic; `tf32` keeps float32 but lets a GPU
        round the factors of its matrix products.
    activations
        Whether the run also keeps what each neuron is at the scored position of every prompt:
        as many numbers again as there are scores.
    keepbits
        Bits of the mantissa that scores and activations are stored with, of float32's 23;
        None: all. What is cut off is rounded, which moves a number by at most 2^-(keepbits + 1)
        of itself and lets the archive be compressed further.
    keep
        What is kept of scores and activations: those of every prompt (`prompts`), or of each
        wording only their mean over a word's prompts (`means`), taken in float64 and kept in
        float32. What one prompt gave is lost then.
    top
        Of a run that `kntrace.compact` made: it has kept of every word only the neurons that
        are among so many strongest at any checkpoint, in any wording. None: all neurons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = "adaptive"
    nodes: int = Field(default=8, ge=1, le=100_000)
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    site: str = "post_activation"
    objective: str = "probability"
    baseline: str = Field(default="zero", pattern=r"^(zero|mean|sha256:[0-9a-f]{64})$")
    answer_tokens: Literal["error", "first", "mean", "greedy", "joint"] = "error"
    longest_prompt: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "float64", "bfloat16", "float16", "tf32"] = "float32"
    activations: bool = True
    keepbits: int | None = Field(default=None, ge=1, le=22)
    keep: Literal["prompts", "means"] = "prompts"
    top: int | None = Field(default=None, ge=1)

    @field_validator("rule", "site", "objective", mode="before")
    @classmethod
    def _underscored(cls, name: Any) -> Any:
        """On a command line hyphens come to hand more easily."""
        return name.replace("-", "_") if isinstance(name, str) else name

    @field_validator("top")
    @classmethod
    def _of_means(cls, top: int | None, info: ValidationInfo) -> int | None:
        if top is not None and info.data.get("keep") != "means":
            raise ValueError("a run that keeps some neurons keeps means over prompts")
        return top

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Build settings, turning a validation failure into one clear `SettingsError`."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            if first["type"] == "extra_forbidden":
                raise SettingsError.unknown("setting", name, cls.model_fields) from None
            given, choices = first["input"], str(first.get("ctx", {}).get("expected", ""))
            known = re.findall(r"'([^']+)'", choices)
            raise SettingsError(
                f"{name} = {shown(given)}: {first['msg']}",
                fix=nearest(given, known) if isinstance(given, str) else None,
            ) from None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the settings' values, whatever order they were written in."""
        values = self.model_dump(mode="json")
        # Runs made before there was a limit had none, kept all bits of the scores of all neurons
        # and every prompt, and kept no activations.
        for name in ("longest_prompt", "keepbits", "top"):
            if values[name] is None:
                del values[name]
        if not values["activations"]:
            del values["activations"]
        if values["keep"] == "prompts":
            del values["keep"]
        canonical = json.dumps(values, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Settings) -> list[str]:
        """Name each setting in which `other` differs, as `name: mine -> theirs`."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]

    def to_yaml(self) -> str:
        """Write the settings as YAML that `from_yaml` reads back to an equal object."""
        return write_yaml(self.model_dump(mode="json"))

    @classmethod
    def from_yaml(cls, text: str) -> Settings:
        """Read settings written by `to_yaml`; raises `SettingsError` on anything else."""
        values = parse_document(text, "settings.yaml", SettingsError).data
        # Settings written before they said so are of runs without activations.
        return cls.of(**{"activations": False, **values})
