"""What a rule finds, and all that a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kntrace.notebook import Card, Shown

__all__ = ["Checked", "Finding", "Remark", "Rule", "Severity", "Stage"]

Severity = Literal["error", "warning", "note"]
Stage = Literal["file", "study", "tokens", "model"]


@dataclass(frozen=True)
class Remark:
    """What a rule says: of a word, a group, a prompt, or of the study where none is named.

    Attributes
    ----------
    says
        What was found, as a sentence without its full stop.
    word, group, prompt
        What it was found in; `prompt` is the text that the model reads.
    where
        The place in a file, `file:line`.
    fix
        What the reader should do, as a sentence.
    severity
        Where it is not that of the rule.
    """

    says: str
    word: str | None = None
    group: str | None = None
    prompt: str | None = None
    where: str | None = None
    fix: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True)
class Rule:
    """A rule of the check: one function, which looks at what its stage can see.

    Attributes
    ----------
    code
        Its name in reports, which never changes its meaning: K1.. for the study by itself, K2..
        with a tokenizer, K3.. with a model.
    severity
        `error`: a run refuses or its scores would be wrong. `warning`: the run works and the
        result may mislead. `note`: shown, never counted.
    stage
        What it needs: the `file` as it is written, the `study` read from it, the `tokens` of a
        tokenizer, or a `model`.
    find
        Takes the view of the stage (see `kntrace.lint.views`) and yields its remarks. The first
        line of its docstring says what the rule is about.
    """

    code: str
    severity: Severity
    stage: Stage
    find: Callable[[Any], Iterator[Remark]]

    @property
    def about(self) -> str:
        """What the rule is about, in one sentence."""
        return (self.find.__doc__ or "").strip().split("\n", 1)[0]

    def findings(self, view: Any) -> Iterator[Finding]:
        """Apply the rule."""
        for remark in self.find(view):
            parts = asdict(remark)
            yield Finding(code=self.code, **parts | {"severity": remark.severity or self.severity})


@dataclass(frozen=True)
class Finding:
    """A remark with the code of its rule; `str` gives one line."""

    code: str
    severity: Severity
    says: str
    word: str | None = None
    group: str | None = None
    prompt: str | None = None
    where: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        named = [self.where, self.word or (self.group and f"group {self.group}")]
        place = ": ".join(part for part in named if part)
        line = f"{self.code} {self.severity:<7} {place + ': ' if place else ''}{self.says}"
        if self.prompt is not None:
            line += f", in {_shorten(self.prompt)!r}"
        if self.fix is not None:
            line += f". {self.fix}"
        # Texts of a study may hold line breaks; a finding stays one line.
        return " ".join(line.split("\n"))

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of it as plain data, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, repr=False)
class Checked(Shown):
    """The outcome of a check.

    Attributes
    ----------
    study
        What was checked.
    checkpoint
        Label of the checkpoint whose tokenizer, or model, was asked; None if none was.
    findings
        In the order of the codes, and of the study within a code.
    """

    study: str
    checkpoint: str | None
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Count the findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def passes(self, *, strict: bool = False) -> bool:
        """Whether there is no error and, if `strict`, no warning either."""
        return not self.count("error") and not (strict and self.count("warning"))

    def _card(self) -> Card:
        rows = [
            {"code": one.code, "severity": one.severity, "word": one.word, "finding": one.says}
            for one in self.findings
        ]
        return Card(str(self), rows=rows)

    def __str__(self) -> str:
        asked = f" (tokenizer of {self.checkpoint})" if self.checkpoint else ", no tokenizer asked"
        errors, warnings = self.count("error"), self.count("warning")
        return f"{self.study}{asked}: {_number(errors, 'error')}, {_number(warnings, 'warning')}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {
            "study": self.study,
            "checkpoint": self.checkpoint,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _shorten(text: str, length: int = 60) -> str:
    """Keep the end of a text: that is where the answer follows."""
    return text if len(text) <= length else "…" + text[1 - length :]
