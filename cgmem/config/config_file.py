"""Finding and reading the configuration file, `cgmem.yaml` or `.claude-pm/memory.yaml`.

What the text in it means is `config.config_text`'s business, loaded only when there is a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from cgmem.errors import ConfigurationError
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from cgmem.config.config_text import Scalar, Structured

FILE_NAMES = ("cgmem.yaml", ".claude-pm/memory.yaml")
"""What is looked for in a directory. The first one there is the file; the two are not merged."""

LARGEST_FILE_BYTES = 1 << 16


class ConfigFile(NamedTuple):
    """What one file says: scalars by key, and the same for each agent type."""

    path: str
    values: dict[str, Scalar]
    agent_types: dict[str, dict[str, Scalar]]
    templates: dict[str, dict[str, Structured]]
    """Command templates by agent type; under "" what holds for all of them."""
    groups: dict[str, Scalar]
    """Budgets that several subprocesses share, by name."""


def find_config(directory: str) -> str | None:
    """Return the path of the nearest configuration file, in `directory` or above it, or None.

    As in the kernel's fs.protected_symlinks (proc_sys_fs(5)), a file that somebody else has put
    into a sticky directory that everyone may write to, such as /tmp, is passed over.
    """
    directory = directory.rstrip("/")
    while True:
        for name in FILE_NAMES:
            candidate = f"{directory}/{name}"
            if os.access(candidate, os.F_OK) and not _is_planted(directory or "/", name):
                return candidate
        if not directory:
            return None
        directory = directory.rpartition("/")[0]


def _is_planted(directory: str, name: str) -> bool:
    from pathlib import Path

    place = Path(directory).stat()
    if not (place.st_mode & stat.S_ISVTX and place.st_mode & stat.S_IWOTH):
        return False
    owner = Path(directory, name.partition("/")[0]).lstat().st_uid
    return owner not in (os.geteuid(), place.st_uid)


_Signature = tuple[int, int, int, int]
_last_read: tuple[_Signature, ConfigFile] | None = None


def read_config(
    path: str,
    *,
    known: Collection[str],
    nested: str,
    templates: Collection[str] = (),
    source: str | None = None,
) -> ConfigFile:
    """Return what the file at `path` says; of a file that did not change, without reading it.

    `known` are the keys that it may have, beside `nested` with one mapping of the same keys per
    agent type, and the keys of command `templates`. `source` says who named the path. Raises
    `ConfigurationError`, which names path and key.
    """
    global _last_read  # noqa: PLW0603  (one subprocess after another asks for the same file)
    from pathlib import Path

    try:
        status = Path(path).stat()
        signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        last = _last_read
        if last is not None and last[0] == signature and last[1].path == path:
            return last[1]
        text = _read_text(Path(path))
    except OSError as err:
        raise ConfigurationError(
            f"{f'{source}: ' if source else ''}can't read {path}: {err.strerror}",
            hint="name a readable file with --config FILE or CGMEM_CONFIG",
        ) from err
    from cgmem.config.config_text import parse_config

    content = parse_config(text, path=path, known=known, nested=nested, templates=templates)
    config = ConfigFile(path, *content)
    _last_read = (signature, config)
    return config


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigurationError(
            f"{path} is larger than {LARGEST_FILE_BYTES >> 10} KiB",
            hint="a configuration is a few lines; is this the right file?",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: not UTF-8 text", hint="save the file as UTF-8"
        ) from err
