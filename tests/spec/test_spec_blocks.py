"""Every code block of the spec is run as it stands (tests/spec/blocks.py says how)."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.spec.blocks import BLOCKS, Block, Run
from tests.spec.markdown import SPEC, Fenced
from tests.spec.project import FENCED, LISTED, execute, make_project

pytestmark = pytest.mark.timeout(300)

SHELL = """
set -eu
python() { "$PYTHON" -m cgmem.claude_pm "$@"; }
tail() { "$PYTHON" -c "
import subprocess, sys
try:
    subprocess.run(['tail', *sys.argv[1:]], timeout=2)
except subprocess.TimeoutExpired:
    pass" "$@"; }
command -v jq > found || jq() { "$PYTHON" -c "
import json, sys
for line in open(sys.argv[2]):
    print(json.dumps(json.loads(line), indent=2))" "$@"; }
less() { cat; }
"""
ORIGINAL = "bb959173960a4e85ed44d88a7362ad134ce4cdd0cd3a71b5504eaf29eefe852a"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh directory with small budgets and commands for agents."""
    return make_project(tmp_path)


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
    printed = run_shell(fenced, run, project)
    lines = printed.splitlines()
    told = [(project / name).read_text() for name in ("errors", "scene.err")]
    assert "{" in lines, [printed, *told]
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
