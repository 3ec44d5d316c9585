"""Reading the program that tells of processes: a written one stands in for it."""

from __future__ import annotations

import sys

import pytest

from cgmem import selector
from cgmem.cli.events import EventSource

TOLD = """
import json, sys, time
def say(**event):
    print(json.dumps(event), flush=True)
say(event="ready", what="life")
say(event="fork", pid=7, ppid=1)
say(event="cannot", what="memory", why="a test says so")
time.sleep(0.5)  # what is told before it listens to all is nobody's
for number in range(3):
    say(event="fork", pid=number, ppid=1)
say(event="lost", what="life")
say(event="exit", pid=0, status=0)
sys.stdin.read()
"""


def listening(monkeypatch: pytest.MonkeyPatch) -> EventSource:
    """A source whose program is the one above."""
    command = [sys.executable, "-I", "-S", "-c", TOLD]
    monkeypatch.setattr(selector, "process_events_command", lambda: command)
    return EventSource()


def test_events_come_in_their_order_once_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; what it can't, and what was lost, is known."""
    source = listening(monkeypatch)
    found: list[dict[str, object]] = []
    while not found or found[-1]["event"] != "exit":
        found += source.events(0.5)
    source.close()

    assert [(event["event"], event["pid"]) for event in found] == [
        ("fork", 0), ("fork", 1), ("fork", 2), ("exit", 0),
    ]  # fmt: skip
    assert source.cannot == {"memory": "a test says so"}
    assert source.sees("life")
    assert source.lost


LAST_WORDS = """
import json
for what in ("life", "memory"):
    print(json.dumps({"event": "ready", "what": what}), flush=True)
input()
for number in range(3):
    print(json.dumps({"event": "fork", "pid": number, "ppid": 1}), flush=True)
"""


def test_what_a_program_told_before_its_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words come first, that it has ended after them."""
    command = [sys.executable, "-I", "-S", "-c", LAST_WORDS]
    monkeypatch.setattr(selector, "process_events_command", lambda: command)
    source = EventSource()
    assert source._program.stdin is not None
    source._program.stdin.write(b"\n")
    source._program.stdin.flush()
    source._program.wait()
    last = list(source.events(0.0))
    assert source.sees("life")
    nothing = list(source.events(0.0))
    source.close()

    assert [event["pid"] for event in last] == [0, 1, 2]
    assert nothing == []
    assert set(source.cannot) == {"life", "memory"}


def test_a_program_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for in vain."""
    monkeypatch.setattr(selector, "process_events_command", lambda: [sys.executable, "-c", ""])
    source = EventSource()
    source.close()

    assert set(source.cannot) == {"life", "memory"}
