"""Reading the program that tells of processes: a written one stands in for it."""

from __future__ import annotations

import sys

import pytest

from cgmem import selector
from cgmem.cli.events import EventSource

SLOWLY = """
import json, sys, time
def say(**event):
    print(json.dumps(event), flush=True)
say(event="ready", what="life")
for pid in range(3):
    say(event="fork", pid=pid, ppid=1)
    time.sleep(0.25)
say(event="cannot", what="memory", why="a test says so")
say(event="exit", pid=0, status=0)
sys.stdin.read()
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells of three forks before it has said what it can do."""
    command = [sys.executable, "-I", "-S", "-c", SLOWLY]
    monkeypatch.setattr(selector, "process_events_command", lambda: command)


def test_events_that_came_before_it_was_ready_come_first(program: None) -> None:
    """Each once, in their order."""
    source = EventSource()
    found = [*source.events(0.5)]
    while len(found) < 4:
        found += source.events(0.5)
    source.close()

    assert [(event["event"], event["pid"]) for event in found] == [
        ("fork", 0), ("fork", 1), ("fork", 2), ("exit", 0),
    ]  # fmt: skip
    assert source.cannot == {"memory": "a test says so"}
    assert source.sees("life")


def test_a_program_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for in vain."""
    monkeypatch.setattr(selector, "process_events_command", lambda: [sys.executable, "-c", ""])
    source = EventSource()
    source.close()

    assert set(source.cannot) == {"life", "memory"}
