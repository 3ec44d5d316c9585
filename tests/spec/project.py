"""A project directory for the spec's blocks, and what running in it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.spec.blocks import BLOCKS, PROJECT
from tests.spec.markdown import ROOT, SPEC, fenced_blocks

PATIENCE = 240.0
"""Seconds that one run may take on a slow, busy machine; tests of it have a longer time-out."""
SCENE = ROOT / "tests" / "spec" / "scene.py"
FENCED = fenced_blocks(SPEC.read_text())
LISTED = list(zip(BLOCKS, FENCED, strict=False))
EXAMPLES: dict[str, Any] = {
    block.log_file: json.loads(fenced.text) for block, fenced in LISTED if block.runner == "json"
}
"""The spec's example lines by log file."""


def make_project(directory: Path) -> Path:
    """Write the configuration: small budgets, and commands for agents."""
    hog = ROOT / "tests" / "helpers" / "hog.py"
    text = PROJECT.replace("PYTHON", sys.executable).replace("HOG", str(hog))
    (directory / "cgmem.yaml").write_text(text)
    return directory


def environment(project: Path) -> dict[str, str]:
    """This environment without settings; cgmem is found, and the machine's log is this test's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CGMEM_", "CLAUDE_PM_"))}
    roots = (ROOT, ROOT / "backends", *sys.path[1:])
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "PYTHON": sys.executable,
        "SCENE": str(SCENE),
        "XDG_RUNTIME_DIR": str(project),
    }


def execute(words: list[str], project: Path) -> str:
    """Run to the end, which must be a good one; return the standard output.

    What it says on stderr is in the file `errors`, too.
    """
    done = subprocess.run(
        words, cwd=project, env=environment(project), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    (project / "errors").write_text(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def logs_of_a_scene(directory: Path) -> Path:
    """Play the scene to its end in a fresh project; return the log directory."""
    project = make_project(directory)
    (project / "stop").touch()
    execute([sys.executable, "-m", "cgmem.claude_pm", str(SCENE)], project)
    return project / ".claude-pm" / "logs" / "memory"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a log file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def shape(value: Any) -> Any:
    """Return keys in their order and the type of each value; `cgmem` is ours."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items() if key != "cgmem"]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
