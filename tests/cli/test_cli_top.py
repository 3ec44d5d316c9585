"""`cgmem top`: its screen with written rows, and once on a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cgmem.cli.processes import Seen
from cgmem.cli.scope_table import Row
from cgmem.contract import MB, MemoryStat, ProcessMemory, Snapshot
from cgmem.inspecting import orders
from tests.cli.command import POLLED, cgmem, start
from tests.cli.terminal import bash
from tests.unit.test_scope_table import a_row

pytest.importorskip("textual")

from textual.widgets import DataTable, Static

from cgmem.cli import top_app
from cgmem.cli.top_app import Processes, Question, TopApp

ROWS = [a_row("small", 10, "CRITICAL"), a_row("large", 90, growth=1.0)]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Locations that were asked to be killed; nothing real is touched."""
    asked: list[str] = []

    def look(trend: Any, _wanted: Any) -> list[Row]:
        trend.note(1.0, [(row.live.location, row.live.judged_bytes) for row in ROWS])
        return ROWS

    @contextmanager
    def target(name: str) -> Iterator[str]:
        yield name

    def kill(to: Any, _grace: float, _warn: Any) -> tuple[int, bool, bool]:
        asked.append(to)
        return 1, False, True

    monkeypatch.setattr(top_app, "look_at_all", look)
    monkeypatch.setattr(orders, "target", target)
    monkeypatch.setattr(orders, "kill", kill)
    return asked


def play(act: Callable[[TopApp, Any], Awaitable[None]]) -> None:
    """Run the screen without a terminal, in 80 columns, and do something with it."""

    async def go() -> None:
        app = TopApp(3600.0, "level")
        async with app.run_test(size=(80, 20)) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            await act(app, pilot)

    asyncio.run(go())


def ids(app: TopApp) -> list[str]:
    """The first column."""
    table = app.query_one("#scopes", DataTable)
    return [str(table.get_row_at(number)[0]) for number in range(table.row_count)]


def test_rows_and_order(killed: list[str]) -> None:
    """The worst is on top; `s` goes to the next order."""

    async def act(app: TopApp, pilot: Any) -> None:
        assert ids(app) == ["small", "large"]
        await pilot.press("s")
        assert ids(app) == ["large", "small"]

    play(act)


def test_killing_asks_first(killed: list[str]) -> None:
    """Any key but y leaves it alone; y kills the one under the cursor."""

    async def act(app: TopApp, pilot: Any) -> None:
        await pilot.press("k")
        assert isinstance(app.screen, Question)
        await pilot.press("n")
        assert killed == []
        await pilot.press("down", "k", "y")
        await app.workers.wait_for_complete()

    play(act)
    assert killed == ["/large"]


def test_the_processes_of_one(killed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter shows what the memory is and the tree with PSS, escape goes back."""
    monkeypatch.setattr(top_app, "look", lambda _pids: [Seen(7, 3.0, "sh -c x", 1)])
    shared = ProcessMemory(7, ("sh",), 2 * MB, "pss")
    snapshot = Snapshot(MemoryStat(anon=5 * MB), (shared,), partial=False)
    monkeypatch.setattr(top_app, "inspected", lambda _live, _most: snapshot)

    async def act(app: TopApp, pilot: Any) -> None:
        await pilot.press("enter")
        await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert isinstance(app.screen, Processes)
        assert str(app.screen.query_one("#memory", Static).render()) == "anon 5M"
        table = app.screen.query_one(DataTable)
        assert [str(cell) for cell in table.get_row_at(0)] == ["7", "2.0", "3.0", "sh -c x"]
        await pilot.press("escape")
        assert not isinstance(app.screen, Processes)

    play(act)


def test_top_needs_a_terminal(tmp_path: Path) -> None:
    """In a pipe it says what to use."""
    done = cgmem("top", cwd=tmp_path)

    assert done.returncode == 2
    assert "cgmem ps --watch" in done.stderr


def test_top_as_json_is_one_look(tmp_path: Path) -> None:
    """In a pipe, as ps prints it."""
    name = f"top-json-{os.getpid()}"
    words = ("run", *POLLED, "-q", "--id", name, "--", "sh", "-c", "echo on; exec sleep 300")

    def seen(verb: str) -> set[str]:
        listed = json.loads(cgmem(verb, "--json", cwd=tmp_path).stdout)
        (mine,) = [one for one in listed if one["subprocess_id"] == name]
        return set(mine)

    with start(*words, cwd=tmp_path) as run:
        assert run.stdout is not None
        run.stdout.readline()
        top, ps = seen("top"), seen("ps")
        run.terminate()

    assert top == ps


def test_top_on_a_terminal(tmp_path: Path) -> None:
    """A live subprocess is on the screen; q gives the terminal back."""
    name = f"top-{os.getpid()}"
    words = ("run", *POLLED, "-q", "--id", name, "--", sys.executable, "-c", "input()")
    with start(*words, cwd=tmp_path, stdin=-1) as run:
        with bash(tmp_path, LC_ALL="C.UTF-8") as terminal:
            terminal.line("stty rows 24 columns 100")
            terminal.line("cgmem top --sort age; echo status $?")
            terminal.expect("sorted by age")
            terminal.expect(name)
            terminal.type("q")
            terminal.expect("status 0")
        run.terminate()
