"""The command line. The only part of cgmem that prints or exits; nobody imports it.

One module per verb, imported when its verb is used: `cgmem run` pays for `run` alone.
"""

from __future__ import annotations

import gc as garbage_collector  # `gc` here is a verb's module, once it is loaded
import io
import os
import sys
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: sys.argv) and return its exit status. Never raises."""
    _hold_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        _flush()
    except BaseException as error:  # noqa: BLE001  (the edge of the program: every end has a status)
        from cgmem.cli.errors import ended_by

        status = ended_by(error, words)
        _drop_unwritable()
        return status
    return int(status or 0)


def _run(words: list[str]) -> Any:
    # The variable is click's: the shell asks for completions.
    if words[:1] == ["run"] and "_CGMEM_COMPLETE" not in os.environ:
        # While modules load there is nothing to collect, and looking for it is a tenth of the
        # time; `run` looks again once its command runs.
        garbage_collector.disable()
        from cgmem.cli.run_options import quickly_read

        found = quickly_read(words[1:])
        if found is not None:
            from cgmem.cli.run_job import run

            return run(**found)  # type: ignore[arg-type]  # of the types that the table says
        garbage_collector.enable()
    from cgmem.cli.group import run_verb

    return run_verb(words)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "stdout"
        raise


def _drop_unwritable() -> None:
    """What stdout can't take is not tried again, with a traceback, when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _hold_standard_descriptors() -> None:
    """Where 0, 1 or 2 was closed, keep a file of ours from getting that number.

    Closed again at exec: the command finds them as the caller left them. Not open for writing:
    what is printed to a closed stdout is an error, and not lost unsaid.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115  (for good)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
