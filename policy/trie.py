"""Many patterns at once: which of them match a name, at the cost of the name's length.

Owns the trie over reversed labels, and the exact names beside it. Never parses patterns and never
decides. Invariant: a lookup finds the value of exactly those patterns whose ``matches(name)`` is
true.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from policy.names import MAX_NAME_CHARACTERS, is_permittable
from policy.patterns import Pattern, label_matches

T = TypeVar("T", bound=Hashable)


class _Node(Generic[T]):
    __slots__ = ("children", "deeper", "here", "starred")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.starred: dict[str, _Node[T]] = {}
        self.here: tuple[T, ...] = ()
        self.deeper: tuple[T, ...] = ()


class PatternTrie(Generic[T]):
    """Maps patterns to values; a pattern may be added more than once, with other values."""

    __slots__ = ("_exact", "_root", "_single")

    def __init__(self) -> None:
        self._exact: dict[str, tuple[T, ...]] = {}
        self._single: dict[T, tuple[T, ...]] = {}
        """Most names have one value, and most values many names: one tuple for all of them."""
        self._root: _Node[T] = _Node()

    def add(self, pattern: Pattern, value: T) -> None:
        """Add one pattern's value."""
        if pattern.exact:
            before = self._exact.get(pattern.text)
            alone = self._single.setdefault(value, (value,))
            self._exact[pattern.text] = alone if before is None else (*before, value)
            return
        labels = pattern.labels
        deeper = labels[0] == "*"
        node = self._root
        for label in reversed(labels[1:] if deeper else labels):
            node = _step(node, label)
        if deeper:
            node.deeper += (value,)
        else:
            node.here += (value,)

    def lookup(self, name: str) -> tuple[T, ...]:
        """Return the values of all patterns that match; none for a name that is not permittable."""
        if len(name) > MAX_NAME_CHARACTERS:
            return ()
        found = self._found(name)
        return found if found and is_permittable(name) else ()

    def _found(self, name: str) -> tuple[T, ...]:
        found = self._root.deeper + self._exact.get(name, ())
        labels = name.split(".")
        left = len(labels)
        node: _Node[T] | None = self._root
        while left and node is not None:
            if node.starred:
                return found + _among([node], labels[:left])
            left -= 1
            node = node.children.get(labels[left])
            if node is not None:
                found += node.deeper if left else node.here
        return found


def _among(nodes: list[_Node[T]], labels: list[str]) -> tuple[T, ...]:
    """Return the values below nodes of which a label may have several children."""
    found: tuple[T, ...] = ()
    left = len(labels)
    while left and nodes:
        left -= 1
        label = labels[left]
        following: list[_Node[T]] = []
        for node in nodes:
            child = node.children.get(label)
            if child is not None:
                following.append(child)
            if node.starred:
                following += [next_ for wanted, next_ in node.starred.items() if label_matches(wanted, label)]
        if left:
            for node in following:
                found += node.deeper
        nodes = following
    for node in nodes:
        found += node.here
    return found


def _step(node: _Node[T], label: str) -> _Node[T]:
    return (node.starred if "*" in label else node.children).setdefault(label, _Node())
