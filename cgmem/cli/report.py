"""`run --report FILE|-|fd:N`: where the outcome goes as one JSON object.

The place is opened before the start, so that a typo does not cost the report of an hour's work,
and written in one write(2) at the end.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Mapping

from cgmem.errors import ConfigurationError
from cgmem.text.words import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STANDARD_OUTPUT = 1
_DESCRIPTOR = r"fd:([0-9]{1,9})"
# Opened anew, a regular file behind these would be written from its beginning.
_DEVICE = r"/dev/(?:fd/([0-9]{1,9})|(stdout)|(stderr))"


class Report:
    """One report. `descriptor` None: nobody asked for one."""

    def __init__(self, descriptor: int | None, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    def write(self, outcome: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        """Write the object and a newline. What goes wrong costs a warning, nothing else."""
        if self._descriptor is None:
            return
        import json

        content = f"{json.dumps(outcome)}\n".encode()
        try:
            _write_all(self._descriptor, content)
            os.close(self._descriptor)
        except OSError as error:
            warn(f"the report can't be written to {self._name}: {error.strerror}")


def open_report(where: str | None) -> Report:
    """Open the place for the report. Raises `ConfigurationError`, which names it."""
    if where is None:
        return Report(None, "")
    number = _descriptor_number(where)
    if number is not None:
        return Report(_duplicate(number, where), where)
    try:
        return Report(_open_file(where), where)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"--report: {shown(where)} can't be written: {why}",
            hint="name a file in a directory that you may write to, - for stdout, or fd:N",
        ) from error


def _descriptor_number(where: str) -> int | None:
    if where == "-":
        return _STANDARD_OUTPUT
    if match := re.fullmatch(_DESCRIPTOR, where):
        return int(match[1])
    if where.startswith("fd:"):
        raise ConfigurationError(
            f"--report: {shown(where)} names no descriptor", hint="write a number, as fd:3"
        )
    if match := re.fullmatch(_DEVICE, where):
        return int(match[1]) if match[1] else 1 if match[2] else 2
    return None


def _duplicate(number: int, where: str) -> int:
    """Return a descriptor of our own for it, that no child inherits."""
    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDONLY:
            raise ConfigurationError(f"--report: {shown(where)} is not open for writing")
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"--report: {shown(where)} is not open",
            hint=f"open it in the shell: cgmem run --report {where} … {number}>report.json",
        ) from error


def _open_file(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        # An earlier run's report must not pass for this one's.
        os.ftruncate(descriptor, 0)
    return descriptor


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
