"""Data sets of facts: a relation is a group, its objects are the words.

A fact is a subject, a relation and an object; the relation's templates turn a subject into a
prompt whose answer is the object. So the words of a study are the objects, their groups the
relations, and the prompts of a word come from the subjects that share it and from the
templates. Prompts are ordered so that the first ones differ in both as far as they can: the
first has the first subject and the first template, the second the second of each, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kntrace.documents import parse_json, read_text, shown
from kntrace.errors import StudyError
from kntrace.study.importing.rows import Row, json_lines

__all__ = ["read_counterfact", "read_json", "read_lre", "read_pararel"]

_X, _Y = "[X]", "[Y]"


def read_lre(files: Sequence[Path], notes: list[str], mask: str | None) -> Iterator[Row]:
    """Read relations of the LRE data set: one JSON file each.

    `{"name": …, "prompt_templates": ["… {} …"], "samples": [{"subject": …, "object": …}]}`.
    The subject goes into the place of `{}`, the object follows the prompt. `properties` and
    `prompt_templates_zs` are not used.
    """
    _refuse_mask(mask)
    for path in files:
        data = read_json(path)
        if not isinstance(data, dict):
            raise StudyError("a list", where=path, expected="one relation of the LRE data set")
        name = _text(data, "name", path)
        templates = _list(data, "prompt_templates", path)
        for place, template in enumerate(templates, start=1):
            if not isinstance(template, str) or template.count("{}") != 1:
                raise StudyError(
                    f"template {place} is {shown(template)}",
                    where=path,
                    expected="a text with one {}",
                )
        facts = []
        for place, sample in enumerate(_list(data, "samples", path), start=1):
            where = f"{path}, sample {place}"
            facts.append((_text(sample, "subject", where), _text(sample, "object", where), where))
        yield from _prompts(name, templates, facts, "{}")


def read_counterfact(files: Sequence[Path], notes: list[str], mask: str | None) -> Iterator[Row]:
    """Read CounterFact: a JSON list of cases.

    Of a case `requested_rewrite` is used: `prompt` with `{}` for the `subject`, `relation_id`,
    and `target_true.str`, which is the answer. What a model shall be edited to, paraphrases and
    neighbours are not.
    """
    _refuse_mask(mask)
    for path in files:
        cases = read_json(path)
        if not isinstance(cases, list):
            raise StudyError("no list", where=path, expected="the list of cases of CounterFact")
        for place, case in enumerate(cases, start=1):
            where = f"{path}, case {place}"
            rewrite = case.get("requested_rewrite") if isinstance(case, dict) else None
            if not isinstance(rewrite, dict):
                raise StudyError("no 'requested_rewrite'", where=where, expected="one in each case")
            template = _text(rewrite, "prompt", where)
            if template.count("{}") != 1:
                raise StudyError(
                    f"the prompt is {shown(template)}", where=where, expected="a text with one {}"
                )
            yield Row(
                word=_text(rewrite.get("target_true"), "str", where),
                group=_text(rewrite, "relation_id", where),
                prompt=template.replace("{}", _text(rewrite, "subject", where)),
                where=where,
            )


def read_pararel(files: Sequence[Path], notes: list[str], mask: str | None) -> Iterator[Row]:
    """Read ParaRel: for each relation a file of patterns and one of facts, both json lines.

    A pattern line has `pattern`, with `[X]` for the subject and `[Y]` for the object; a fact
    line `sub_label` and `obj_label`. The two files of a relation have one name in two folders
    (`P36.jsonl`), which becomes the group. Facts without patterns are left out, which is noted.

    Without `mask`, only patterns that end with `[Y]` are used, since the answer has to follow
    the prompt; the others are left out, which is noted. With it, the mask takes the place of
    `[Y]` in all of them.
    """
    patterns: dict[str, tuple[Path, list[tuple[dict[str, Any], str]]]] = {}
    facts: dict[str, tuple[Path, list[tuple[dict[str, Any], str]]]] = {}
    for path in files:
        lines = list(json_lines(path))
        kind = patterns if "pattern" in lines[0][0] else facts
        if path.stem in kind:
            raise StudyError(
                f"two files {path.stem!r} of one kind", where=path, expected="one of each kind"
            )
        kind[path.stem] = (path, lines)
    if len(patterns) == len(facts) == 1:
        facts = {next(iter(patterns)): next(iter(facts.values()))}
    # The data set has facts of two relations that it has no patterns for.
    alone = [relation for relation in facts if relation not in patterns]
    if alone and any(relation in facts for relation in patterns):
        notes.append(f"left out {', '.join(alone)}: facts without a file of patterns")
        facts = {relation: facts[relation] for relation in facts if relation in patterns}
    for relation in [*patterns, *facts]:
        for kind, what in ((patterns, "patterns"), (facts, "facts")):
            if relation not in kind:
                raise StudyError(
                    f"no file of {what} for the relation {relation!r}",
                    expected="for each relation a file of patterns and one of facts, of one name",
                    fix="Give both, e.g. patterns/P36.jsonl facts/P36.jsonl.",
                )
    for relation, (path, lines) in patterns.items():
        templates = _templates(path, lines, notes, mask)
        named = [
            (_text(entry, "sub_label", where), _text(entry, "obj_label", where), where)
            for entry, where in facts[relation][1]
        ]
        yield from _prompts(relation, templates, named, _X)


def read_json(path: Path) -> Any:
    """Read a JSON file whose root may be a list."""
    text = read_text(path, StudyError, what="a JSON file")
    return parse_json(text, str(path), StudyError)


def _templates(
    path: Path, lines: list[tuple[dict[str, Any], str]], notes: list[str], mask: str | None
) -> list[str]:
    templates, unlike = [], 0
    for entry, where in lines:
        pattern = _text(entry, "pattern", where)
        if pattern.count(_X) != 1 or pattern.count(_Y) != 1:
            raise StudyError(
                f"the pattern is {shown(pattern)}",
                where=where,
                expected=f"{_X} and {_Y}, once each",
            )
        before, after = pattern.split(_Y)
        if mask is not None:
            templates.append(before + mask + after)
        elif re.search(r"\w", after) is None:
            templates.append(before.rstrip())
        else:
            unlike += 1
    if not templates:
        raise StudyError(
            f"no pattern ends with {_Y}",
            where=path,
            expected="a pattern that the answer can follow",
            fix="For a masked language model say how its mask is written (--mask '[MASK]').",
        )
    if unlike:
        notes.append(f"{path}: left out {unlike} patterns that do not end with {_Y}")
    return templates


def _prompts(
    group: str, templates: Sequence[str], facts: Sequence[tuple[str, str, str]], place: str
) -> Iterator[Row]:
    """Ask for every object by all its subjects in all templates, each time another of both."""
    subjects: dict[str, list[tuple[str, str]]] = {}
    for subject, word, where in facts:
        subjects.setdefault(word, []).append((subject, where))
    for word, named in subjects.items():
        for turn in range(len(templates)):
            for number, (subject, where) in enumerate(named):
                template = templates[(number + turn) % len(templates)]
                yield Row(word, group, template.replace(place, subject), where)


def _text(entry: Any, key: str, where: object) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        found = f"no {key!r}" if value is None else f"{key!r} is {shown(value)}"
        raise StudyError(found, where=where, expected="a text")
    return value.strip()


def _list(entry: dict[str, Any], key: str, where: object) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list) or not value:
        raise StudyError(f"no list {key!r}", where=where, expected="at least one entry")
    return value


def _refuse_mask(mask: str | None) -> None:
    if mask is not None:
        raise StudyError(
            f"the mask {mask!r}, but prompts of this format end where the answer stands",
            expected="a mask only with ParaRel",
        )
