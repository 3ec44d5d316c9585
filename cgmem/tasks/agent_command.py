"""What is started for an agent: a command template, filled in with one task. Pure.

Keys, in YAML beside the settings (general, or under an agent type) and in the constructor of
`cgmem.task_tool.TaskToolConfiguration`:

    command   a list of words, or one line that is split as a POSIX shell splits words; no shell
    stdin     text for the standard input; without it that is /dev/null
    cwd       working directory; relative to the file's directory
    env       variables that are added to the environment

In all but `cwd`, `{prompt}`, `{task}`, `{agent_type}`, `{subprocess_id}` and
`{working_directory}` are replaced. A word stays one word, whatever the prompt holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from cgmem.config import values
from cgmem.config.setting_table import TEMPLATE_KEYS
from cgmem.config.values import Reading
from cgmem.errors import ConfigurationError
from cgmem.text.words import meant, shown

PLACEHOLDERS = ("prompt", "task", "agent_type", "subprocess_id", "working_directory")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Said(NamedTuple):
    """One template value, and where it was found."""

    value: object
    source: str
    """For people: `/home/me/cgmem.yaml: agent_types.engineer.command`, `argument command`."""
    directory: str
    """What a relative `cwd` is relative to."""


class AgentCommand(NamedTuple):
    """A template, checked: the placeholders are still in it."""

    command: tuple[str, ...]
    stdin: str | None = None
    cwd: str | None = None
    """Absolute."""
    env: Mapping[str, str] = MappingProxyType({})

    def filled(self, task: Mapping[str, str]) -> AgentCommand:
        """Return it with the placeholders replaced. `task` has a value for each of them."""
        return AgentCommand(
            tuple(_fill(word, task) for word in self.command),
            None if self.stdin is None else _fill(self.stdin, task),
            self.cwd,
            {name: _fill(value, task) for name, value in self.env.items()},
        )


def agent_command(said: Mapping[str, Said], *, agent_type: str) -> AgentCommand:
    """Check what was said of an agent type's command. Raises `ConfigurationError`.

    `said` is by key (command, stdin, cwd, env), the strongest source's value only.
    """
    if "command" not in said:
        raise ConfigurationError(
            f"no command is configured for agent type {shown(agent_type)}",
            hint=f"write `command: [your-agent, -p, '{{prompt}}']` into cgmem.yaml, in general or"
            f" under agent_types.{agent_type}, or pass command=[…]",
        )
    cwd = said.get("cwd")
    return AgentCommand(
        _words(said["command"]),
        _text(said["stdin"]) if "stdin" in said else None,
        None if cwd is None else values.path(cwd.value, Reading(cwd.source, "file", cwd.directory)),
        _environment(said["env"]) if "env" in said else {},
    )


def check_keys(keys: Sequence[str], known: Sequence[str], source: str) -> None:
    """Raise `ConfigurationError` for a key that is neither a setting nor a template's."""
    for key in keys:
        if key not in known and key not in TEMPLATE_KEYS:
            hint = meant(key, (*known, *TEMPLATE_KEYS))
            raise ConfigurationError(f"{source}: unknown setting {shown(key)}", hint=hint)


def _words(said: Said) -> tuple[str, ...]:
    value = said.value
    if isinstance(value, str):
        import shlex

        try:
            value = shlex.split(value)
        except ValueError as error:
            raise ConfigurationError(
                f"{said.source}: {shown(value)}: {error}", hint="write a list: [program, argument]"
            ) from error
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ConfigurationError(
            f"{said.source}: {shown(value)} is no command", hint="write [program, argument, …]"
        )
    if not value or not value[0]:
        raise ConfigurationError(f"{said.source}: the command is empty", hint="name a program")
    return tuple(_checked(word, said.source) for word in value)


def _text(said: Said) -> str:
    if not isinstance(said.value, str):
        raise ConfigurationError(
            f"{said.source}: {shown(said.value)} is not text", hint="write '{prompt}'"
        )
    return _checked(said.value, said.source)


def _environment(said: Said) -> dict[str, str]:
    value = said.value
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{said.source}: {shown(value)} is no mapping", hint="write NAME: value"
        )
    for name, text in value.items():
        named = isinstance(name, str) and name and not set(name) & {"=", "\0"}
        if not named or not isinstance(text, str):
            raise ConfigurationError(
                f"{said.source}: {shown(name)}: {shown(text)} is no variable",
                hint="write NAME: value, both text",
            )
    return {name: _checked(text, said.source) for name, text in value.items()}


def _checked(text: str, source: str) -> str:
    if "\0" in text:
        raise ConfigurationError(f"{source}: {shown(text)} holds a NUL character")
    for match in _PLACEHOLDER.finditer(text):
        if match[1] not in PLACEHOLDERS:
            raise ConfigurationError(
                f"{source}: {shown(match[0])} stands for nothing",
                hint=meant(match[1], PLACEHOLDERS),
            )
    return text


def _fill(text: str, task: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: task[match[1]], text)
