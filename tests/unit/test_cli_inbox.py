"""The signals of `cgmem run` that came before they could be blocked."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops are followed on Linux only")

# In a session of its own there is no shell that could continue it, so the kernel stops nobody.
CODE = """
import os, signal
from cgmem.cli.signals import Inbox
inbox = Inbox()
inbox.open()
for signum in (signal.SIGTSTP, signal.SIGUSR1, signal.SIGTSTP):
    os.kill(os.getpid(), signum)
inbox.block()
inbox.stop_by(signal.SIGTSTP)
while (arrival := inbox.wait(0)) is not None:
    print(arrival.signum)
"""


def test_a_stop_that_was_obeyed_is_not_passed_on_later() -> None:
    """Ctrl-Z right after the start is recorded; once the job has stopped by it, it is done with."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True, start_new_session=True
    )

    assert done.stdout.split() == [b"10"]
