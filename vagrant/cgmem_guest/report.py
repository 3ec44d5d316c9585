"""Our own remarks; they go to stderr because stdout belongs to the guest's job."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print one remark on stderr."""
    print(f"cgmem_guest: {message}", file=sys.stderr, flush=True)
