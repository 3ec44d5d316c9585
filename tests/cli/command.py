"""The installed `cgmem` command for tests: where it is, a clean environment, and patience."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds to wait for what must happen; a loaded machine may take long."""

CHECKOUT = Path(__file__).parents[2]
HOG = str(CHECKOUT / "tests" / "helpers" / "hog.py")
POLLED = ("--backend", "psutil")
"""For tests that must see the same on every host."""

_INSTALLED = Path(sys.executable).with_name("cgmem")
COMMAND: list[str] = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "cgmem"]


def environment(**extra: str) -> dict[str, str]:
    """Return this environment without settings of cgmem, plus `extra`."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CGMEM_", "CLAUDE_PM_")) and name not in ("NO_COLOR", "COLUMNS")
    }
    if not _INSTALLED.exists():
        env["PYTHONPATH"] = f"{CHECKOUT}:{CHECKOUT / 'backends'}"
    return {**env, **extra}


def cgmem(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run one command line to its end, without stdin unless `options` say so."""
    options.setdefault("stdin", subprocess.DEVNULL)
    if "stdout" not in options:
        options.setdefault("capture_output", True)
    return subprocess.run(
        [*COMMAND, *words],
        cwd=cwd,
        env=environment(**(env or {})),
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )


def start(*words: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a command line with its output piped, in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=cwd,
        env=environment(),
        text=True,
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "start_new_session": True,
            **options,
        },
    )


def until(look: Callable[[], T | None], what: str) -> T:
    """Wait until `look` returns something true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")
