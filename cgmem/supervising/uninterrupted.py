"""Steps that an exception out of a signal handler, a KeyboardInterrupt say, must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
"""Those whose handlers raise in practice."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold such signals back until the block is done. For short blocks that wait for nobody.

    Python runs handlers in its main thread alone. Another thread of the caller's may still take
    the signal, and the main thread then runs its handler: what is done in the block has to bear
    being done again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Asked for first: the call that blocks may itself raise for what came just before it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
