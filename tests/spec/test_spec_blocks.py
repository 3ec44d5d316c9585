"""Every code block of the spec is run as it stands (tests/spec/blocks.py says how)."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.spec.blocks import BLOCKS, PROJECT, Block, Run
from tests.spec.markdown import ROOT, SPEC, Fenced, fenced_blocks

PATIENCE = 110.0
HOG = ROOT / "tests" / "helpers" / "hog.py"
SHELL = """
set -eu
python() { "$PYTHON" -m cgmem.claude_pm "$@"; }
tail() { timeout 2 tail "$@" || [ $? = 124 ]; }
command -v jq > found || jq() { shift; "$PYTHON" -m json.tool --json-lines "$@"; }
command -v less > found || less() { cat; }
"""
ORIGINAL = "bb959173960a4e85ed44d88a7362ad134ce4cdd0cd3a71b5504eaf29eefe852a"
FENCED = fenced_blocks(SPEC.read_text())
LISTED = list(zip(BLOCKS, FENCED, strict=False))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh directory with small budgets and commands for agents."""
    text = PROJECT.replace("PYTHON", sys.executable).replace("HOG", str(HOG))
    (tmp_path / "cgmem.yaml").write_text(text)
    return tmp_path


def environment(project: Path) -> dict[str, str]:
    """This environment without settings; cgmem is found, and the machine's log is this test's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CGMEM_", "CLAUDE_PM_"))}
    roots = (ROOT, ROOT / "backends", *sys.path[1:])
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "PYTHON": sys.executable,
        "SCENE": str(ROOT / "tests" / "spec" / "scene.py"),
        "XDG_RUNTIME_DIR": str(project),
    }


def execute(words: list[str], project: Path) -> str:
    """Run to the end, which must be a good one; return the standard output."""
    done = subprocess.run(
        words, cwd=project, env=environment(project), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_python(block: Fenced, run: Run, project: Path) -> str:
    """Run a block as a script."""
    script = project / "block.py"
    script.write_text(f"{run.before}\n{block.text}\n{run.after}")
    return execute([sys.executable, "-m", "cgmem.claude_pm", str(script)], project)


def run_shell(block: Fenced, run: Run, project: Path) -> str:
    """Run a block in sh."""
    parts = (SHELL, textwrap.dedent(run.before), block.text, textwrap.dedent(run.after))
    return execute(["sh", "-c", "\n".join(parts)], project)


def test_the_spec_is_kept_verbatim() -> None:
    """docs/spec/ has the spec to the byte."""
    digest = hashlib.sha256(SPEC.read_bytes()).hexdigest()

    assert digest == ORIGINAL


def test_no_block_is_missing_from_the_list() -> None:
    """The list has the spec's blocks, each of them, in order."""
    assert [block.text.splitlines()[0] for block in FENCED] == [block.begins for block in BLOCKS]


@pytest.mark.parametrize(
    ("block", "fenced", "run"),
    [
        pytest.param(block, fenced, run, id=f"{number}-{block.runner}-{way}")
        for number, (block, fenced) in enumerate(LISTED)
        if block.runner == "python"
        for way, run in enumerate(block.runs)
    ],
)
def test_python_blocks(block: Block, fenced: Fenced, run: Run, project: Path) -> None:
    """A block of Python runs as it stands and does what it says."""
    assert run.prints in run_python(fenced, run, project)


def listed(begins: str) -> tuple[Fenced, Run]:
    """Return a block that has one run."""
    block, fenced = next(pair for pair in LISTED if pair[0].begins == begins)
    return fenced, block.runs[0]


def test_environment_variables(project: Path) -> None:
    """The block of exports sets the documented defaults, and the values come from there."""
    fenced, run = listed("# Override default memory thresholds")

    assert run_shell(fenced, run, project) == run.prints


def test_debug_commands(project: Path) -> None:
    """Each debug command shows what it promises, of a project at work, from a fresh process."""
    fenced, run = listed("# View current memory status")
    lines = run_shell(fenced, run, project).splitlines()
    status, stats = (ast.literal_eval(line) for line in lines[:2])
    begin = lines.index("{")
    alerts = [json.loads(line) for line in lines[2:begin]]
    ended = objects("\n".join(lines[begin:]))
    assert {"timestamp", "level", "status", "alerts", "system_memory"} <= set(status)
    (name,) = (name for name in stats if name.startswith("engineer_"))
    assert stats[name]["status"] == "WARNING"
    assert stats[name]["memory_mb"] > 16
    assert {alert["level"] for alert in alerts} == {"WARNING", "CRITICAL"}
    assert any(alert["subprocess_id"] == name for alert in alerts)
    assert [line["subprocess_id"].split("_")[0] for line in ended] == ["researcher", "leaker"]


def objects(text: str) -> list[Any]:
    """Return the JSON values that stand one after the other."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found
