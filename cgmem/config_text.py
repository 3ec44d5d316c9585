"""What the text of a configuration file says: a YAML mapping of settings.

It is read from parser events and never built by a YAML constructor: the shape is that small (one
nested mapping, `agent_types`), there is no recursion to exhaust (libyaml's composer crashes the
process on deep nesting), and an unquoted word means only what every YAML version agrees on; where
1.1 and 1.2 differ, the file is refused with a clear word instead of being misread.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml
from yaml.events import (
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    StreamEndEvent,
)

from cgmem.errors import ConfigurationError
from cgmem.words import meant, shown

Scalar = str | int | float | bool
_Content = tuple[dict[str, Scalar], dict[str, dict[str, Scalar]]]

# PyYAML can be built without libyaml; the two loaders share no base class.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_config(text: str, *, path: str, known: Collection[str], nested: str) -> _Content:
    """Return the values of `text`, the content of the file at `path`, and those by agent type.

    `known` are the keys that are taken, `nested` is the key of the agent types. Raises
    `ConfigurationError`, which names path, line and key.
    """
    try:
        return _Document(path, yaml.parse(text, Loader=_LOADER), known, nested).read()
    except yaml.MarkedYAMLError as err:
        line = f":{err.problem_mark.line + 1}" if err.problem_mark else ""
        raise ConfigurationError(
            f"{path}{line}: not YAML: {err.problem}", hint="lines are written as key: value"
        ) from err
    except yaml.YAMLError as err:
        raise ConfigurationError(
            f"{path}: not YAML: it holds characters that are not text",
            hint="lines are written as key: value",
        ) from err


class _Document:
    """Reads one file's parser events, in order."""

    def __init__(
        self, path: str, events: Iterator[Event], known: Collection[str], nested: str
    ) -> None:
        self._path = path
        self._events = events
        self._known = known
        self._nested = nested
        self._values: dict[str, Scalar] = {}
        self._agent_types: dict[str, dict[str, Scalar]] = {}

    def read(self) -> _Content:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), DocumentStartEvent):
            self._read_top(next(self._events))
            next(self._events)  # the document ends
            following = next(self._events)
            if not isinstance(following, StreamEndEvent):
                raise self._wrong(following, "a second document begins here", "keep one")
        return self._values, self._agent_types

    def _read_top(self, event: Event) -> None:
        if isinstance(event, ScalarEvent) and _plain_value(event.value) is None:
            return
        for key, found in self._pairs(event, "the file", (*self._known, self._nested)):
            if key == self._nested:
                self._read_agent_types(found)
            else:
                self._values[key] = self._scalar(found, key)

    def _read_agent_types(self, event: Event) -> None:
        for name, budget in self._pairs(event, self._nested):
            path = f"{self._nested}.{name}"
            self._agent_types[name] = {
                key: self._scalar(found, f"{path}.{key}")
                for key, found in self._pairs(budget, path, self._known)
            }

    def _pairs(
        self, event: Event, what: str, known: Collection[str] | None = None
    ) -> Iterator[tuple[str, Event]]:
        """Yield each key of a mapping with the event that begins its value."""
        self._refuse_decoration(event, what)
        if not isinstance(event, MappingStartEvent):
            raise self._wrong(event, f"{what} is not a mapping", "write lines of key: value")
        seen: set[str] = set()
        while not isinstance(found := next(self._events), MappingEndEvent):
            if not isinstance(found, ScalarEvent):
                raise self._wrong(found, f"{what} has a key that is no word", "write key: value")
            key = str(found.value)
            if known is not None and key not in known:
                raise self._wrong(found, f"unknown setting {shown(key)}", meant(key, known))
            if key in seen:
                raise self._wrong(found, f"{shown(key)} is there twice", "remove one of the two")
            seen.add(key)
            yield key, next(self._events)

    def _scalar(self, event: Event, what: str) -> Scalar:
        self._refuse_decoration(event, what)
        if not isinstance(event, ScalarEvent):
            raise self._wrong(event, f"{what} is a list or mapping", "write a single value")
        text = str(event.value)
        if not event.implicit[0]:
            return text
        if _AMBIGUOUS.fullmatch(text):
            raise self._wrong(
                event,
                f"{what}: {shown(text)} means different things to different YAML readers",
                "write plain decimal digits, or put it in quotes if it is text",
            )
        value = _plain_value(text)
        if value is None:
            raise self._wrong(event, f"{what} has no value", "write one, or remove the line")
        return value

    def _refuse_decoration(self, event: Event, what: str) -> None:
        if isinstance(event, NodeEvent) and event.anchor is not None:
            raise self._wrong(event, f"{what}: anchors and aliases are not taken", "write it out")
        if getattr(event, "tag", None) is not None:
            raise self._wrong(event, f"{what}: tags are not taken", "write the value alone")

    def _wrong(self, event: Event, problem: str, hint: str) -> ConfigurationError:
        line = f":{event.start_mark.line + 1}" if event.start_mark else ""
        return ConfigurationError(f"{self._path}{line}: {problem}", hint=hint)


# YAML 1.1: octal, hexadecimal, binary, digit groups, base 60, exponents, signs, infinities.
_AMBIGUOUS = re.compile(
    r"""[-+]?0[0-9]+(?:\.[0-9]*)? | [-+]?0[xXoObB][0-9A-Fa-f_]+ | [-+]?[0-9][0-9_]*_[0-9_.]*
      | [-+]?[0-9]+(?::[0-9]+)+(?:\.[0-9]*)? | [-+]?[0-9.]+[eE][-+]?[0-9]+
      | \+[0-9.]+ | -?\.[0-9]+ | -?[0-9]+\. | [-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)""",
    re.VERBOSE,
)
_INT = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?[0-9]{1,19}\.[0-9]{1,19}")
_WORDS: dict[str, Scalar | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def _plain_value(text: str) -> Scalar | None:
    """Return an unquoted scalar as YAML 1.2 reads it: `on`, `off`, `yes`, `no` are words."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
