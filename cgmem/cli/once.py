"""What is worth saying once a login, not at every command."""

from __future__ import annotations

import os
import zlib

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def first_time(text: str, directory: str | None = None) -> bool:
    """Whether this user was not told `text` since the login; remembers that it is told now.

    It is remembered in XDG_RUNTIME_DIR, which goes away with the last logout. True where that is
    not there or not ours: twice is better than never.
    """
    directory = directory or os.environ.get("XDG_RUNTIME_DIR") or ""
    path = f"{directory}/cgmem-said-{zlib.crc32(text.encode()):08x}"
    try:
        if not directory.startswith("/") or os.stat(directory).st_uid != os.geteuid():  # noqa: PTH116  (pathlib costs 10 ms at start-up)
            return True
        os.close(os.open(path, _CREATE, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
