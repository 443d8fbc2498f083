"""YAML as a suite may use it: every value with its file and line, every fault with the path to its key. Imports no torch.

Read are mappings with plain words as keys, lists, text, whole and finite numbers, true, false and null; anchors and aliases
within limits. SuiteError are duplicate keys, tags, dates, aliases that contain themselves or grow beyond :data:`MAX_VALUES`,
and files that are larger or nested deeper than any suite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 24
MAX_VALUES = 200_000

Place = tuple[str | int, ...]
"""A path to a value: keys and places in lists."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = yaml.resolver.Resolver()
_SCALARS: Any = yaml.constructor.SafeConstructor()
_Event = Any
"""An event of PyYAML's parser, whose type stubs lack most of its attributes."""
_TAG = "tag:yaml.org,2002:"
_SUITE = "a suite is a mapping with the keys name, data, measure and matrix"


@dataclass(frozen=True)
class Node:
    """A value with where it stands. ``value``: a dict or list of nodes, or a scalar.

    ``keys``: file and line of a mapping's keys. ``size``: how many values it holds, aliases written out.
    """

    value: Any
    file: str
    line: int
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)
    size: int = 1

    def data(self) -> Any:
        """The value without places, as ``yaml.safe_load`` would give it."""
        if isinstance(self.value, dict):
            return {key: child.data() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data() for child in self.value]
        return self.value

    def find(self, place: Place) -> tuple[str, int]:
        """File and line of the value at ``place``, of a key that is there, or of the nearest value around it."""
        node, found = self, (self.file, self.line)
        for part in place:
            inside = node.value
            if isinstance(inside, dict) and part in inside:
                found = node.keys[str(part)]
                node = inside[part]
            elif isinstance(inside, list) and isinstance(part, int) and 0 <= part < len(inside):
                node = inside[part]
                found = (node.file, node.line)
            else:
                break
        return found


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where: ``file:line: path: message``."""

    file: str
    line: int
    place: Place
    message: str

    @property
    def key(self) -> str:
        """The innermost key that ``place`` is at or below."""
        return next((part for part in reversed(self.place) if isinstance(part, str)), "")

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}: " + (f"{show(self.place)}: " if self.place else "") + self.message
        return "".join(
            sign if sign.isprintable() else repr(sign)[1:-1] for sign in text
        )  # one line, whatever it quotes


class SuiteError(ValueError):
    """One or more faults of a suite, one line each."""

    def __init__(self, faults: list[Fault]) -> None:
        # a fault is said once, also when an alias or a default puts it, under the same key, in several places
        once = {(fault.file, fault.line, fault.key, fault.message): fault for fault in reversed(faults)}
        self.faults = sorted(once.values(), key=lambda fault: (fault.file, fault.line, show(fault.place)))
        super().__init__("\n".join(map(str, self.faults)))


def show(place: Place) -> str:
    """``matrix[0].models[1]``; a key that is no plain word is quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() and len(part) <= 60 and part and " " not in part else f"{part!r:.60}"
            text += f".{word}" if text else word
    return text


def read_yaml(text: str, file: str, wanted: str = _SUITE) -> tuple[Node, list[Fault]]:
    """The mapping in a YAML text, and the faults in it that leave the rest readable (null stands in their place).
    ``wanted``: what is said of a text that is none.

    :class:`SuiteError` when it is no YAML, no mapping, or beyond the limits.
    """
    problem = _unreadable(text)
    if problem:
        raise SuiteError([Fault(file, problem[0], (), problem[1])])
    reader = _Reader(file)
    try:
        node = reader.document(yaml.parse(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        said = getattr(error, "problem", None) or getattr(error, "context", None) or error
        raise SuiteError([Fault(file, mark.line + 1 if mark else 1, (), f"not valid YAML: {said}")]) from None
    if not isinstance(node.value, dict):
        raise SuiteError(
            [
                Fault(file, node.line, (), wanted),
                *reader.faults,
            ]
        )
    return node, reader.faults


def _unreadable(text: str) -> tuple[int, str] | None:
    """Line and message when a text is too long or holds characters that YAML does not have."""
    if len(text) > MAX_BYTES:
        return 1, f"larger than a suite may be ({MAX_BYTES // 2**20} MiB)"
    found = yaml.reader.Reader.NON_PRINTABLE.search(text.removeprefix("\ufeff"))
    if found is None:
        return None
    return text.count("\n", 0, found.start()) + 1, f"not valid YAML: the character {found[0]!r} is not allowed"


class _Reader:
    """One file's events, built into nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.anchors: dict[str, Node | None] = {}
        self.count = 0

    def document(self, events: Iterator[_Event]) -> Node:
        """The one document of a stream; null when there is none."""
        self.events = events
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self.stop(event, (), "a second document: a suite is one")
                root = self.node(next(events), ())
        return root or Node(None, self.file, 1)

    def fault(self, event: _Event, place: Place, message: str) -> None:
        self.faults.append(Fault(self.file, event.start_mark.line + 1, place, message))

    def stop(self, event: _Event, place: Place, message: str) -> None:
        self.fault(event, place, message)
        raise SuiteError(self.faults)

    def node(self, event: _Event, place: Place) -> Node:
        if len(place) > MAX_DEPTH:
            self.stop(event, place[:4], f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, place)
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.tagged(event, place)
            node = self.sequence(event, place)
        else:
            self.tagged(event, place)
            node = self.mapping(event, place)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def tagged(self, event: _Event, place: Place) -> bool:
        if event.tag is None:
            return False
        self.fault(event, place, f"the tag {event.tag!r:.60} is not read; a suite has no tags")
        return True

    def grow(self, event: _Event, place: Place, size: int) -> None:
        self.count += size
        if self.count > MAX_VALUES:
            self.stop(event, place[:4], f"more than {MAX_VALUES:,} values, aliases written out")

    def alias(self, event: _Event, place: Place) -> Node:
        name = event.anchor
        node = self.anchors.get(name)
        if node is None:
            inside = "stands inside what it is the name of" if name in self.anchors else "names nothing before it"
            self.fault(event, place, f"the alias *{name} {inside}")
            return Node(None, self.file, event.start_mark.line + 1)
        self.grow(event, place, node.size)
        return node

    def sequence(self, start: _Event, place: Place) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*place, len(items))))
        size = 1 + sum(item.size for item in items)
        self.grow(start, place, 1)
        return Node(items, self.file, start.start_mark.line + 1, size=size)

    def mapping(self, start: _Event, place: Place) -> Node:
        found: dict[str, Node] = {}
        keys: dict[str, tuple[str, int]] = {}
        shared: list[Node] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, place)
            line = event.start_mark.line + 1
            value_event = next(self.events)
            if key is None:
                self.node(value_event, (*place, "?"))
                continue
            value = self.node(value_event, (*place, key))
            if key == "<<" and event.implicit[0]:
                shared += self.merged(value, event, place)
            elif key in found:
                self.fault(event, (*place, key), f"this key stands in line {keys[key][1]} already")
            else:
                found[key], keys[key] = value, (self.file, line)
        for other in shared:
            for key, value in other.value.items():
                if key not in found:
                    found[key], keys[key] = value, other.keys[key]
        self.grow(start, place, 1)
        return Node(found, self.file, start.start_mark.line + 1, keys, size=1 + sum(v.size for v in found.values()))

    def merged(self, value: Node, event: _Event, place: Place) -> list[Node]:
        several = value.value if isinstance(value.value, list) else [value]
        if all(isinstance(one.value, dict) for one in several):
            return several
        self.fault(event, (*place, "<<"), "what is merged must be a mapping, or a list of mappings")
        return []

    def key(self, event: _Event, place: Place) -> str | None:
        """A mapping's key; None, with a fault, when it is anything but text."""
        if isinstance(event, yaml.ScalarEvent) and event.tag is None and event.anchor is None:
            kind = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit).removeprefix(_TAG)
            if kind in {"str", "merge"} and event.value:
                return str(event.value)
            self.fault(event, place, f"the key {event.value!r:.60} is not a word; put it in quotes if it is meant so")
            return None
        self.fault(event, place, "a key must be a word, without a tag or an anchor")
        self.node(event, (*place, "?"))
        return None

    def scalar(self, event: _Event, place: Place) -> Node:
        self.grow(event, place, 1)
        line = event.start_mark.line + 1
        if self.tagged(event, place):
            return Node(None, self.file, line)
        if not event.implicit[0]:
            return Node(event.value, self.file, line)
        try:
            return Node(plain_value(event.value), self.file, line)
        except ValueError as error:
            self.fault(event, place, str(error))
            return Node(None, self.file, line)


def plain_value(text: str) -> Any:
    """What a scalar without quotes stands for; ``ValueError`` for a date, a number that is not finite or beyond 18 digits."""
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_TAG)
    if kind == "timestamp":
        raise ValueError(f"{text!r:.60} is read as a date; put it in quotes")
    if kind not in {"null", "bool", "int", "float"}:
        return text
    if len(text) > 24:
        raise ValueError(f"the number {text[:24]}... is too long")
    try:
        value = getattr(_SCALARS, f"construct_yaml_{kind}")(yaml.ScalarNode(_TAG + kind, text))
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if kind in {"int", "float"} and (not math.isfinite(value) or abs(value) >= 1e18):
        raise ValueError(f"{text} is not a finite number below 1e18")
    return value
