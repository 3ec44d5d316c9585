"""`cgmem freeze` and `cgmem thaw`: stop a subprocess with all its memory, and let it run again."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.errors import NO, Failure, complain
from cgmem.cli.output import print_json
from cgmem.inspecting import orders

EPILOG = """\b
A frozen subprocess keeps its memory and uses no CPU, and it can still be
killed. Its --timeout keeps running; where it is polled it is stopped as by
SIGSTOP, its cgmem run with it, and so is its time.

\b
Example:
  cgmem freeze engineer_abc123

\b
Exit status:
  0  done   1  no such subprocess, or some process has not stopped
  2  wrong usage or trouble
"""
THAW_EPILOG = EPILOG.replace("cgmem freeze", "cgmem thaw").replace("not stopped", "not continued")


@click.command("freeze", epilog=EPILOG)
@options.target_argument
@options.json_option
def command(name: str, as_json: bool) -> int:
    """Stop every process of a live subprocess; `cgmem thaw` lets them run again."""
    return _act(name, True, as_json)


@click.command("thaw", epilog=THAW_EPILOG)
@options.target_argument
@options.json_option
def thaw(name: str, as_json: bool) -> int:
    """Let a frozen or stopped subprocess run again."""
    return _act(name, False, as_json)


def _act(name: str, frozen: bool, as_json: bool) -> int:
    with orders.target(name) as to:
        done = orders.freeze(to, frozen)
        count = len(to.scope.pids())
    state = frozen if done else not frozen
    if as_json:
        print_json({"subprocess_id": name, "frozen": state, "processes": count})
    elif done:
        print(
            f"{name}: {'frozen' if state else 'runs'}, {count} process{'es' if count != 1 else ''}"
        )
    else:
        wanted = "stopped" if frozen else "continued"
        complain(
            Failure(f"{name}: not all {wanted} after {orders.SETTLED_SECONDS:.0f} s", "cgmem show")
        )
    return 0 if done else NO
