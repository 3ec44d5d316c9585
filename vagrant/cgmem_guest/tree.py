"""Which files of the project go into the guest, and which of them make its wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

#: Never shipped, when there is no git to ask what is ignored.
SKIPPED = frozenset({".git", ".venv", "__pycache__", "dist", "node_modules"})
CACHES = (".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache")

#: Top folders that no wheel of the project is made from.
NOT_IN_WHEEL = frozenset({"tests", "docs", "bench", "vagrant", ".ci", ".github"})


def project_files(tree: Path) -> list[Path]:
    """Return the project's files, relative to `tree`, sorted; symlinks count as files.

    Those that git knows or would add; without git, all but caches and virtual environments.
    """
    listed = _git_files(tree)
    if listed is None:
        listed = list(_walk(tree))
    return sorted(path for path in listed if os.path.lexists(tree / path))


def _git_files(tree: Path) -> list[Path] | None:
    if shutil.which("git") is None or not (tree / ".git").exists():
        return None
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(["git", "-C", str(tree), *listing], check=False, capture_output=True)
    if done.returncode:  # for one, a checkout that belongs to another user
        return None
    return [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]


def _walk(tree: Path) -> Iterable[Path]:
    for folder, names, files in os.walk(tree):
        names[:] = [name for name in names if name not in SKIPPED and name not in CACHES]
        base = Path(folder).relative_to(tree)
        yield from (base / name for name in files)


def copy_tree(tree: Path, files: Iterable[Path], target: Path) -> None:
    """Copy `files` of `tree` to the folder `target`, with their times; symlinks stay symlinks."""
    target.mkdir()
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / path, target / path, follow_symlinks=False)


def wheel_key(tree: Path) -> str:
    """Return 12 hex digits that change when a file that may enter the wheel does."""
    digest = hashlib.sha256()
    for full in sorted(tree.rglob("*")):
        path = full.relative_to(tree)
        if path.parts[0] not in NOT_IN_WHEEL and full.is_file():
            content = hashlib.sha256(full.read_bytes()).hexdigest()
            digest.update(f"{path}\0{content}\n".encode())
    return digest.hexdigest()[:12]
