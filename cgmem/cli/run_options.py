"""The options of `cgmem run`: one table for click and for the quick reader. Without click.

Importing click takes four times as long as starting Python, and nearly every `cgmem run` is a
plain one: known options written out, then the command. Those are read here, as click reads them.
Whatever else there is (help, a mistake, completion, an option in another form) is click's
(docs/decisions/033).
"""

from __future__ import annotations

from collections.abc import Sequence

from cgmem.cli.setting_flags import sentence
from cgmem.config.setting_table import flag_source
from cgmem.shapes import NamedTuple


class Option(NamedTuple):
    """One option."""

    name: str
    """Of the parameter."""
    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    """None: a switch, which takes no value."""
    value: bool = True
    """What a switch sets."""
    default: bool | None = None
    """Of a switch that was not given."""


def _setting(key: str, metavar: str) -> Option:
    return Option(key, (flag_source(key),), sentence(key), metavar)


def _switch(key: str, value: bool, text: str | None = None) -> Option:
    return Option(key, (flag_source(key),), text or sentence(key), None, value)


AGENT_TYPE = Option(
    "agent_type",
    ("--agent-type",),
    "Use this agent type's part of the configuration file.",
    "TYPE",
)
CONFIG = Option(
    "config",
    ("--config",),
    "Read this configuration file (default: cgmem.yaml or .claude-pm/memory.yaml, nearest"
    " upwards).",
    "FILE",
)
OPTIONS = (
    Option("subprocess_id", ("--id",), "Call it this (default: a fresh id).", "ID"),
    AGENT_TYPE,
    _setting("warning", "SIZE"),
    _setting("critical", "SIZE"),
    _setting("max", "SIZE"),
    _setting("swap", "SIZE"),
    _setting("group_name", "NAME"),
    _setting("group_max", "SIZE"),
    _setting("timeout", "SECONDS"),
    _setting("grace", "SECONDS"),
    _switch("keep", True),
    _switch("oom_group", False, "At the hard limit let the kernel end only the largest process."),
    _switch("preflight", False, "Do not check the available memory before the start."),
    _setting("on_stall", "POLICY"),
    _setting("stall_after", "SECONDS"),
    _setting("backend", "NAME"),
    _setting("enforcement", "HOW"),
    CONFIG,
    _setting("log_dir", "DIR"),
    Option("report", ("--report",), "Write the outcome there as JSON.", "FILE|-|fd:N"),
    Option("as_json", ("--json",), "As --report -: JSON on stdout, after CMD's own output."),
    Option("record", ("--record",), "Keep what was seen, tick by tick (cgmem plot).", "FILE"),
    Option("quiet", ("-q", "--quiet"), "No alerts or warnings on stderr.", default=False),
    Option(
        "verbose", ("-v", "--verbose"), "WARNING alerts, the backend, a status line.", default=False
    ),
)


def json_is_a_report(found: dict[str, object]) -> bool:
    """Take `--json` for what it is short for; False where `--report` was given too."""
    if found.pop("as_json", None):
        if found["report"] is not None:
            return False
        found["report"] = "-"
    return True


def quickly_read(arguments: Sequence[str]) -> dict[str, object] | None:
    """Read what follows `run`; None where it is not plain, which is click's to read or refuse."""
    by_flag = {flag: option for option in OPTIONS for flag in option.flags}
    found: dict[str, object] = {option.name: option.default for option in OPTIONS}
    rest = list(arguments)
    while rest and rest[0] != "--" and rest[0].startswith("-"):
        flag, equals, value = rest.pop(0).partition("=")
        option = by_flag.get(flag)
        if option is None or (equals and not flag.startswith("--")):
            return None
        if option.metavar is None:
            if equals:
                return None
            found[option.name] = option.value
        elif equals:
            found[option.name] = value
        elif rest:
            found[option.name] = rest.pop(0)
        else:
            return None
    if rest and rest[0] == "--":
        del rest[0]
    if not rest or not json_is_a_report(found):
        return None
    found["words"] = tuple(rest)
    return found
