"""Why a command could not be started, in a shell's words and with a shell's exit status."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence

from cgmem.cli.errors import NOT_EXECUTABLE, NOT_FOUND, RUN_TROUBLE, Failure, described
from cgmem.errors import CgmemError
from cgmem.text.words import shown

_NO_PROCESS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""There is no process or descriptor to be had: not the command's fault."""


def start_failure(error: Exception, words: Sequence[str]) -> tuple[int, Failure]:
    """Return the exit status and what to say."""
    if isinstance(error, CgmemError) or not isinstance(error, OSError):
        return RUN_TROUBLE, described(error)
    if error.errno in _NO_PROCESS:
        return RUN_TROUBLE, Failure(
            f"no process can be started: {error.strerror}", "ulimit -u; ulimit -n"
        )
    if not _is_about(error, words[0]):
        return RUN_TROUBLE, described(error)
    if not words[0] or isinstance(error, FileNotFoundError | NotADirectoryError):
        return NOT_FOUND, _not_found(words[0])
    return NOT_EXECUTABLE, _not_executable(error, words[0])


def _is_about(error: OSError, program: str) -> bool:
    return error.filename is None or os.fsdecode(error.filename) == program


def _not_found(program: str) -> Failure:
    if os.path.isfile(program) and "/" in program:  # noqa: PTH113  (any text may be given)
        return Failure(
            f"{program}: its interpreter was not found", f"head -n 1 {program}  # names it after #!"
        )
    if "/" in program:
        return Failure(f"{program}: no such file or directory", "check the path")
    return Failure(f"{shown(program)}: command not found", "check the spelling, or PATH")


def _not_executable(error: OSError, program: str) -> Failure:
    path = program if "/" in program else shutil.which(program) or program
    if os.path.isdir(path):  # noqa: PTH112  (as above)
        return Failure(f"{program}: is a directory", "name a program in it")
    if error.errno == errno.ENOEXEC:
        return Failure(f"{program}: exec format error", f"sh {program}  # if it is a script")
    if isinstance(error, PermissionError):
        return Failure(f"{program}: permission denied", f"chmod +x {program}  # if it is a program")
    return Failure(f"{program}: {error.strerror}")
