"""What a command line means to exec: argv, candidates along PATH and environ, all as bytes.

The conversions and their errors are subprocess.Popen's (CPython 3.11-3.14, Lib/subprocess.py
`_execute_child` and Modules/_posixsubprocess.c), so that a start by another road raises the same.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping

from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ExecRequest(NamedTuple):
    """One command, ready for execve(2)."""

    argv: list[bytes]
    candidates: tuple[bytes, ...]
    """Files to try in order; relative ones count from the child's working directory."""
    env: list[bytes] | None
    """`NAME=value` entries; None: the starting process's own environ."""
    executable: str | bytes | os.PathLike[Any]
    """As the caller gave it: the name that errors carry."""


def exec_request(
    args: Any,
    *,
    executable: Any = None,
    shell: bool = False,
    env: Mapping[Any, Any] | None = None,
    cwd: Any = None,
) -> ExecRequest:
    """Read a command line as subprocess.Popen does, and audit it as `subprocess.Popen`.

    Raises TypeError, ValueError or IndexError as Popen does (embedded NUL, "=" in a name, no args).
    """
    argv, executable = _command_line(args, executable, shell)
    sys.audit("subprocess.Popen", executable, argv, cwd, env)
    entries = None if env is None else _entries(env)
    file = os.fsencode(executable)
    if os.path.dirname(file):  # noqa: PTH120  (bytes)
        candidates: tuple[bytes, ...] = (file,)
    else:
        directories = os.get_exec_path(env)
        candidates = tuple(os.path.join(os.fsencode(d), file) for d in directories)  # noqa: PTH118
    encoded = [os.fsencode(argument) for argument in argv]
    for value in (*candidates, *encoded, *(entries or ())):
        refuse_nul(value)
    return ExecRequest(encoded, candidates, entries, executable)


def refuse_nul(value: bytes) -> None:
    """Raise the ValueError that Popen raises for a string that C can't hold."""
    if b"\0" in value:
        raise ValueError("embedded null byte")


def exec_errno(errnos: Iterable[int]) -> int:
    """Which error a search along PATH reports: the first that isn't "not there", else the last."""
    last = 0
    for last in errnos:
        if last not in (errno.ENOENT, errno.ENOTDIR):
            break
    return last


def _command_line(args: Any, executable: Any, shell: bool) -> tuple[list[Any], Any]:
    if isinstance(args, str | bytes):
        argv: list[Any] = [args]
    elif isinstance(args, os.PathLike):
        if shell:
            raise TypeError("path-like args is not allowed when shell is true")
        argv = [args]
    else:
        argv = list(args)
    if shell:
        argv = ["/bin/sh", "-c", *argv]
        if executable:
            argv[0] = executable
    return argv, argv[0] if executable is None else executable


def _entries(env: Mapping[Any, Any]) -> list[bytes]:
    entries = []
    for name, value in env.items():
        key = os.fsencode(name)
        if b"=" in key:
            raise ValueError("illegal environment variable name")
        entries.append(key + b"=" + os.fsencode(value))
    return entries
