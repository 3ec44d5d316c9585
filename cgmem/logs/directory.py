"""Where the three log files are: found once, as an absolute path, and made at the first write."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cgmem.errors import ConfigurationError
from cgmem.logs.append_file import open_regular

ENVIRONMENT_VARIABLE = "CGMEM_LOG_DIR"
PROJECT_DIRECTORY = ".claude-pm"
DEFAULT_BELOW_PROJECT = Path(PROJECT_DIRECTORY, "logs", "memory")
"""Spec, "Log Locations"."""


def resolve_log_dir(
    log_dir: str | os.PathLike[str] | None,
    *,
    source: str = "log_dir",
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str],
) -> Path:
    """Find the directory of the log files: absolute, not made yet.

    `log_dir` goes before CGMEM_LOG_DIR (empty: as if unset); either holds the three files
    directly. Without both: `.claude-pm/logs/memory` in the nearest directory, from `cwd`
    upwards, that has a `.claude-pm/`, else in `cwd`.

    Raises `ConfigurationError` naming the value and where it was set: `source`, or the variable.
    """
    if log_dir is not None:
        return _explicit(os.fspath(log_dir), source, cwd)
    if value := environ.get(ENVIRONMENT_VARIABLE):
        return _explicit(value, ENVIRONMENT_VARIABLE, cwd)
    return _project(Path(cwd)) / DEFAULT_BELOW_PROJECT


def _explicit(value: str, source: str, cwd: str | os.PathLike[str]) -> Path:
    if not value or "\0" in value:
        raise ConfigurationError(f"{source} {value!r} is not the name of a directory")
    try:
        path = _absolute(Path(cwd, Path(value).expanduser()))
    except RuntimeError as error:
        raise ConfigurationError(f"{source} {value!r}: {error}") from error
    if os.path.lexists(path) and not _is_searchable_directory(path):
        raise ConfigurationError(
            f"{source} {value!r}: {path} is not a directory",
            hint=f"name a directory in {source}; it is made when it is missing",
        )
    return path


def _absolute(path: Path) -> Path:
    # resolve() would follow symlinks, and the user would not find again the name that was given.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_searchable_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # not to be told from here: the first write says it
        return True


def _project(cwd: Path) -> Path:
    start = _absolute(cwd)
    # Someone else's /tmp/.claude-pm must not collect the logs of everybody below /tmp.
    trusted = {0, os.geteuid(), *_owner(start)}
    for candidate in (start, *start.parents):
        if trusted & _owner(candidate / PROJECT_DIRECTORY):
            return candidate
    return start


def _owner(directory: Path) -> set[int]:
    """The user id that owns the directory; empty if there is no such directory to be seen.

    A link to what its maker does not own counts as none: it may lead anybody's logs anywhere.
    """
    try:
        found, maker = directory.stat(), directory.lstat().st_uid
    except OSError:
        return set()
    return {found.st_uid} if stat.S_ISDIR(found.st_mode) and found.st_uid == maker else set()


class LogDirectory:
    """A directory that is made at most once, however many files in it ask for it.

    In one that was not there, empty files of these `names` are made too.
    """

    def __init__(self, path: Path, names: Iterable[str] = (), *, made: bool = False) -> None:
        self.path = path
        self._names = tuple(names)
        self._made = made

    def make(self) -> None:
        """Make the directory and its parents. Raises `OSError`.

        Only the first time: where somebody removes a project, or a temporary directory, under a
        running supervisor, it must not come back.
        """
        if self._made:
            return
        try:
            self.path.mkdir(mode=0o755, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise
        else:
            self._make_files()
        self._made = True

    def _make_files(self) -> None:
        for name in self._names:
            with suppress(OSError):  # its first line says what is wrong
                os.close(open_regular(str(self.path / name), os.O_WRONLY | os.O_CREAT)[0])
