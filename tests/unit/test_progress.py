"""The thread that shows and records: when it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cgmem.cli import progress

TICK = 2.0


class Stopped:
    """The end's event and the clock at once: the second wait takes an hour, as after Ctrl-Z."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._waits = 0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._waits += 1
        self.now += 3600.0 if self._waits == 2 else seconds

    def is_set(self) -> bool:
        """Whether it is over: some time after the stop."""
        return self._waits >= 8


def test_a_stop_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour's Ctrl-Z the recording goes on at its pace, without a line a missed tick."""
    time = Stopped()
    monkeypatch.setattr(progress, "time", time)
    noted: list[float] = []
    recording: Any = SimpleNamespace(note=lambda _supervision: noted.append(time.now))
    plan = SimpleNamespace(settings=SimpleNamespace(tick_seconds=TICK))
    supervision: Any = SimpleNamespace(plan=plan)
    shown = progress.Progress(supervision, None, recording)
    monkeypatch.setattr(shown, "_ended", time)

    shown._run()

    assert noted == [1000.0, 4601.0, 4602.0, 4604.0, 4606.0]
