"""The spec's import names: answered where nothing is installed, overlaid where something is.

Every test runs an interpreter of its own: what is imported can't be taken back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = {
    "claude_pm/__init__.py": "version = 'its own'\n",
    "claude_pm/monitoring/__init__.py": """
        from .memory_monitor import SubprocessMemoryMonitor, get_subprocess_memory_monitor
        from .subprocess_manager import SubprocessManager
        __all__ = ["SubprocessMemoryMonitor", "get_subprocess_memory_monitor", "SubprocessManager"]
        """,
    "claude_pm/monitoring/memory_monitor.py": """
        class SubprocessMemoryMonitor:
            "Measures its own process."
        def get_subprocess_memory_monitor(thresholds=None, log_dir=None):
            raise AssertionError("the framework's own monitor was asked")
        """,
    "claude_pm/monitoring/subprocess_manager.py": "class SubprocessManager: pass\n",
    "claude_pm/utils/__init__.py": "",
    "claude_pm/utils/task_tool_helper.py": """
        import datetime, pathlib
        try:
            from claude_pm.monitoring import MemoryThresholds, get_subprocess_memory_monitor
        except ImportError:
            MemoryThresholds = get_subprocess_memory_monitor = None

        class TaskToolHelper:
            def __init__(self, working_directory):
                self.active, self.logged = {}, []
                self.memory_monitor = get_subprocess_memory_monitor(
                    thresholds=MemoryThresholds(warning_mb=1024, critical_mb=2048, max_mb=4096),
                    log_dir=pathlib.Path(working_directory) / ".claude-pm" / "logs" / "memory",
                )

            async def create_agent_subprocess(self, agent_type, task_description):
                can_create, status = self.memory_monitor.can_create_subprocess()
                if not can_create:
                    return {"success": False, "error": status}
                subprocess_id = f"{agent_type}_{datetime.datetime.now():%Y%m%d_%H%M%S}"
                self.active[subprocess_id] = {"agent_type": agent_type}
                self.memory_monitor.start_monitoring(
                    subprocess_id,
                    {"agent_type": agent_type, "task_description": task_description},
                )
                return {"success": True, "subprocess_id": subprocess_id, "prompt": task_description}

            def check_subprocess_memory(self, subprocess_id):
                memory_mb, status = self.memory_monitor.check_memory(subprocess_id)
                return {"memory_mb": memory_mb, "status": status,
                        "should_abort": self.memory_monitor.should_abort(subprocess_id)}

            def complete_subprocess(self, subprocess_id, results):
                memory_stats = self.memory_monitor.stop_monitoring(subprocess_id)
                self.logged.append(f"Memory monitoring stopped for {subprocess_id}: {memory_stats}")
                peak_mb = memory_stats["memory_stats"].get("peak_mb", "N/A")
                del self.active[subprocess_id]
                return memory_stats, peak_mb

            def validate_integration(self):
                return {"system_memory": self.memory_monitor.get_system_memory(),
                        "subprocess_stats": self.memory_monitor.get_all_subprocess_stats(),
                        "active_monitors": len(self.memory_monitor.active_monitors)}
        """,
}
"""A package that makes the framework's calls, as the framework makes them."""


@pytest.fixture
def framework(tmp_path: Path) -> Path:
    """A directory in which the stand-in package lies."""
    for name, text in STAND_IN.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return tmp_path / "site"


def python(
    *words: str, cwd: Path, path: Path | None = None, stdin: str = "", command: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `python -m cgmem.claude_pm`, or plain python, with a clean environment."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CGMEM_", "CLAUDE_PM_"))}
    roots = [str(path)] if path else []
    env["PYTHONPATH"] = os.pathsep.join([*roots, str(ROOT), str(ROOT / "backends")])
    env["CGMEM_BACKEND"] = "psutil"
    return subprocess.run(
        [sys.executable, *(["-m", "cgmem.claude_pm"] if command else []), *words],
        cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a run that must have gone well has printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NAMES = """
import claude_pm, claude_pm.monitoring, claude_pm.utils.task_tool_helper as helper
from claude_pm.monitoring import *
import cgmem.monitoring, cgmem.task_tool
assert MemoryThresholds is cgmem.monitoring.MemoryThresholds
assert get_memory_monitor is claude_pm.monitoring.get_memory_monitor
assert SubprocessMemoryMonitor is cgmem.monitoring.SubprocessMemoryMonitor
assert SubprocessMemoryStats and MemoryMonitor and get_subprocess_memory_monitor
assert helper.TaskToolHelper is cgmem.task_tool.TaskToolHelper
assert helper.TaskToolConfiguration is cgmem.task_tool.TaskToolConfiguration
try:
    import claude_pm.services
except ModuleNotFoundError as error:
    print(error)
"""


def test_where_no_package_is_installed(tmp_path: Path) -> None:
    """Both modules are there with all their names, and nothing else is made up."""
    assert said(python("-c", NAMES, cwd=tmp_path)) == "No module named 'claude_pm.services'"


def test_a_bare_directory_is_no_package(tmp_path: Path) -> None:
    """A directory named claude_pm (a namespace package, to Python) doesn't hide our names."""
    (tmp_path / "claude_pm").mkdir()

    assert said(python("-c", NAMES, cwd=tmp_path)) == "No module named 'claude_pm.services'"


def test_where_one_is_installed(tmp_path: Path, framework: Path) -> None:
    """Only the spec's names in claude_pm.monitoring are ours."""
    code = """
import claude_pm, claude_pm.monitoring as m, claude_pm.utils.task_tool_helper as helper
import cgmem.monitoring
assert claude_pm.version == "its own"
assert m.SubprocessMemoryMonitor is cgmem.monitoring.SubprocessMemoryMonitor
assert m.SubprocessManager.__module__ == "claude_pm.monitoring.subprocess_manager"
assert {"SubprocessManager", "MemoryMonitor"} <= set(m.__all__)
assert helper.TaskToolHelper.__module__ == "claude_pm.utils.task_tool_helper"
assert helper.MemoryThresholds is cgmem.monitoring.MemoryThresholds
from claude_pm.monitoring.memory_monitor import SubprocessMemoryMonitor as own
assert own.__doc__ == "Measures its own process."
import importlib.resources, inspect
assert importlib.resources.files("claude_pm.monitoring").joinpath("memory_monitor.py").is_file()
assert "SubprocessManager" in inspect.getsource(m)
print("well")
"""
    assert said(python("-c", code, cwd=tmp_path, path=framework)) == "well"


def test_a_module_without_a_list_of_names_keeps_its_own(tmp_path: Path) -> None:
    """`import *` takes a module's own names and ours where it has no `__all__`."""
    package = tmp_path / "claude_pm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "monitoring.py").write_text("def of_its_own(): pass\n")
    code = """
from claude_pm.monitoring import *
print(of_its_own.__module__, MemoryThresholds.__module__)
"""
    found = said(python("-c", code, cwd=tmp_path))

    assert found == "claude_pm.monitoring cgmem.config.thresholds"


def test_a_package_without_the_module_gets_it(tmp_path: Path) -> None:
    """An installed package that has no claude_pm.monitoring yet gets ours, and keeps the rest."""
    package = tmp_path / "claude_pm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    code = """
import claude_pm.monitoring
try:
    import claude_pm.utils.task_tool_helper
except ModuleNotFoundError:
    print(claude_pm.monitoring.MemoryThresholds.__module__)
"""
    assert said(python("-c", code, cwd=tmp_path)) == "cgmem.config.thresholds"


def test_the_frameworks_calls(tmp_path: Path, framework: Path) -> None:
    """Its helper makes its calls, in a running loop, with no process to measure: all work."""
    code = """
import asyncio, json
from claude_pm.utils.task_tool_helper import TaskToolHelper
async def scene():
    helper = TaskToolHelper(".")
    created = await helper.create_agent_subprocess("engineer", "Implement feature X")
    name = created["subprocess_id"]
    checked = helper.check_subprocess_memory(name)
    validated = helper.validate_integration()
    stats, peak = helper.complete_subprocess(name, {})
    again = helper.validate_integration()
    print(json.dumps([created, checked, validated, stats, peak, again, helper.logged]))
asyncio.run(scene())
"""
    done = python("-c", code, cwd=tmp_path, path=framework)
    created, checked, validated, stats, peak, again, logged = json.loads(said(done))
    name = created["subprocess_id"]

    assert created["success"] is True
    assert checked == {"memory_mb": 0.0, "status": "OK", "should_abort": False}
    assert validated["active_monitors"] == 1
    assert validated["subprocess_stats"][name] == {
        "memory_mb": 0.0, "status": "OK", "agent_type": "engineer",
    }  # fmt: skip
    assert set(validated["system_memory"]) == {"total_mb", "available_mb", "used_mb", "percent"}
    assert (stats["subprocess_id"], stats["peak_mb"], peak) == (name, 0.0, 0.0)
    assert again["active_monitors"] == 0
    assert name in logged[0]
    assert "none is measured" in done.stderr
    lines = (tmp_path / ".claude-pm/logs/memory/subprocess-stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["subprocess_id"] for line in lines] == [name]
    assert json.loads(lines[0])["cgmem"]["enforced"] is False


def test_install_in_a_program(tmp_path: Path, framework: Path) -> None:
    """`install()` does the same in a plain interpreter, twice too, and after an import."""
    code = """
import claude_pm.monitoring
import cgmem.claude_pm, sys
cgmem.claude_pm.install()
cgmem.claude_pm.install()
assert sum("claude_pm" in type(finder).__module__ for finder in sys.meta_path) == 1
print(claude_pm.monitoring.MemoryThresholds.__module__)
"""
    ran = python("-c", code, cwd=tmp_path, path=framework, command=False)

    assert said(ran) == "cgmem.config.thresholds"


SHOW = """
import json, sys
from claude_pm.monitoring import MemoryThresholds
print(json.dumps([__name__, sys.argv, sys.path[0]]))
if sys.argv[-1] == "fail":
    sys.exit(7)
"""


def test_a_script_a_module_code_and_standard_input(tmp_path: Path) -> None:
    """Each way to run a program gives the name, arguments and path that python gives it."""
    below = tmp_path / "below"
    below.mkdir()
    (below / "show.py").write_text(SHOW)

    def ran(*words: str, stdin: str = "") -> list[object]:
        shown: list[object] = json.loads(said(python(*words, cwd=tmp_path, stdin=stdin)))
        return shown

    assert ran("below/show.py", "-x", "1") == [
        "__main__", ["below/show.py", "-x", "1"], str(below),
    ]  # fmt: skip
    name, argv, _ = ran("-m", "below.show", "a")
    assert (name, argv) == ("__main__", [str(below / "show.py"), "a"])
    assert ran("-c", SHOW, "a", "-b") == ["__main__", ["-c", "a", "-b"], ""]
    assert ran("-", "a", stdin=SHOW) == ["__main__", ["-", "a"], ""]
    assert python("below/show.py", "fail", cwd=tmp_path).returncode == 7


@pytest.mark.parametrize(("words", "status"), [((), 2), (("-c",), 2), (("-X",), 2), (("-h",), 0)])
def test_wrong_use(tmp_path: Path, words: tuple[str, ...], status: int) -> None:
    """Without a program the usage is shown."""
    done = python(*words, cwd=tmp_path)

    assert done.returncode == status
    assert "usage: python -m cgmem.claude_pm" in done.stdout + done.stderr


def test_a_program_that_fails_fails_as_in_python(tmp_path: Path) -> None:
    """An error in the program is shown with its traceback; the status is python's."""
    done = python("-c", "raise ValueError('mine')", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: mine")
