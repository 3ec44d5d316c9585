"""The errors of cgmem, told apart by who is at fault.

You asked for something that can't be (`ConfigurationError`); this host can't do it
(`BackendUnavailable`, `EnforcementError`, `InsufficientMemory`); the kernel refused one step
(`CgroupError`); somebody else removed what we worked on (`ScopeVanished`).
"""

from __future__ import annotations

import errno


class CgmemError(Exception):
    """Base of every error that cgmem raises. `hint` says what to run or change next."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(CgmemError, ValueError):
    """A value from outside is wrong. The message names the value and its source."""


class InvalidIdError(ConfigurationError):
    """A subprocess id that cgmem does not take, or that a live subprocess already has."""


class UnknownIdError(CgmemError, LookupError):
    """No live subprocess has this id."""


class BackendUnavailable(CgmemError):  # noqa: N818  (reads as the state that it reports)
    """The asked-for backend can't work here. The message says why."""


class EnforcementError(CgmemError):
    """Enforcement was required and the kernel does not hold the limit."""


class InsufficientMemory(CgmemError):  # noqa: N818  (the spec's own words)
    """The pre-flight check refused to start a subprocess."""


class CgroupError(CgmemError, OSError):
    """The kernel refused a step on a cgroup file: `errno`, `strerror` and `filename` are set."""

    def __init__(self, error: OSError, doing: str, path: str, *, hint: str | None = None) -> None:
        OSError.__init__(self, error.errno, error.strerror, path)
        self.hint = hint
        self.doing = doing

    def __str__(self) -> str:
        return f"{self.doing}: {self.strerror} ({self.filename})"


class ScopeVanished(CgmemError):  # noqa: N818  (a normal end, not a fault)
    """The scope was removed under us. For whoever reads it, this is a normal end."""


def not_loaded(error: ImportError) -> CgmemError:
    """The error to raise where a part of cgmem, or of Python, can't be loaded."""
    hint = "see whether descriptors are left (ulimit -n); if they are, install cgmem again"
    return CgmemError(f"a part of cgmem can't be loaded: {error}", hint=hint)


def out_of_descriptors(error: BaseException) -> bool:
    """Whether EMFILE or ENFILE is its cause: a list made in spite of it would be too short."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
