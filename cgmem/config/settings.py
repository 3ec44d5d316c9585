"""What a subprocess's budget and supervision shall be, and where each value came from.

Order: default < configuration file (an agent type's part over the general one) < environment <
argument. `config.setting_table` lists the settings, `config.thresholds` says how the three
thresholds follow each other. A value that a stronger source overrides is not looked at, except in
the file, whose every value is checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from cgmem.config import values
from cgmem.config.config_file import ConfigFile, find_config, read_config
from cgmem.config.setting_table import (
    AGENT_TYPES,
    BY_KEY,
    CONFIG_FLAG,
    CONFIG_VARIABLE,
    FILE_KEYS,
    GROUPS,
    TABLE,
    TEMPLATE_KEYS,
    THRESHOLD_KEYS,
    argument_source,
)
from cgmem.config.thresholds import Given, check_size, derive
from cgmem.config.values import Reading
from cgmem.contract import StallPolicy
from cgmem.errors import ConfigurationError
from cgmem.shapes import NamedTuple
from cgmem.text.sizes import format_size
from cgmem.text.words import meant, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal


class Settings(NamedTuple):
    """Every setting, checked. Bytes are `int` (None = "max"), times `float` seconds."""

    warning_bytes: int
    critical_bytes: int
    max_bytes: int | None
    swap_max_bytes: int | None
    group_name: str | None
    group_max_bytes: int | None
    """None = what the group has already."""
    backend: Literal["auto", "cgroup2", "systemd", "psutil"]
    allow_move: bool | None
    """None = where the rule finds it harmless."""
    enforcement: Literal["required", "best-effort", "off"]
    oom_group: bool
    accounting: Literal["non-reclaimable", "current"]
    tick_seconds: float
    grace_seconds: float
    timeout_seconds: float | None
    log_dir: str | None
    """Absolute; None = nobody said."""
    preflight: bool
    abort_on_memory_limit: bool
    on_stall: StallPolicy
    stall_after_seconds: float
    keep: bool
    family_max_bytes: int | None
    disabled: bool
    agent_types: Mapping[str, Mapping[str, object]]
    """What the file says for each agent type: parsed values by key."""
    templates: Mapping[str, Mapping[str, str | list[str] | dict[str, str]]]
    """The file's command templates by agent type, unchecked; "" for all (`tasks.agent_command`)."""
    groups: Mapping[str, int | None]
    """The file's budgets of groups, by name."""
    config_path: str | None
    """The configuration file that was read."""
    origins: Mapping[str, str]
    """Where each value came from, by key: `default`, `--max`, `derived from max (--max)`, …"""


class Row(NamedTuple):
    """One line of `cgmem config`."""

    name: str
    value: str
    origin: str
    help: str


class _Found(NamedTuple):
    value: Any
    source: str


_DEFAULTS: dict[str, Any] = {setting.field: setting.default for setting in TABLE}
_VARIABLES = frozenset(setting.variable for setting in TABLE)
_DEFAULT_ORIGINS = {setting.key: "default" for setting in TABLE}


def resolve(
    arguments: Mapping[str, object] | None = None,
    *,
    argument_source: Callable[[str], str] = argument_source,
    config: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    total_bytes: Callable[[], int] | None = None,
    agent_type: str | None = None,
) -> Settings:
    """Return the settings for a subprocess of `agent_type`.

    `arguments` are by key as in the table; None means not given. `argument_source` says how the
    caller calls them (`flag_source` for the CLI). `config` names the file; else CGMEM_CONFIG, else
    the nearest one upwards from `cwd`. `environ` and `cwd` are this process's own by default. An
    empty variable counts as unset. `total_bytes` is asked for only when a percentage is used.
    Raises `ConfigurationError`.
    """
    global _last  # noqa: PLW0603  (one subprocess after another is started alike)
    if not isinstance(agent_type, str | None):
        raise ConfigurationError(
            f"agent_type: {shown(agent_type)} is not text", hint="write its name, as 'engineer'"
        )
    environ = os.environ if environ is None else environ
    here = _here() if cwd is None else cwd
    given = dict(arguments or {})
    inputs = _Inputs(
        given,
        tuple(map(type, given.values())),
        _set_variables(environ),
        _config_file(config, environ, here),
        here,
        os.environ.get("HOME"),
        agent_type,
        argument_source,
    )
    last = _last
    # The very same reading of a file: to `==` one that says True says 1.
    if last is not None and last[0] == inputs and last[0].file is inputs.file:
        return last[1]
    total = _Total(total_bytes)
    settings = _resolved(inputs, total_bytes and total)
    if not total.asked:
        _last = inputs, settings
    return settings


class _Inputs(NamedTuple):
    """All that settings come of, but for the machine's size."""

    arguments: Mapping[str, object]
    types: tuple[type, ...]
    """Of the arguments: True is not 1."""
    variables: Mapping[str, str]
    file: ConfigFile | None
    here: str
    home: str | None
    """What `~` in a path means."""
    agent_type: str | None
    argument_source: Callable[[str], str]


_last: tuple[_Inputs, Settings] | None = None


class _Total:
    """Says how large the machine is, and remembers that it was asked: it can change."""

    def __init__(self, total_bytes: Callable[[], int] | None) -> None:
        self._total_bytes = total_bytes
        self.asked = False

    def __call__(self) -> int:
        assert self._total_bytes is not None
        self.asked = True
        return self._total_bytes()


def _resolved(inputs: _Inputs, total_bytes: Callable[[], int] | None) -> Settings:
    found: dict[str, _Found] = {}
    agent_types: dict[str, dict[str, _Found]] = {}
    groups: dict[str, _Found] = {}
    if inputs.file is not None:
        agent_types = _from_file(inputs.file, found, total_bytes)
        groups = _groups_of(inputs.file, total_bytes)
        found.update(agent_types.get(inputs.agent_type or "", {}))
    _from_environment(inputs, found, total_bytes)
    _from_arguments(inputs, found, total_bytes)
    _find_group(found, groups)
    _check_together(found)
    return _settings(found, agent_types, groups, inputs.file)


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  (pathlib costs 10 ms at start-up)
    except FileNotFoundError:  # the working directory was removed: nothing lies above it
        return ""


def _config_file(
    config: str | os.PathLike[str] | None, environ: Mapping[str, str], here: str
) -> ConfigFile | None:
    named, source = (os.fspath(config), CONFIG_FLAG) if config is not None else (None, "")
    if named is None and (variable := environ.get(CONFIG_VARIABLE)):
        named, source = variable, CONFIG_VARIABLE
    if named is None:
        path = find_config(here)
        return None if path is None else _read(path)
    return _read(values.path(named, Reading(source, "argument", here)), source)


def _read(path: str, source: str | None = None) -> ConfigFile:
    return read_config(
        path, known=FILE_KEYS, nested=AGENT_TYPES, templates=TEMPLATE_KEYS, source=source
    )


def _from_file(
    file: ConfigFile, found: dict[str, _Found], total_bytes: Callable[[], int] | None
) -> dict[str, dict[str, _Found]]:
    directory = file.path.rpartition("/")[0] or "/"

    def parsed(said: Mapping[str, object], where: str) -> dict[str, _Found]:
        result = {}
        for key, value in said.items():
            reading = Reading(f"{where}{key}", "file", directory, total_bytes)
            result[key] = _Found(BY_KEY[key].parse(value, reading), reading.source)
        return result

    found.update(parsed(file.values, f"{file.path}: "))
    return {
        name: parsed(said, f"{file.path}: {AGENT_TYPES}.{name}.")
        for name, said in file.agent_types.items()
    }


def _groups_of(file: ConfigFile, total_bytes: Callable[[], int] | None) -> dict[str, _Found]:
    found = {}
    for name, value in file.groups.items():
        reading = Reading(f"{file.path}: {GROUPS}.{name}", "file", "", total_bytes)
        values.group_name(name, reading)
        found[name] = _Found(values.size(value, reading), reading.source)
    return found


def _find_group(found: dict[str, _Found], groups: Mapping[str, _Found]) -> None:
    """A group that has its budget in the file need not be given one."""
    name, limit = found.get("group_name"), found.get("group_max")
    if name is not None and limit is None and name.value in groups:
        found["group_max"] = groups[name.value]
    if name is None and limit is not None:
        raise ConfigurationError(
            f"{limit.source} is a group's budget, but no group is named",
            hint="name it with --group, CGMEM_GROUP or group_name",
        )


def _set_variables(environ: Mapping[str, str]) -> dict[str, str]:
    present = _VARIABLES.intersection(environ)  # looking for each costs three times as much
    return {name: environ.get(name, "") for name in present}


def _from_environment(
    inputs: _Inputs, found: dict[str, _Found], total_bytes: Callable[[], int] | None
) -> None:
    for setting in TABLE if inputs.variables else ():
        text = inputs.variables.get(setting.variable, "")
        if text.strip() and inputs.arguments.get(setting.key) is None:
            reading = Reading(setting.variable, "environment", inputs.here, total_bytes)
            found[setting.key] = _Found(setting.parse(text, reading), setting.variable)


def _from_arguments(
    inputs: _Inputs, found: dict[str, _Found], total_bytes: Callable[[], int] | None
) -> None:
    for key, value in inputs.arguments.items():
        if key not in BY_KEY:
            raise ConfigurationError(f"unknown setting {shown(key)}", hint=meant(key, BY_KEY))
        if value is not None:
            source = inputs.argument_source(key)
            reading = Reading(source, "argument", inputs.here, total_bytes)
            found[key] = _Found(BY_KEY[key].parse(value, reading), reading.source)


def _check_together(found: Mapping[str, _Found]) -> None:
    for shared in ("family_max", "group_max"):
        if budget := found.get(shared):
            check_size(shared, Given(*budget))
    group, how = found.get("group_name"), found.get("enforcement")
    if group and how and how.value == "off":
        raise ConfigurationError(
            f"a group ({group.source}) is a budget, but enforcement is off ({how.source})",
            hint="leave one of the two out",
        )
    aborts, policy = found.get("abort_on_memory_limit"), found.get("on_stall")
    if aborts and policy and not aborts.value and policy.value == "abort":
        raise ConfigurationError(
            f"on_stall is abort ({policy.source}), but abort_on_memory_limit is false"
            f" ({aborts.source})",
            hint="let on_stall be release, freeze or hold, or allow aborting",
        )


def _settings(
    found: Mapping[str, _Found],
    agent_types: Mapping[str, Mapping[str, _Found]],
    groups: Mapping[str, _Found],
    file: ConfigFile | None,
) -> Settings:
    thresholds, origins = derive(
        *(Given(*found[key]) if key in found else None for key in THRESHOLD_KEYS)
    )
    fields, sources = _DEFAULTS.copy(), _DEFAULT_ORIGINS.copy()
    for key, (value, source) in found.items():
        fields[BY_KEY[key].field] = value
        sources[key] = source
    fields.update(thresholds._asdict())
    sources.update(origins)
    return Settings(
        **fields,
        agent_types={
            name: {key: value.value for key, value in budget.items()}
            for name, budget in agent_types.items()
        },
        templates=file.templates if file else {},
        groups={name: limit.value for name, limit in groups.items()},
        config_path=file and file.path,
        origins=sources,
    )


_GROUP_HELP = "what a group's subprocesses may take together"
_TEMPLATE_HELP = "what the Task Tool helper starts (docs/task-tool.md)"


def rows(settings: Settings) -> Iterator[Row]:
    """Yield each setting as people write it, where it came from, and what it does."""
    for setting in TABLE:
        value = _written(setting.key, getattr(settings, setting.field))
        yield Row(setting.key, value, settings.origins[setting.key], setting.help)
    for name, budget in settings.agent_types.items():
        for key, parsed in budget.items():
            path = f"{AGENT_TYPES}.{name}.{key}"
            origin = f"{settings.config_path}: {path}"
            yield Row(path, _written(key, parsed), origin, BY_KEY[key].help)
    for name, limit in settings.groups.items():
        path = f"{GROUPS}.{name}"
        yield Row(path, format_size(limit), f"{settings.config_path}: {path}", _GROUP_HELP)
    for name, template in settings.templates.items():
        for key, said in template.items():
            path = f"{AGENT_TYPES}.{name}.{key}" if name else key
            origin = f"{settings.config_path}: {path}"
            yield Row(path, said if isinstance(said, str) else str(said), origin, _TEMPLATE_HELP)


def _written(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if key == "group_max" and value is None:
        return ""
    if BY_KEY[key].field.endswith("_bytes"):
        return format_size(value)
    if value is None:
        return "infinity" if key == "timeout" else ""
    return f"{value:g}" if isinstance(value, float) else str(value)
