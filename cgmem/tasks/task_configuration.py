"""What a Task Tool subprocess may take, and what is started for it (spec, "TaskToolConfiguration").

A value that nobody gives here comes from the environment, then from the configuration file, then
it is the spec's default. An agent type's part goes over the general one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cgmem import selector
from cgmem.config.setting_table import AGENT_TYPES, BY_KEY, TEMPLATE_KEYS
from cgmem.config.settings import Settings, resolve
from cgmem.config.thresholds import MemoryThresholds, given_mb
from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.monitoring import thresholds_of
from cgmem.tasks.agent_command import AgentCommand, Said, agent_command, check_keys
from cgmem.text.words import shown

AgentType = MemoryThresholds | Mapping[str, Any]
"""An agent type's budget: thresholds, or settings and template values by their keys in YAML."""

_CALLED = {
    "warning": "memory_warning_mb",
    "critical": "memory_critical_mb",
    "max": "memory_max_mb",
    "family_max": "family_max_mb",
    "disabled": "enable_memory_monitoring",
    "timeout": "timeout_seconds",
}


class TaskToolConfiguration:
    """The spec's fields, then ours. None means: not set here.

    `timeout_seconds` ends a subprocess; `family_max_mb` bounds what all of them may take together
    (`supervising.family`); `command`, `stdin`, `cwd` and `env` are the template of what is started
    (`tasks.agent_command`); `agent_types` has, by agent type, its `MemoryThresholds` or a mapping
    with the keys of the configuration file (docs/settings.md). Read back, a field has the value
    that is in force, wherever it came from. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        enable_memory_monitoring: bool | None = None,
        memory_warning_mb: float | None = None,
        memory_critical_mb: float | None = None,
        memory_max_mb: float | None = None,
        abort_on_memory_limit: bool | None = None,
        *,
        timeout_seconds: float | None = None,
        family_max_mb: float | None = None,
        command: str | Sequence[str] | None = None,
        stdin: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        agent_types: Mapping[str, AgentType] | None = None,
    ) -> None:
        enabled = enable_memory_monitoring
        self._arguments: dict[str, object] = {
            "disabled": not enabled if isinstance(enabled, bool) else enabled,
            "warning": _size("memory_warning_mb", memory_warning_mb),
            "critical": _size("memory_critical_mb", memory_critical_mb),
            "max": _size("memory_max_mb", memory_max_mb),
            "family_max": _size("family_max_mb", family_max_mb),
            "abort_on_memory_limit": abort_on_memory_limit,
            "timeout": timeout_seconds,
        }
        self._template = _given({"command": command, "stdin": stdin, "cwd": cwd, "env": env})
        self._agent_types = {
            name: _agent_type(name, said) for name, said in (agent_types or {}).items()
        }
        for agent_type in (None, *self._agent_types):  # what is wrong is told at once
            self.settings(agent_type)

    @property
    def enable_memory_monitoring(self) -> bool:
        """Whether subprocesses get a budget, are watched and logged."""
        return not self.settings().disabled

    @property
    def memory_warning_mb(self) -> float:
        """The warning threshold in MB."""
        return self.thresholds().warning_mb

    @property
    def memory_critical_mb(self) -> float:
        """The critical threshold in MB."""
        return self.thresholds().critical_mb

    @property
    def memory_max_mb(self) -> float:
        """The hard limit in MB; infinite where there is none."""
        return self.thresholds().max_mb

    @property
    def abort_on_memory_limit(self) -> bool:
        """Whether a subprocess is ended at its hard limit."""
        return self.settings().abort_on_memory_limit

    @property
    def timeout_seconds(self) -> float | None:
        """Seconds after which a subprocess is ended; None for never."""
        return self.settings().timeout_seconds

    @property
    def family_max_mb(self) -> float | None:
        """What all hard limits together may reach, in MB; None for no such bound."""
        size = self.settings().family_max_bytes
        return None if size is None else size / MB

    def thresholds(self, agent_type: str | None = None) -> MemoryThresholds:
        """Return the thresholds in force for an agent type."""
        return thresholds_of(self.settings(agent_type))

    def settings(
        self,
        agent_type: str | None = None,
        *,
        directory: str | None = None,
        thresholds: MemoryThresholds | None = None,
        timeout_seconds: float | None = None,
    ) -> Settings:
        """Return all settings of one subprocess. Raises `ConfigurationError`.

        The configuration file is looked for from `directory` upwards (None: the working
        directory). `thresholds` and `timeout_seconds` go before everything else.
        """
        own = self._agent_types.get(agent_type or "", {})
        sources = {key: f"{AGENT_TYPES}.{agent_type}.{key}" for key in own}
        arguments = {**self._arguments, **{key: own[key] for key in own if key in BY_KEY}}
        for given in (thresholds and _whole(thresholds), _timeout(timeout_seconds)):
            arguments |= given or {}
            sources |= {key: f"argument {key}" for key in given or {}}
        return resolve(
            arguments,
            argument_source=lambda key: sources.get(key) or _CALLED.get(key, key),
            cwd=directory,
            agent_type=agent_type,
            total_bytes=lambda: selector.system_memory().effective_total_bytes,
        )

    def command(
        self, settings: Settings, agent_type: str, directory: str, argument: object = None
    ) -> AgentCommand:
        """Return the template of what is started for an agent type.

        `argument` is a command given for this one subprocess. Raises `ConfigurationError`.
        """
        said: dict[str, Said] = {}
        file = settings.config_path or ""
        beside = file.rpartition("/")[0] or "/"
        for name in ("", agent_type):
            path = f"{AGENT_TYPES}.{name}." if name else ""
            for key, value in settings.templates.get(name, {}).items():
                said[key] = Said(value, f"{file}: {path}{key}", beside)
        own = self._agent_types.get(agent_type, {})
        for path, template in (("", self._template), (f"{AGENT_TYPES}.{agent_type}.", own)):
            for key in TEMPLATE_KEYS:
                if key in template:
                    said[key] = Said(template[key], f"argument {path}{key}", directory)
        if argument is not None:
            said["command"] = Said(argument, "argument command", directory)
        return agent_command(said, agent_type=agent_type)


def _size(name: str, value: float | None) -> str | None:
    given = given_mb(name, value)
    if given is None:
        return None
    return "max" if given.size is None else f"{given.size}B"


def _given(template: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in template.items() if value is not None}


def _whole(thresholds: MemoryThresholds) -> dict[str, object]:
    """All three, as the object shows them: a budget is not mixed with another's thresholds."""
    if not thresholds.as_arguments():
        return {}
    sizes = zip(("warning", "critical", "max"), thresholds.to_bytes(), strict=True)
    return {key: "max" if size is None else f"{size}B" for key, size in sizes}


def _timeout(seconds: float | None) -> dict[str, object]:
    return {} if seconds is None else {"timeout": seconds}


def _agent_type(name: object, said: object) -> Mapping[str, Any]:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{AGENT_TYPES}: {shown(name)} is no agent type")
    if isinstance(said, MemoryThresholds):
        return _whole(said)
    if not isinstance(said, Mapping):
        raise ConfigurationError(
            f"{AGENT_TYPES}.{name}: {shown(said)} is no budget",
            hint='write MemoryThresholds(…) or {"max": "4G"}',
        )
    check_keys(list(said), list(BY_KEY), f"{AGENT_TYPES}.{name}")
    return _given(said)
