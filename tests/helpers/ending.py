"""Ending what a test has left running."""

from __future__ import annotations

from cgmem.supervising.supervisor import Supervisor
from tests.helpers.waiting import until


def end(supervisor: Supervisor) -> None:
    """Kill what still lives, see its end and close.

    A Popen of which nobody saw the end complains when it is collected, in some later test.
    """
    for supervision in supervisor.live():
        supervision.kill("abort")
        until(supervision.settle, 20)
    supervisor.close()
