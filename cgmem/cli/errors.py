"""From whatever went wrong to one message, one hint and one exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from cgmem.cli.output import say
from cgmem.errors import CgmemError, UnknownIdError
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click

NO = 1
"""The answer is no: no such subprocess, not enough memory, no kernel enforcement."""
TROUBLE = 2
"""Wrong usage, a wrong setting, or the host refused something."""
RUN_TROUBLE = 125
"""`run` could not do its work; as env(1) and timeout(1)."""
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class Failure(NamedTuple):
    """What to tell a person: what failed and where, and what to do next."""

    message: str
    hint: str | None = None


def described(error: Exception) -> Failure:
    """Describe an error that is not a mistake of our own."""
    if isinstance(error, CgmemError):
        return Failure(str(error), error.hint)
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return Failure(f"{where}{error.strerror}")
    return Failure(f"{type(error).__name__}: {error}")


def complain(failure: Failure) -> None:
    """Print a failure on stderr: one line, and one for the hint."""
    say(failure.message)
    if failure.hint:
        say(f"try: {failure.hint}")


def ended_by(error: BaseException, words: Sequence[str]) -> int:
    """Tell of what ended a command line, and return its exit status. May end this process."""
    trouble = RUN_TROUBLE if _verb(words) == "run" else TROUBLE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else trouble
    if isinstance(error, KeyboardInterrupt):
        die_of(signal.SIGINT)
    if isinstance(error, BrokenPipeError):
        die_of(signal.SIGPIPE)
    if isinstance(error, CgmemError | OSError):
        complain(described(error))
        return NO if isinstance(error, UnknownIdError) else trouble
    import click  # whose errors these may be; where it was never needed, it is now a bug's price

    if isinstance(error, click.Abort):
        die_of(signal.SIGINT)
    if isinstance(error, click.ClickException):
        return _misused(error, words, trouble)
    import traceback

    traceback.print_exception(error)
    complain(Failure("this is a bug in cgmem", "report the lines above"))
    return trouble


def die_of(signum: int) -> None:
    """End by a signal, as a program does that never handled it, so that the caller's loop ends."""
    if signum == signal.SIGQUIT:
        _no_core_dump()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
    # Only where the signal can't end this process (the init of a pid namespace).
    os._exit(128 + signum)


def _no_core_dump() -> None:
    # Not 0: a core_pattern(5) with a pipe ignores every limit but 1.
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    soft = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _verb(words: Sequence[str]) -> str | None:
    return next((word for word in words if not word.startswith("-")), None)


def _misused(error: click.ClickException, words: Sequence[str], trouble: int) -> int:
    import click

    context = error.ctx if isinstance(error, click.UsageError) else None
    # Without one it is an option without its value.
    path = f"cgmem {_verb(words) or ''}".rstrip() if context is None else context.command_path
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(f"{error.format_message()}\n")
    else:
        # Where click lists choices, it lists them one below the other.
        message = error.format_message().rstrip(".").replace("\n\t", " ")
        complain(Failure(message, f"{path} --help"))
    return trouble
