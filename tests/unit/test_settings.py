"""Settings: which source wins, what each kind of value may be, and where it is shown to be from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.config.setting_table import FILE_KEYS, TABLE, flag_source
from cgmem.config.settings import Settings, resolve, rows
from cgmem.config.thresholds import MemoryThresholds
from cgmem.contract import MB
from cgmem.errors import ConfigurationError

GB = 1024 * MB
NOWHERE = "/nonexistent"


def resolved(
    arguments: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Settings:
    """Resolve as the CLI does, with nothing from this machine's environment and files."""
    options.setdefault("cwd", NOWHERE)
    return resolve(arguments, environ=environ or {}, argument_source=flag_source, **options)


def from_file(path: Path, text: str, **options: Any) -> Settings:
    """Resolve with a configuration file of that text."""
    file = path / "cgmem.yaml"
    file.write_text(text)
    return resolved(config=str(file), **options)


def refusal(*args: Any, **options: Any) -> ConfigurationError:
    """Return the error that resolving ends with."""
    with pytest.raises(ConfigurationError) as caught:
        resolved(*args, **options)
    return caught.value


def test_the_defaults_are_the_specs() -> None:
    """With nothing set anywhere, every value is the documented default and says so."""
    settings = resolved()

    assert settings[:8] == (GB, 2 * GB, 4 * GB, 0, None, None, "auto", None)
    assert settings.enforcement == "best-effort"
    assert settings.oom_group is True
    assert settings.accounting == "non-reclaimable"
    assert (settings.tick_seconds, settings.grace_seconds) == (2.0, 5.0)
    assert settings.timeout_seconds is None
    assert settings.log_dir is None
    assert (settings.preflight, settings.abort_on_memory_limit) == (True, True)
    assert (settings.on_stall, settings.stall_after_seconds) == ("release", 10.0)
    assert (settings.keep, settings.disabled) == (False, False)
    assert settings.family_max_bytes is None
    assert settings.templates == {}
    assert settings.config_path is None
    assert set(settings.origins.values()) == {"default"}
    assert set(settings.origins) == {setting.key for setting in TABLE}


def test_two_resolutions_share_nothing_that_changes() -> None:
    """Settings of one subprocess never leak into another's."""
    first = resolved({"max": "512M"})

    assert resolved().max_bytes == 4 * GB
    assert first.origins["max"] == "--max"
    assert resolved().origins["max"] == "default"


def test_the_same_again_is_not_worked_out_again(tmp_path: Path) -> None:
    """Hundreds start alike; whatever is not as it was is seen at once."""
    file = tmp_path / "cgmem.yaml"
    file.write_text("tick: 3\n")
    arguments: dict[str, object] = {"max": "512M", "grace": 1, "log_dir": "logs"}
    environ = {"CGMEM_STALL_AFTER": "7"}

    def settings(**options: Any) -> Settings:
        found: dict[str, Any] = {"cwd": str(tmp_path), **options}
        return resolve(arguments, environ=environ, **found)

    first = settings()
    assert settings() is first

    environ["CGMEM_STALL_AFTER"] = "8"
    assert settings().stall_after_seconds == 8
    arguments["max"] = "600M"
    assert settings().max_bytes == 600 * MB
    arguments["grace"] = True
    with pytest.raises(ConfigurationError, match="True"):
        settings()
    arguments["grace"] = 1
    file.write_text("tick: 3.5\n")
    assert settings().tick_seconds == 3.5
    assert settings(cwd="/nonexistent").log_dir == "/nonexistent/logs"
    assert settings(cwd="/nonexistent").tick_seconds == 2


def test_a_share_of_a_machine_that_grows() -> None:
    """A percentage is of what the machine has now."""
    sizes = iter([4 * GB, 8 * GB])

    found = [resolved({"max": "50%"}, total_bytes=lambda: next(sizes)) for _ in range(2)]

    assert [settings.max_bytes for settings in found] == [2 * GB, 4 * GB]


def test_a_file_that_says_almost_the_same_is_read_anew(tmp_path: Path) -> None:
    """To Python 1 is true; to a configuration file it is no switch."""
    assert from_file(tmp_path, "keep: true").keep
    with pytest.raises(ConfigurationError, match="keep"):
        from_file(tmp_path, "keep:  1  ")


def test_the_stronger_source_wins(tmp_path: Path) -> None:
    """File over default, environment over file, argument over environment; each says so."""
    text = "max: 1G\nswap: 1G\nbackend: psutil"
    environ = {"CLAUDE_PM_MEMORY_MAX_MB": "512", "CGMEM_SWAP": "64M"}
    settings = from_file(tmp_path, text, environ=environ, arguments={"max": "256M"})

    assert settings.max_bytes == 256 * MB
    assert settings.swap_max_bytes == 64 * MB
    assert settings.backend == "psutil"
    assert settings.origins["max"] == "--max"
    assert settings.origins["swap"] == "CGMEM_SWAP"
    assert settings.origins["backend"] == f"{tmp_path}/cgmem.yaml: backend"
    assert settings.origins["critical"] == "derived from max (--max)"


def test_the_specs_variables_are_read() -> None:
    """The four environment variables of the spec do what it says, in MB."""
    settings = resolved(
        environ={
            "CLAUDE_PM_MEMORY_WARNING_MB": "100",
            "CLAUDE_PM_MEMORY_CRITICAL_MB": "200.5",
            "CLAUDE_PM_MEMORY_MAX_MB": "4G",
            "CLAUDE_PM_DISABLE_MEMORY_MONITOR": "true",
        }
    )

    assert settings.warning_bytes == 100 * MB
    assert settings.critical_bytes == 200 * MB + MB // 2
    assert settings.max_bytes == 4 * GB
    assert settings.disabled is True


@pytest.mark.parametrize(
    ("word", "disabled"),
    [
        ("1", True), ("true", True), ("YES", True), (" on ", True),
        ("0", False), ("False", False), ("no", False), ("off", False), ("", False), (" ", False),
    ],
)  # fmt: skip
def test_the_words_that_disable(word: str, disabled: bool) -> None:
    """1/true/yes/on disable, 0/false/no/off and empty don't, in any case."""
    assert resolved(environ={"CLAUDE_PM_DISABLE_MEMORY_MONITOR": word}).disabled is disabled


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CLAUDE_PM_MEMORY_MAX_MB", "lots"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "12XB"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "-512"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "0"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "7"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "nan"),
        ("CLAUDE_PM_MEMORY_MAX_MB", "1e3"),
        ("CLAUDE_PM_MEMORY_WARNING_MB", "max"),
        ("CLAUDE_PM_MEMORY_CRITICAL_MB", "infinity"),
        ("CLAUDE_PM_DISABLE_MEMORY_MONITOR", "maybe"),
        ("CLAUDE_PM_DISABLE_MEMORY_MONITOR", "2"),
        ("CGMEM_SWAP", "-1"),
        ("CGMEM_TICK", "0"),
        ("CGMEM_TICK", "fast"),
        ("CGMEM_GRACE", "-1"),
        ("CGMEM_GRACE", "5s"),
        ("CGMEM_TIMEOUT", "0"),
        ("CGMEM_TIMEOUT", "nan"),
        ("CGMEM_STALL_AFTER", "1e9"),
        ("CGMEM_STALL_AFTER", "99999999999999999"),
        ("CGMEM_BACKEND", "rlimit"),
        ("CGMEM_BACKEND", "CGROUP2"),
        ("CGMEM_ENFORCEMENT", "none"),
        ("CGMEM_ACCOUNTING", "rss"),
        ("CGMEM_ON_STALL", "kill"),
        ("CGMEM_OOM_GROUP", "ja"),
        ("CGMEM_CONFIG", "/nonexistent/cgmem.yaml"),
        ("CGMEM_CONFIG", "/"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str) -> None:
    """The error begins with the variable, and says what to write."""
    refused = refusal(environ={variable: text})

    assert str(refused).startswith(f"{variable}: ")
    assert refused.hint


def test_an_empty_variable_is_unset() -> None:
    """`VAR= command` takes a value away, as shells and the XDG rules have it."""
    environ = {setting.variable: "" for setting in TABLE} | {"CGMEM_CONFIG": ""}

    assert resolved(environ=environ) == resolved()


def test_an_overridden_variable_is_not_looked_at() -> None:
    """A broken variable does no harm where a flag has decided."""
    settings = resolved({"max": "1G"}, environ={"CLAUDE_PM_MEMORY_MAX_MB": "lots"})

    assert settings.max_bytes == GB


def test_an_argument_of_none_was_not_given() -> None:
    """A flag that was left out leaves the weaker sources in force."""
    assert resolved({"max": None}, environ={"CLAUDE_PM_MEMORY_MAX_MB": "512"}).max_bytes == 512 * MB


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max", "max", None),
        ("swap", "max", None),
        ("swap", 0, 0),
        ("swap", "0", 0),
        ("timeout", 30, 30.0),
        ("timeout", "0.5", 0.5),
        ("timeout", "infinity", None),
        ("grace", 0, 0.0),
        ("oom_group", False, False),
        ("on_stall", "hold", "hold"),
        ("log_dir", "/logs", "/logs"),
        ("log_dir", "logs", "/nonexistent/logs"),
        ("log_dir", Path("logs"), "/nonexistent/logs"),
    ],
)
def test_an_argument_is_taken(key: str, value: object, expected: object) -> None:
    """Text as from a flag and typed values as from Python both count."""
    settings = resolved({key: value})
    field = next(setting.field for setting in TABLE if setting.key == key)

    assert getattr(settings, field) == expected
    assert settings.origins[key] == flag_source(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max", "512"), ("max", 512), ("max", 512.5), ("max", -1), ("max", True), ("max", b"1G"),
        ("max", float("nan")), ("max", "80%"), ("max", ""), ("max", 0), ("max", "7M"),
        ("max", "4096P"), ("max", 10**400), ("critical", "max"), ("warning", "max"),
        ("timeout", True), ("timeout", "5m"), ("timeout", float("inf")), ("timeout", 10**400),
        ("timeout", []), ("tick", float("nan")), ("keep", "yes"), ("keep", 1),
        ("backend", 5), ("log_dir", ""), ("log_dir", 5), ("log_dir", "a\0b"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(key: str, value: object) -> None:
    """The error begins with what the caller calls the argument, and says what to write."""
    refused = refusal({key: value})

    assert str(refused).startswith(f"{flag_source(key)}: ")
    assert refused.hint


@pytest.mark.parametrize("value", [-1, -0.5, float("nan")])
def test_what_is_no_amount_is_not_told_to_get_a_unit(value: float) -> None:
    """A negative number or nan is no size, with or without a unit."""
    assert "is not a size" in str(refusal({"max": value}))


def test_an_unknown_name_lists_the_known() -> None:
    """A backend that does not exist gets the list, and a typo the one that was meant."""
    assert "auto, cgroup2, systemd, psutil" in str(refusal({"backend": "rlimit"}))
    assert refusal({"backend": "cgroupv2"}).hint == "did you mean cgroup2?"
    assert refusal({"mx": "1G"}).hint == "did you mean max?"


def test_known_words_are_listed_once() -> None:
    """A word that is like none gets the list in the message alone."""
    refused = refusal({"backend": "zzz"})

    assert "cgroup2" in str(refused)
    assert "cgroup2" not in str(refused.hint)


@pytest.mark.parametrize("value", [-1, "-1", "-0.5"])
def test_negative_seconds_are_out_of_range(value: object) -> None:
    """As a number and as text; the hint has the range."""
    refused = refusal({"timeout": value})

    assert "seconds is out of range" in str(refused)
    assert refused.hint == "write a number of seconds from 0.001 to 31536000, or infinity"
    assert str(refusal({"timeout": "inf"}).hint).endswith(", or infinity")
    assert "infinity" not in str(refusal({"grace": "inf"}).hint)


def test_a_shared_budget_has_a_floor() -> None:
    """What no hard limit fits into is refused, as a hard limit is; max is none at all."""
    assert "is too small, the least is 8M" in str(refusal({"family_max": "0"}))
    assert "group budget of 0" in str(refusal({"group_name": "a", "group_max": "0"}))
    assert resolved({"family_max": "8M"}).family_max_bytes == 8 * MB
    assert resolved({"family_max": "max"}).family_max_bytes is None


def test_contradictions_across_sources_name_both(tmp_path: Path) -> None:
    """A warning in the file at or above a hard limit on the command line names both places."""
    with pytest.raises(ConfigurationError, match="is not below") as caught:
        from_file(tmp_path, "warning: 1G", arguments={"max": "512M"})

    assert f"1G ({tmp_path}/cgmem.yaml: warning)" in str(caught.value)
    assert "512M (--max)" in str(caught.value)


def test_aborting_on_a_stall_contradicts_never_aborting() -> None:
    """abort_on_memory_limit=False with on_stall=abort names both sources, in either order."""
    refused = refusal({"abort_on_memory_limit": False}, environ={"CGMEM_ON_STALL": "abort"})

    assert "CGMEM_ON_STALL" in str(refused)
    assert "argument abort_on_memory_limit" in str(refused)
    assert resolved({"on_stall": "abort"}).on_stall == "abort"
    assert not resolved({"abort_on_memory_limit": False}).abort_on_memory_limit


def test_a_percentage_asks_for_the_total_and_nothing_else_does() -> None:
    """The machine's memory is looked at only where a percentage is used."""
    asked: list[int] = []

    def total() -> int:
        asked.append(1)
        return 10 * GB

    resolved({"max": "1G", "swap": "max"}, total_bytes=total)
    not_asked = not asked

    assert not_asked
    assert resolved({"max": "80%"}, total_bytes=total).max_bytes == 8 * GB
    assert asked == [1]


def test_a_file_is_found_upwards_from_the_working_directory(tmp_path: Path) -> None:
    """Without --config and CGMEM_CONFIG the nearest file counts; with them, only the named one."""
    below = tmp_path / "src"
    below.mkdir()
    (tmp_path / "cgmem.yaml").write_text("max: 1G\nlog_dir: logs")
    named = tmp_path / "other.yaml"
    named.write_text("max: 2G")
    found = resolved(cwd=str(below))

    assert found.max_bytes == GB
    assert found.log_dir == f"{tmp_path}/logs"
    assert found.config_path == f"{tmp_path}/cgmem.yaml"
    by_variable = resolved(cwd=str(tmp_path), environ={"CGMEM_CONFIG": "other.yaml"})
    assert by_variable.max_bytes == 2 * GB
    assert resolved(cwd=str(below), config=named).max_bytes == 2 * GB
    assert resolved(cwd=str(below), config="/dev/null").max_bytes == 4 * GB


def test_a_missing_named_file_names_who_named_it() -> None:
    """--config with a path that is not there is an error, not the defaults."""
    assert str(refusal(config="none.yaml")).startswith("--config: can't read /nonexistent/none")


def test_a_removed_working_directory_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that was removed the defaults hold, and only a relative path is refused."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert resolved(cwd=None).max_bytes == 4 * GB
    assert "working directory that is gone" in str(refusal({"log_dir": "logs"}, cwd=None))


def test_the_home_directory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading ~/ is the home directory, which no shell expands in a file."""
    monkeypatch.setenv("HOME", "/home/somebody")

    assert resolved({"log_dir": "~/logs"}).log_dir == "/home/somebody/logs"


def test_an_agent_types_part_counts_over_the_general_one(tmp_path: Path) -> None:
    """An agent type's values win over the file's general ones and lose to the environment."""
    text = "max: 2G\ngrace: 1\nagent_types: {engineer: {max: 1G, swap: max}, qa: {max: 512M}}"
    engineer = from_file(tmp_path, text, agent_type="engineer")
    stranger = from_file(tmp_path, text, agent_type="poet")
    environ = {"CLAUDE_PM_MEMORY_MAX_MB": "256"}

    assert (engineer.max_bytes, engineer.swap_max_bytes) == (GB, None)
    assert engineer.critical_bytes == GB // 2
    assert engineer.grace_seconds == 1.0
    assert engineer.origins["max"] == f"{tmp_path}/cgmem.yaml: agent_types.engineer.max"
    assert stranger.max_bytes == 2 * GB
    assert from_file(tmp_path, text, agent_type="qa", environ=environ).max_bytes == 256 * MB
    assert engineer.agent_types == {
        "engineer": {"max": GB, "swap": None},
        "qa": {"max": 512 * MB},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max: 512", "max: 512 has no unit"),
        ("max: true", "max: True is not a size"),
        ("max: on", "max: 'on' is not a size"),
        ("max: 012", "max: '012' means different things"),
        ("timeout: 12:30:45", "timeout: '12:30:45' means different things"),
        ("timeout: '30'", "timeout: '30' is not a number of seconds"),
        ("timeout: 0", "timeout: 0 seconds is out of range"),
        ("timeout: true", "timeout: True is not a number of seconds"),
        ("keep: on", "keep: 'on' is neither true nor false"),
        ("keep: 1", "keep: 1 is neither true nor false"),
        ("keep: 'true'", "keep: 'true' is neither true nor false"),
        ("backend: true", "backend: True is none of auto, cgroup2, systemd, psutil"),
        ("enforcement: none", "enforcement: 'none' is none of"),
        ("log_dir: 5", "log_dir: 5 is not a path"),
        ("disabled: true", "unknown setting 'disabled'"),
        ("agent_types: {qa: {max: 12XB}}", "agent_types.qa.max: '12XB' is not a size"),
    ],
)
def test_a_wrong_value_in_the_file_names_path_and_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    """Types are the file's own: a word is no truth value, quoted digits are no number."""
    with pytest.raises(ConfigurationError) as caught:
        from_file(tmp_path, text)

    assert str(caught.value).startswith(f"{tmp_path}/cgmem.yaml")
    assert problem in str(caught.value)
    assert caught.value.hint


def test_enforcement_off_needs_no_quotes(tmp_path: Path) -> None:
    """`off` is the word that this setting knows, not YAML 1.1's false."""
    assert from_file(tmp_path, "enforcement: off").enforcement == "off"


def test_memory_thresholds_leave_the_rest_to_the_configuration() -> None:
    """What a MemoryThresholds leaves out comes from the weaker sources."""
    settings = resolved(
        MemoryThresholds(warning_mb=100).as_arguments(),
        environ={"CLAUDE_PM_MEMORY_MAX_MB": "512"},
    )

    assert (settings.warning_bytes, settings.max_bytes) == (100 * MB, 512 * MB)


def test_rows_show_every_setting_as_people_write_it(tmp_path: Path) -> None:
    """Each row has name, value, origin and help; agent types follow."""
    text = "max: 1.5G\ntimeout: 0.5\nagent_types: {qa: {max: max, keep: true}}"
    shown = {row.name: row for row in rows(from_file(tmp_path, text, arguments={"swap": "max"}))}

    assert [*shown][: len(TABLE)] == [setting.key for setting in TABLE]
    assert shown["max"].value == "1.5G"
    assert shown["max"].origin == f"{tmp_path}/cgmem.yaml: max"
    assert shown["warning"].value == "384M"
    assert (shown["swap"].value, shown["swap"].origin) == ("max", "--swap")
    assert (shown["tick"].value, shown["timeout"].value) == ("2", "0.5")
    assert (shown["keep"].value, shown["log_dir"].value) == ("false", "")
    assert shown["agent_types.qa.max"].value == "max"
    assert shown["agent_types.qa.keep"].value == "true"
    assert shown["agent_types.qa.max"].origin == f"{tmp_path}/cgmem.yaml: agent_types.qa.max"
    assert all(row.help for row in shown.values())


def test_an_endless_timeout_is_shown_as_it_is_written() -> None:
    """The value that a row shows for no timeout is one that the setting takes."""
    shown = {row.name: row.value for row in rows(resolved())}

    assert resolved({"timeout": shown["timeout"]}).timeout_seconds is None


def test_the_table_names_each_setting_once() -> None:
    """Keys, fields, variables and flags are each unique, and every field is a setting's."""
    for column in ("key", "field", "variable"):
        names = [getattr(setting, column) for setting in TABLE]
        assert len(set(names)) == len(names)
    assert {setting.field for setting in TABLE} == set(Settings._fields) - {
        "agent_types", "config_path", "groups", "origins", "templates",
    }  # fmt: skip
    assert "disabled" not in FILE_KEYS


@given(
    st.dictionaries(
        st.sampled_from([setting.variable for setting in TABLE]),
        st.one_of(st.text(max_size=12), st.sampled_from(["1", "512", "1G", "max", "on", "abort"])),
    )
)
def test_any_environment_resolves_or_is_refused(environ: dict[str, str]) -> None:
    """No environment makes resolving fail in another way, or gives thresholds out of order."""
    try:
        settings: Settings | None = resolved(environ=environ)
    except ConfigurationError as err:
        hint = err.hint
        settings = None

    if settings is None:
        assert hint
        return
    assert 0 < settings.warning_bytes < settings.critical_bytes
    assert settings.max_bytes is None or settings.critical_bytes < settings.max_bytes


def test_nothing_heavy_is_imported_without_a_file() -> None:
    """Starting a subprocess with the defaults loads no YAML and no pathlib."""
    code = (
        "import sys; from cgmem.config.settings import resolve; resolve(cwd='/nonexistent');"
        "print(sorted({'yaml', 'pathlib', 'difflib', 'click', 'psutil', 'dataclasses', 'inspect'}"
        " & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=Path(__file__).parents[2], env={},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_templates_are_shown(tmp_path: Path) -> None:
    """`cgmem config` shows the command templates of the file, too."""
    text = "command: [a, '{prompt}']\nagent_types:\n  qa:\n    env: {A: b}\n"
    shown = {row.name: (row.value, row.origin) for row in rows(from_file(tmp_path, text))}

    file = tmp_path / "cgmem.yaml"
    assert shown["command"] == ("['a', '{prompt}']", f"{file}: command")
    assert shown["agent_types.qa.env"] == ("{'A': 'b'}", f"{file}: agent_types.qa.env")


GROUPS = "groups:\n  build: 6G\nagent_types:\n  compiler: {group_name: build, max: 4G}\n"


def test_a_groups_budget_from_the_file(tmp_path: Path) -> None:
    """Whoever names a group has the budget that the file gives it, and it says so."""
    settings = from_file(tmp_path, GROUPS, agent_type="compiler")

    assert (settings.group_name, settings.group_max_bytes) == ("build", 6 * GB)
    assert settings.origins["group_max"] == f"{tmp_path}/cgmem.yaml: groups.build"
    assert from_file(tmp_path, GROUPS).group_name is None
    shown = {row.name: row.value for row in rows(settings)}
    assert shown["groups.build"] == "6G"


def test_a_groups_budget_from_elsewhere(tmp_path: Path) -> None:
    """A size that is given beats the file's; another group's is not taken."""
    given = {"group_name": "build", "group_max": "2G"}

    assert from_file(tmp_path, GROUPS, arguments=given).group_max_bytes == 2 * GB
    assert from_file(tmp_path, GROUPS, arguments={"group_name": "x"}).group_max_bytes is None


def test_contradictions_about_a_group() -> None:
    """A budget without a name, and a budget where nothing is to be enforced."""
    assert "no group is named" in str(refusal({"group_max": "1G"}))
    error = refusal({"group_name": "build", "enforcement": "off"})
    assert "--group" in str(error)
    assert "--enforcement" in str(error)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a.scope", "a\n", "x" * 65, 7])
def test_names_of_groups(name: object) -> None:
    """A group's name becomes part of a path and of a unit's name: plain words only."""
    assert "can't be the name of a group" in str(refusal({"group_name": name}))


def test_names_of_groups_in_the_file(tmp_path: Path) -> None:
    """They are checked where they are written."""
    with pytest.raises(ConfigurationError, match=r"groups\.a b"):
        from_file(tmp_path, "groups:\n  a b: 1G\n")
