"""TaskToolConfiguration: the spec's fields and defaults, and who goes before whom."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import MB
from cgmem.errors import ConfigurationError
from cgmem.monitoring import MemoryThresholds
from cgmem.task_tool import TaskToolConfiguration

SPEC_FIELDS = {
    "enable_memory_monitoring": True,
    "memory_warning_mb": 1024,
    "memory_critical_mb": 2048,
    "memory_max_mb": 4096,
    "abort_on_memory_limit": True,
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file above, no variable."""
    monkeypatch.chdir(tmp_path)
    for name in ("WARNING_MB", "CRITICAL_MB", "MAX_MB"):
        monkeypatch.delenv(f"CLAUDE_PM_MEMORY_{name}", raising=False)


def fields(config: TaskToolConfiguration) -> dict[str, Any]:
    """The spec's fields as read back."""
    return {name: getattr(config, name) for name in SPEC_FIELDS}


def test_the_specs_fields_and_defaults() -> None:
    """With nothing set, and with the spec's example, every field has the documented value."""
    assert fields(TaskToolConfiguration()) == SPEC_FIELDS
    assert fields(TaskToolConfiguration(**SPEC_FIELDS)) == SPEC_FIELDS  # type: ignore[arg-type]  # by name
    assert list(inspect.signature(TaskToolConfiguration).parameters)[:5] == list(SPEC_FIELDS)
    assert TaskToolConfiguration().family_max_mb is None
    assert TaskToolConfiguration().timeout_seconds is None


def test_the_environment_overrides_defaults_and_arguments_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unset thresholds follow the one that the environment sets; an argument is stronger."""
    monkeypatch.setenv("CLAUDE_PM_MEMORY_MAX_MB", "512")
    monkeypatch.setenv("CLAUDE_PM_DISABLE_MEMORY_MONITOR", "true")
    monkeypatch.setenv("CGMEM_FAMILY_MAX", "2G")

    found = TaskToolConfiguration()
    assert (found.memory_warning_mb, found.memory_critical_mb, found.memory_max_mb) == (
        128,
        256,
        512,
    )
    assert found.enable_memory_monitoring is False
    assert found.family_max_mb == 2048
    assert TaskToolConfiguration(memory_max_mb=1024).memory_max_mb == 1024
    assert TaskToolConfiguration(enable_memory_monitoring=True).enable_memory_monitoring


def test_budgets_of_agent_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML and constructor have a part for each agent type, the constructor's is stronger."""
    (tmp_path / "cgmem.yaml").write_text(
        "max: 1G\nfamily_max: 6G\nagent_types:\n  engineer: {max: 2G}\n  qa: {max: 512M}\n"
    )
    monkeypatch.chdir(tmp_path)
    config = TaskToolConfiguration(
        agent_types={
            "qa": MemoryThresholds(warning_mb=100, critical_mb=200, max_mb=300),
            "ops": {"max": "800M", "on_stall": "abort"},
        }
    )

    assert config.thresholds("engineer") == MemoryThresholds(max_mb=2048)
    assert config.thresholds("qa") == MemoryThresholds(100, 200, 300)
    assert config.thresholds("ops") == MemoryThresholds(max_mb=800)
    assert config.settings("ops").on_stall == "abort"
    assert config.thresholds("any") == MemoryThresholds(max_mb=1024)
    assert config.family_max_mb == 6144
    once = config.settings("qa", thresholds=MemoryThresholds(max_mb=64), timeout_seconds=3)
    assert (once.max_bytes, once.timeout_seconds) == (64 * MB, 3)


def test_no_limit() -> None:
    """An infinite hard limit is none."""
    assert TaskToolConfiguration(memory_max_mb=float("inf")).memory_max_mb == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_warning_mb": 4096}, "memory_warning_mb"),
        ({"memory_critical_mb": 8192}, "memory_critical_mb"),
        ({"memory_warning_mb": "1G"}, "memory_warning_mb: '1G' is a str"),
        ({"memory_critical_mb": float("inf")}, "memory_critical_mb"),
        ({"enable_memory_monitoring": "no"}, "enable_memory_monitoring: 'no'"),
        ({"abort_on_memory_limit": 1}, "abort_on_memory_limit: 1"),
        ({"timeout_seconds": -1}, "timeout_seconds: -1"),
        ({"family_max_mb": 0}, "family_max_mb: 0"),
        ({"agent_types": {"qa": {"max": 5}}}, "agent_types.qa.max: 5 has no unit"),
        ({"agent_types": {"qa": {"maxx": "5M"}}}, "agent_types.qa: unknown setting 'maxx'"),
        ({"agent_types": {"qa": 4096}}, "agent_types.qa: 4096 is no budget"),
        ({"agent_types": {"": {}}}, "'' is no agent type"),
    ],
)
def test_wrong_values_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    """The error names the field as the caller wrote it, when the configuration is made."""
    with pytest.raises(ConfigurationError, match=message):
        TaskToolConfiguration(**arguments)


def test_templates_of_file_and_constructor(tmp_path: Path) -> None:
    """Key by key: general in the file, its agent type's, the constructor's, one subprocess's."""
    (tmp_path / "cgmem.yaml").write_text(
        "command: [general]\nenv: {A: general}\nagent_types:\n"
        "  qa:\n    command: special {prompt}\n    cwd: below\n"
    )
    config = TaskToolConfiguration(
        agent_types={"qa": {"stdin": "{prompt}"}, "ops": {"env": {"B": "b"}}}
    )

    def found(agent_type: str, argument: object = None) -> Any:
        settings = config.settings(agent_type, directory=str(tmp_path))
        return config.command(settings, agent_type, "/work", argument)

    assert found("any") == (("general",), None, None, {"A": "general"})
    assert found("qa") == (
        ("special", "{prompt}"),
        "{prompt}",
        f"{tmp_path}/below",
        {"A": "general"},
    )
    assert found("ops").env == {"B": "b"}
    assert found("ops", ["mine"]).command == ("mine",)
    with pytest.raises(ConfigurationError, match="argument command: 7 is no command"):
        found("ops", 7)
