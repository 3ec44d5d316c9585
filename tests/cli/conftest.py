"""For every test of the command: it starts as from a shell; a loaded machine is no failure."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.helpers import patient_hypothesis  # noqa: F401  (changes its defaults)

#: nohup(1) ignores the first for what it starts, a script's `&` the others.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def _signals_end() -> Iterator[None]:
    """The tests may run where some signals are ignored; the command's children would inherit it."""
    before = {one: signal.signal(one, _as_from_a_shell(one)) for one in ENDING}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def _as_from_a_shell(one: signal.Signals) -> signal._HANDLER:
    return signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL
