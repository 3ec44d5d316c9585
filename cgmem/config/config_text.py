"""What the text of a configuration file says: a YAML mapping of settings.

It is read from parser events and never built by a YAML constructor: the shape is that small (one
nested mapping, `agent_types`; a list or mapping of plain text in a command template), there is no
recursion to exhaust (libyaml's composer crashes the process on deep nesting), and an unquoted word
means only what every YAML version agrees on; where 1.1 and 1.2 differ, the file is refused with a
clear word instead of being misread.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from cgmem.errors import ConfigurationError
from cgmem.text.words import meant, shown

Scalar = str | int | float | bool
Structured = str | list[str] | dict[str, str]


class Content(NamedTuple):
    """What a file says."""

    values: dict[str, Scalar]
    agent_types: dict[str, dict[str, Scalar]]
    templates: dict[str, dict[str, Structured]]
    """By agent type; under "" what holds for all of them."""
    groups: dict[str, Scalar]
    """Budgets that several subprocesses share, by name."""


# PyYAML can be built without libyaml; the two loaders share no base class.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_config(
    text: str,
    *,
    path: str,
    known: Collection[str],
    nested: str,
    templates: Collection[str] = (),
    groups: str = "groups",
) -> Content:
    """Return the values of `text`, the content of the file at `path`, and those by agent type.

    `known` are the keys that are taken, `nested` is the key of the agent types, `templates` are
    keys whose values are text, lists of text or mappings of text, `groups` is the key of a mapping
    of single values. Raises `ConfigurationError`,
    which names path, line and key.
    """
    try:
        events = yaml.parse(text, Loader=_LOADER)
        return _Document(path, events, known, nested, templates, groups).read()
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
        self,
        path: str,
        events: Iterator[Event],
        known: Collection[str],
        nested: str,
        templates: Collection[str],
        groups: str,
    ) -> None:
        self._path = path
        self._events = events
        self._known = (*known, *templates)
        self._nested = nested
        self._template_keys = templates
        self._groups_key = groups
        self._values: dict[str, Scalar] = {}
        self._agent_types: dict[str, dict[str, Scalar]] = {}
        self._templates: dict[str, dict[str, Structured]] = {}
        self._groups: dict[str, Scalar] = {}

    def read(self) -> Content:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), DocumentStartEvent):
            self._read_top(next(self._events))
            next(self._events)  # the document ends
            following = next(self._events)
            if not isinstance(following, StreamEndEvent):
                raise self._wrong(following, "a second document begins here", "keep one")
        return Content(self._values, self._agent_types, self._templates, self._groups)

    def _read_top(self, event: Event) -> None:
        if isinstance(event, ScalarEvent) and _plain_value(event.value) is None:
            return
        known = (*self._known, self._nested, self._groups_key)
        for key, found in self._pairs(event, "the file", known):
            if key == self._nested:
                self._read_agent_types(found)
            elif key == self._groups_key:
                for name, size in self._pairs(found, key):
                    self._groups[name] = self._scalar(size, f"{key}.{name}")
            else:
                self._read_value(found, key, key, self._values, "")

    def _read_agent_types(self, event: Event) -> None:
        for name, budget in self._pairs(event, self._nested):
            path = f"{self._nested}.{name}"
            values = self._agent_types[name] = {}
            for key, found in self._pairs(budget, path, self._known):
                self._read_value(found, key, f"{path}.{key}", values, name)

    def _read_value(
        self, event: Event, key: str, path: str, values: dict[str, Scalar], agent_type: str
    ) -> None:
        if key in self._template_keys:
            self._templates.setdefault(agent_type, {})[key] = self._structured(event, path)
        else:
            values[key] = self._scalar(event, path)

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

    def _structured(self, event: Event, what: str) -> Structured:
        """Return text as it is written: a command's `012` and `true` are words."""
        if isinstance(event, SequenceStartEvent):
            self._refuse_decoration(event, what)
            words = []
            while not isinstance(found := next(self._events), SequenceEndEvent):
                words.append(self._text(found, f"a word of {what}"))
            return words
        if isinstance(event, MappingStartEvent):
            return {
                key: self._text(found, f"{what}.{key}") for key, found in self._pairs(event, what)
            }
        return self._text(event, what)

    def _text(self, event: Event, what: str) -> str:
        self._refuse_decoration(event, what)
        if not isinstance(event, ScalarEvent):
            raise self._wrong(event, f"{what} is a list or mapping", "write plain text")
        text = str(event.value)
        if event.implicit[0] and _plain_value(text) is None:
            raise self._wrong(event, f"{what} has no value", 'write one, or "" for none')
        return text

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
