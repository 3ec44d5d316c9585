"""`cgmem doctor`: try every backend for real and say what works."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from cgmem import __version__, selector
from cgmem.cli import options
from cgmem.cli.errors import NO
from cgmem.cli.output import print_field, print_json
from cgmem.cli.trial import Trial, try_backend
from cgmem.contract import Backend, Leave, Usability
from cgmem.errors import CgmemError

EPILOG = """\b
Every usable backend runs a small program that takes more than its budget of
32 MB. A few seconds, a few hundred MB of memory at most, nothing lasting.

\b
Example:
  cgmem doctor

\b
Exit status:
  0  the kernel holds hard limits here   1  it does not: polling at best
  2  wrong usage or trouble
"""


@click.command("doctor", epilog=EPILOG)
@options.json_option
def command(as_json: bool) -> int:
    """Try every backend on this host; say what works, what doesn't, and how to fix it."""
    # This process is our own: where systemd asks, it may move.
    own = Leave(own_process=True)
    findings = [_examine(selector.load(name, own)) for name in selector.NAMES]
    kernel = any(finding["kernel_limits"] and _passed(finding) for finding in findings)
    host = {
        "cgmem": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "uid": os.getuid(),
    }
    if as_json:
        print_json({"kernel_enforcement": kernel, "host": host, "backends": findings})
    else:
        print(", ".join(f"{name} {value}" for name, value in host.items()))
        for finding in findings:
            print()
            _print(finding)
        print(f"\nkernel enforcement: {'works' if kernel else 'does not work here'}")
    return 0 if kernel else NO


def _examine(backend: Backend) -> dict[str, Any]:
    """Probe one backend and, where it is usable, run a limited job on it."""
    usability = _probe(backend)
    finding: dict[str, Any] = {
        "backend": backend.name,
        **usability._asdict(),
        "kernel_limits": backend.capabilities.kernel_limits,
        "metric": backend.capabilities.metric,
        "cannot": list(backend.capabilities.cannot),
        "trial": None,
        "trial_error": None,
    }
    if usability.usable:
        try:
            finding["trial"] = try_backend(backend.name)._asdict()
        except (CgmemError, OSError) as error:
            finding["trial_error"] = str(error)
    return finding


def _probe(backend: Backend) -> Usability:
    try:
        found = backend.probe()
        return backend.with_note(found) if found.usable else found
    except (CgmemError, OSError) as error:
        return Usability(False, str(error), getattr(error, "hint", None))


def _passed(finding: dict[str, Any]) -> bool:
    return finding["trial"] is not None and finding["trial"]["passed"]


def _print(finding: dict[str, Any]) -> None:
    state = "usable" if finding["usable"] else "not usable"
    print_field(f"{finding['backend']}:", f"{state}: {finding['reason']}", width=9)
    if finding["note"]:
        _print_line("note", finding["note"])
    if finding["fix"]:
        _print_line("fix", finding["fix"])
    if finding["trial_error"]:
        _print_line("trial", f"FAILED: {finding['trial_error']}")
    if finding["trial"] is not None:
        _print_trial(Trial(**finding["trial"]))
    for promise in finding["cannot"] if finding["usable"] else ():
        _print_line("can't", promise)


def _print_trial(trial: Trial) -> None:
    _print_line("trial", f"{'passed' if trial.passed else 'FAILED'}: {trial.message}")
    holder = "held by the kernel" if trial.enforced else "held by polling, not by the kernel"
    holder += ", but not in swap, which this kernel can't limit" if trial.soft else ""
    _print_line("limit", f"{trial.limit_mb}MB set, {trial.read_back_mb}MB read back, {holder}")
    launch = f"{trial.launch_ms}ms to start and end a program, {trial.popen_ms}ms without cgmem"
    _print_line("launch", launch)
    if trial.placement:
        _print_line("placement", trial.placement)
    if trial.guard:
        _print_line("guard", trial.guard)


def _print_line(name: str, text: str) -> None:
    print_field(name, text, width=11, indent=2)
