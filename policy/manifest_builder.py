"""YAML events to one plain value, without recursion and within a budget.

Owns anchors, aliases, merge keys, duplicate keys and the bounds on nodes and depth. Never reads text.
Invariant: the work is linear in the events, plus what aliases may repeat.
"""

from __future__ import annotations

from typing import Final, cast

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from policy.manifest_findings import Place, shown
from policy.manifest_scalars import plain_value

MAX_DEPTH = 64
MAX_NODES = 1_000_000
MAX_ALIASED_NODES = 100_000
"""Nodes that aliases may repeat in one file, so that a kilobyte cannot stand for a gigabyte."""

_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_NO_KEY: Final = object()
_MERGE: Final = object()


class Unreadable(Exception):
    """A document cannot be read: message, fix, and its line in the piece of text (from 0)."""

    def __init__(self, message: str, fix: str, line: int) -> None:
        super().__init__(message)
        self.message, self.fix, self.line = message, fix, line


class Budget:
    """What one file may still cost."""

    __slots__ = ("aliased", "nodes")

    def __init__(self, nodes: int = MAX_NODES, aliased: int = MAX_ALIASED_NODES) -> None:
        self.nodes = nodes
        self.aliased = aliased


class _Frame:
    """One open mapping or list."""

    __slots__ = ("anchor", "key", "merges", "nodes_before", "value")

    def __init__(
        self, value: dict[str, object] | list[object], anchor: str | None, nodes_before: int
    ) -> None:
        self.value = value
        self.anchor = anchor
        self.key: object = _NO_KEY
        self.merges: list[object] = []
        self.nodes_before = nodes_before

    def step(self) -> str | int:
        """The next step of a JSON pointer."""
        if isinstance(self.value, list):
            return len(self.value)
        return "<<" if self.key is _MERGE else str(self.key)


class Builder:
    """Turns the events of one document into its value, without recursion."""

    def __init__(self, place: Place, budget: Budget) -> None:
        self.root: object = None
        self.damaged = False
        self._place = place
        self._budget = budget
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[object, int]] = {}

    def feed(self, event: Event) -> None:
        """Take one event inside a document; raises `Unreadable`."""
        budget = self._budget
        budget.nodes -= 1
        if budget.nodes < 0:
            raise Unreadable(f"the file holds more than {MAX_NODES} values", "divide the file", _line(event))
        if isinstance(event, ScalarEvent):
            self._scalar(event)
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self._start(event)
        elif isinstance(event, CollectionEndEvent):
            self._end(event)

    def _start(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        if event.tag is not None:
            raise _tag_refused(event.tag, event)
        if len(self._open) >= MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels", "nest less deep", _line(event))
        is_mapping = isinstance(event, MappingStartEvent)
        if self._open and self._expects_key():
            raise Unreadable(
                f"a key is {'a mapping' if is_mapping else 'a list'}",
                "write keys as plain words",
                _line(event),
            )
        value: dict[str, object] | list[object] = {} if is_mapping else []
        self._open.append(_Frame(value, event.anchor, self._budget.nodes))

    def _end(self, event: Event) -> None:
        frame = self._open.pop()
        if isinstance(frame.value, dict):
            for merged in frame.merges:
                self._merge(frame.value, merged, event)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.value, frame.nodes_before - self._budget.nodes)
        self._put(frame.value)

    def _scalar(self, event: ScalarEvent) -> None:
        tag = event.tag
        if tag is not None and tag not in _STRING_TAGS:
            raise _tag_refused(tag, event)
        plain = tag is None and event.implicit[0]
        if not plain and event.anchor is None and self._open:
            self._put(event.value)  # text in quotes, as a key or as a value
            return
        if self._open and self._expects_key():
            value: object = _MERGE if plain and event.value == "<<" else event.value
            if plain and event.value in {"", "~"}:
                raise Unreadable("a key is empty", "write a name before the colon", _line(event))
        else:
            value = plain_value(event.value) if plain else event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = (event.value if value is _MERGE else value, 1)
        self._put(value)

    def _alias(self, event: AliasEvent) -> None:
        name = event.anchor or ""
        if name not in self._anchors:
            itself = any(frame.anchor == name for frame in self._open)
            message = f"the alias *{shown(name)[1:-1]} " + (
                "contains itself" if itself else "has no anchor before it"
            )
            raise Unreadable(message, "write the value out", _line(event))
        value, nodes = self._anchors[name]
        self._budget.aliased -= nodes
        self._budget.nodes -= nodes
        if self._budget.aliased < 0:
            message = f"aliases repeat more than {MAX_ALIASED_NODES} values"
            raise Unreadable(message, "write the values out, or fewer of them", _line(event))
        if self._open and self._expects_key() and not isinstance(value, str):
            raise Unreadable(
                "a key is an alias of something that is not text", "write the key out", _line(event)
            )
        self._put(value)

    def _expects_key(self) -> bool:
        frame = self._open[-1]
        return isinstance(frame.value, dict) and frame.key is _NO_KEY

    def _put(self, value: object) -> None:
        if not self._open:
            self.root = value
            return
        frame = self._open[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is _NO_KEY:
            frame.key = value
        elif frame.key is _MERGE:
            frame.merges.append(value)
            frame.key = _NO_KEY
        else:
            key = cast("str", frame.key)
            if key in frame.value:
                self._duplicate(key)
            else:
                frame.value[key] = value
            frame.key = _NO_KEY

    def _duplicate(self, key: str) -> None:
        self.damaged = True
        self._place.at(*(frame.step() for frame in self._open)).error(
            f"the key {shown(key)} stands here twice", "keep one of the two: which one counts is not defined"
        )

    @staticmethod
    def _merge(target: dict[str, object], source: object, event: Event) -> None:
        for mapping in source if isinstance(source, list) else [source]:
            if not isinstance(mapping, dict):
                raise Unreadable(
                    "<< merges something that is not a mapping", "write the keys out", _line(event)
                )
            for key, value in mapping.items():
                target.setdefault(key, value)


def _tag_refused(tag: str, event: Event) -> Unreadable:
    return Unreadable(
        f"the tag {shown(tag)} is not accepted", "remove the tag: manifests are plain values", _line(event)
    )


def _line(event: Event) -> int:
    return event.start_mark.line if event.start_mark is not None else 0
