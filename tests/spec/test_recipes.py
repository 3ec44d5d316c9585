"""The recipes of docs/recipes.md, run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cgmem import selector
from tests.spec.markdown import ROOT, Fenced, fenced_blocks
from tests.spec.project import PATIENCE, environment

pytestmark = pytest.mark.timeout(300)

RECIPES = dict(
    re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/recipes.md").read_text(), re.M | re.S)
)
_NAMED = re.compile(r"(?:#|//) ([\w.]+)\n")
_NEEDS = re.compile(r"# needs: (\w+)\n")

PRINTED = {
    "A Python agent framework": (
        r"engineer: completed: did: build it\nqa: completed: did: test it\n"
        r"researcher: aborted: hard limit: .*64M"
    ),
    "A Node command line": r"^hard_limit true hard limit: .*256M",
    "pytest and make jobs": r"1 passed(.|\n)*(one\n(.|\n)*two|two\n(.|\n)*one)(.|\n)*one",
    "A systemd service": r"sleep_\w+ .*cgroup2(.|\n)*\"cause\": \"signalled\".*\"enforced\": true",
    "A container": r"cgroup2(.|\n)*under a budget(.|\n)*status 137",
}
"""What each prints."""


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe(title: str, tmp_path: Path) -> None:
    """It runs as it is written, and prints what it is to show."""
    scripts = []
    for block in fenced_blocks(RECIPES[title]):
        named = _NAMED.match(block.text)
        if block.language == "sh":
            scripts.append(block)
        elif named:
            (tmp_path / named[1]).write_text(block.text)
    for script in scripts:
        skip_without_its_needs(script)
    printed = "".join(run(script, tmp_path) for script in scripts)

    assert re.search(PRINTED[title], printed, re.M), printed


def run(script: Fenced, project: Path) -> str:
    """Run a block of sh; `python3` and `cgmem` are those of this interpreter."""
    commands = project / ".bin"
    commands.mkdir(exist_ok=True)
    env = environment(project)
    stubs = {
        "python3": f'exec "{sys.executable}" "$@"',
        "cgmem": f'exec "{sys.executable}" -m cgmem "$@"',
        "claude": 'echo "claude $1 $2"',
    }
    for name, line in stubs.items():
        (commands / name).write_text(f"#!/bin/sh\nexport PYTHONPATH={env['PYTHONPATH']}\n{line}\n")
        (commands / name).chmod(0o755)
    env["PATH"] = f"{commands}:{env['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script.text], cwd=project, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def skip_without_its_needs(script: Fenced) -> None:
    """Skip what this host can't run: systemd as root, a cgroup of our own, node."""
    needs = _NEEDS.match(script.text)
    if needs and needs[1] == "systemd":
        if os.geteuid() != 0 or not Path("/run/systemd/system").is_dir():
            pytest.skip("needs root and a running systemd")
    elif needs and needs[1] == "cgroup2":
        usable = selector.load("cgroup2").probe()
        if not usable.usable:
            pytest.skip(usable.reason)
    for program in ("node", "make"):
        if f"{program} " in script.text and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def test_the_task_tools_page(tmp_path: Path) -> None:
    """The page's configuration is one, and its example starts what it says."""
    settings, example = fenced_blocks((ROOT / "docs/task-tool.md").read_text())
    (tmp_path / "cgmem.yaml").write_text(settings.text)
    (tmp_path / "page.py").write_text(example.text.replace("/home/me/project", str(tmp_path)))
    printed = run(Fenced("sh", "cgmem config\npython3 page.py"), tmp_path)

    assert "agent_types.researcher.command" in printed
    assert re.search(r"completed \d+\.\d claude -p \*\*Qa\*\*: Test feature X", printed)


def test_every_recipe_says_what_it_prints() -> None:
    """No recipe is without a check."""
    assert list(RECIPES) == list(PRINTED)
