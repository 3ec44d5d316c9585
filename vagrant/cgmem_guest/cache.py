"""The cache outside git: things built once, under a key, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .report import say

DAY_SECONDS = 86400.0


def cache_root() -> Path:
    """Return the folder of this package's cache; it may not exist yet."""
    own = os.environ.get("CGMEM_GUEST_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "cgmem" / "guest"


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `lock`; say so when another process has it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {lock}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, after `build(empty folder)` filled it if it did not exist.

    Atomic: a build that fails or is interrupted leaves no `target`. The lock's name ignores the
    key after the last "-", so that two versions of one thing are not built side by side.
    """
    family = target.name.rpartition("-")[0]
    with locked(target.parent / f".{family}.lock"):
        if not target.exists():
            work = Path(tempfile.mkdtemp(prefix=f".{family}.", dir=target.parent))
            try:
                build(work)
                work.chmod(0o755)
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        os.utime(target)
    return target


def prune(folder: Path, pattern: str, keep: Path | None, older_than_days: float) -> None:
    """Remove what matches `pattern` in `folder`, except `keep` and what was used lately."""
    limit = time.time() - older_than_days * DAY_SECONDS
    for path in folder.glob(pattern):
        if path != keep and _mtime(path) < limit:
            shutil.rmtree(path, ignore_errors=True)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process pruned it first
        return 0.0
