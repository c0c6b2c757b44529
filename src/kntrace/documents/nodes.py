"""A document as a tree in which every node knows its line.

YAML and JSON are both turned into one stream of small events, and one composer builds the tree
from it. The composer keeps no recursion and counts what it builds, so that a file of brackets
or of aliases to aliases ends in a message and not in a full memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from kntrace.errors import InputError

__all__ = ["DataPath", "Document", "Event", "Limits", "Node", "compose"]

DataPath = tuple[str | int, ...]
"""The keys and places that lead from the root of a document to a thing in it."""
Scalar = str | int | float | bool | None

MAX_DEPTH = 32


class Event(NamedTuple):
    """One step through a document.

    `value` is a scalar's value, `raw` how the file spells it; `anchor` is the name that a node
    is given or that an alias refers to.
    """

    kind: Literal["mapping", "sequence", "end", "scalar", "alias"]
    line: int
    value: Scalar = None
    raw: str = ""
    anchor: str | None = None


class Limits(NamedTuple):
    """How many nodes a document may have, aliases counted as what they stand for."""

    nodes: int
    fix: str


@dataclass(slots=True)
class Node:
    """A scalar, a sequence or a mapping.

    `size` counts the scalars and containers in it, `depth` the containers inside one another.
    A mapping's `keys` holds the line of each key.
    """

    line: int
    content: Scalar | list[Node] | dict[str, Node]
    raw: str = ""
    keys: dict[str, int] = field(default_factory=dict)
    size: int = 1
    depth: int = 0

    def plain(self) -> Any:
        """Return the content as plain dictionaries, lists and scalars."""
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content


@dataclass(frozen=True)
class Document:
    """A file that was read: what messages call it, and its content with line numbers."""

    name: str
    root: Node

    @cached_property
    def data(self) -> Any:
        """The content as plain dictionaries, lists and scalars."""
        return self.root.plain()

    def where(self, path: DataPath = ()) -> str:
        """Return `file:line` of what lies at `path`."""
        return f"{self.name}:{self.line(path)}"

    def line(self, path: DataPath = ()) -> int:
        """Return the line of what lies at `path`; that of its key, where it has one."""
        return self._find(path)[1]

    def node(self, path: DataPath = ()) -> Node:
        """Return the node at `path`."""
        return self._find(path)[0]

    def _find(self, path: DataPath) -> tuple[Node, int]:
        """Follow a path, passing over parts that are not there.

        A file's short forms leave parts out, and a missing key is shown where it should be.
        """
        node, line = self.root, self.root.line
        for part in path:
            if isinstance(node.content, dict) and part in node.content:
                node, line = node.content[str(part)], node.keys[str(part)]
            elif (
                isinstance(node.content, list)
                and isinstance(part, int)
                and part < len(node.content)
            ):
                node = node.content[part]
                line = node.line
        return node, line


@dataclass(slots=True)
class _Open:
    """A container whose end has not been read yet."""

    node: Node
    anchor: str | None
    key: tuple[str, int] | None = None


def compose(events: Iterable[Event], name: str, error: type[InputError], limits: Limits) -> Node:
    """Build the tree of one document, of which the root must be a mapping."""
    return _Composer(name, error, limits).compose(events)


class _Composer:
    def __init__(self, name: str, error: type[InputError], limits: Limits) -> None:
        self._name, self._error, self._limits = name, error, limits
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._read = 0

    def compose(self, events: Iterable[Event]) -> Node:
        root: Node | None = None
        for event in events:
            if root is None and not self._open and event.kind != "mapping":
                raise self._fault(
                    event.line, "this is not a set of named entries", "lines of the form `key: …`"
                )
            finished = self._step(event)
            if finished is not None and not self._open:
                root = finished
        if root is None:
            raise self._fault(1, "the file is empty", "lines of the form `key: …`")
        return root

    def _step(self, event: Event) -> Node | None:
        """Take in one event; return the node that it finishes, if it finishes one."""
        self._read += 1
        if self._read > self._limits.nodes:
            raise self._too_large(event.line)
        if event.kind in ("mapping", "sequence"):
            self._begin(event)
            return None
        if event.kind == "end":
            done = self._open.pop()
            node, anchor = done.node, done.anchor
        elif event.kind == "alias":
            node, anchor = self._aliased(event), None
        else:
            node, anchor = Node(event.line, event.value, event.raw), event.anchor
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._attach(node, event.line)
        return node

    def _begin(self, event: Event) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self._fault(
                event.line, "brackets or indents are nested too deeply", f"{MAX_DEPTH} at most"
            )
        self._refuse_container_key(event.line)
        node = Node(event.line, {} if event.kind == "mapping" else [], depth=1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(node, event.anchor))

    def _refuse_container_key(self, line: int) -> None:
        if self._open and isinstance(self._open[-1].node.content, dict) and not self._open[-1].key:
            raise self._fault(line, "a key is itself a list or a set of entries", "a text")

    def _aliased(self, event: Event) -> Node:
        anchor = str(event.anchor)
        if anchor not in self._anchors:
            raise self._fault(event.line, f"*{anchor} refers to nothing", f"&{anchor} before it")
        node = self._anchors[anchor]
        if node is None:
            raise self._fault(event.line, f"*{anchor} refers to what it is a part of", "no circle")
        return node

    def _attach(self, node: Node, line: int) -> None:
        parent = self._open[-1]
        content = parent.node.content
        if isinstance(content, list):
            content.append(node)
        elif isinstance(content, dict):
            if parent.key is None:
                parent.key = (self._key(node, line), line)
                return
            key, key_line = parent.key
            content[key], parent.node.keys[key] = node, key_line
            parent.key = None
        parent.node.size += node.size
        parent.node.depth = max(parent.node.depth, node.depth + 1)
        if parent.node.size > self._limits.nodes:
            raise self._too_large(line)
        if parent.node.depth > MAX_DEPTH:
            raise self._fault(line, "aliases are nested too deeply", f"{MAX_DEPTH} at most")

    def _key(self, node: Node, line: int) -> str:
        if isinstance(node.content, (dict, list)):
            raise self._fault(line, "a key is itself a list or a set of entries", "a text")
        if not isinstance(node.content, str):
            raw = node.raw if len(node.raw) <= 40 else node.raw[:39] + "…"
            fix = f'Put it in quotes: "{node.raw}".' if node.raw == raw else "Put it in quotes."
            raise self._fault(
                line,
                f"the key {raw} is not a text in YAML" if raw else "a key is empty",
                "a text",
                fix if raw else None,
            )
        earlier = self._open[-1].node.keys.get(node.content)
        if earlier is not None:
            raise self._fault(
                line,
                f"{node.content!r} stands here a second time, after line {earlier}",
                "each name once",
                "Remove or rename one of the two.",
            )
        return node.content

    def _too_large(self, line: int) -> InputError:
        found = f"the file has more than {self._limits.nodes:,} entries, aliases counted in full"
        return self._fault(line, found, "fewer", self._limits.fix)

    def _fault(self, line: int, found: str, expected: str, fix: str | None = None) -> InputError:
        return self._error(found, where=f"{self._name}:{line}", expected=expected, fix=fix)
