"""The asyncio forms: the loop is never blocked, and a cancelled task leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from cgmem import aio, running
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from tests.helpers.proc import open_descriptors
from tests.helpers.waiting import Gate

PATIENCE = 30.0
FOR_EVER = ["sleep", "3600"]
COPY = [
    sys.executable, "-c",
    "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)",
]  # fmt: skip


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it in a loop of its own, for a bounded time."""

    async def bounded() -> None:
        await asyncio.wait_for(scene(), PATIENCE)

    asyncio.run(bounded())


async def until(what: Callable[[], bool]) -> bool:
    """Wait for other processes; False after a while."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True


def test_run(how: dict[str, Any]) -> None:
    """`run` gives status and output."""

    async def scene() -> None:
        outcome = await aio.run(
            ["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, **how
        )
        assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (3, b"out\n", b"err\n")
        assert (await aio.run(["true"], **how)).stdout is None
        with pytest.raises(subprocess.CalledProcessError):
            await aio.run(["false"], check=True, **how)

    play(scene)


def test_the_loop_is_not_blocked(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks run on while a subprocess starts, works, and ends: here each waits for them."""
    starts, ends = Gate(), Gate()
    spawn, outcome = running.spawn, MonitoredProcess.outcome

    def slow_spawn(*args: Any, **options: Any) -> MonitoredProcess:
        starts.pass_through()
        return spawn(*args, **options)

    def slow_outcome(process: MonitoredProcess) -> Outcome:
        ends.pass_through()
        return outcome(process)

    monkeypatch.setattr(running, "spawn", slow_spawn)
    monkeypatch.setattr(MonitoredProcess, "outcome", slow_outcome)

    async def scene() -> None:
        starting = asyncio.create_task(aio.spawn(["cat"], stdin=subprocess.PIPE, **how))
        assert await until(starts.reached.is_set)
        starts.open()
        process = await starting
        ending = asyncio.create_task(process.outcome())
        await asyncio.sleep(0)  # it waits for the exit from now on
        assert process.stdin is not None
        process.stdin.close()
        assert await until(ends.reached.is_set)
        ends.open()
        assert (await ending).exit_code == 0

    play(scene)


def test_large_data_both_ways(how: dict[str, Any]) -> None:
    """Both pipes carry more than they hold, at once."""
    data = os.urandom(3 << 20)

    async def scene() -> None:
        outcome = await aio.run(COPY, input=data, capture_output=True, **how)
        assert outcome.stdout == data
        assert outcome.cause == "exited"

    play(scene)


def test_input_that_nobody_reads(how: dict[str, Any]) -> None:
    """A process that ends without reading its input is no error."""

    async def scene() -> None:
        outcome = await aio.run(["true"], input=b"x" * (1 << 20), **how)
        assert outcome.exit_code == 0

    play(scene)


def test_contradicting_options(how: dict[str, Any]) -> None:
    """What subprocess.run refuses is refused, and so is text."""

    async def scene() -> None:
        with pytest.raises(ValueError, match="stdin"):
            await aio.run(["cat"], input=b"x", stdin=subprocess.DEVNULL, **how)
        with pytest.raises(ValueError, match="stdout"):
            await aio.run(["cat"], capture_output=True, stdout=subprocess.PIPE, **how)
        with pytest.raises(ValueError, match="bytes"):
            await aio.spawn(["cat"], text=True, **how)
        with pytest.raises(FileNotFoundError):
            await aio.spawn(["cgmem-no-such"], **how)

    play(scene)
    assert how["supervisor"].live() == []


def test_cancel_kills_the_group(how: dict[str, Any]) -> None:
    """When the task is cancelled, the subprocess and everything it forked ends; no warning."""

    async def scene() -> None:
        task = asyncio.create_task(
            aio.run(["sh", "-c", "sleep 3600 & wait"], capture_output=True, **how)
        )
        assert await until(lambda: bool(how["supervisor"].live()))
        supervision = how["supervisor"].live()[0]
        assert await until(lambda: len(supervision.scope.pids()) >= 2)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await until(supervision.ended.is_set)
        assert supervision.outcome.cause == "aborted"

    play(scene)


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancel_during_the_start(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A task that is cancelled while the subprocess starts leaves nothing running."""
    started: list[MonitoredProcess] = []
    spawn, gate = running.spawn, Gate()

    def slow(*args: Any, **options: Any) -> MonitoredProcess:
        if when == "before":
            gate.pass_through()
        started.append(spawn(*args, **options))
        if when == "after":
            gate.pass_through()
        return started[-1]

    monkeypatch.setattr(running, "spawn", slow)

    async def scene() -> None:
        task = asyncio.create_task(aio.spawn(FOR_EVER, stdout=subprocess.PIPE, **how))
        assert await until(gate.reached.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    play(scene)
    assert started[0].outcome(PATIENCE).cause == "aborted"


def test_several_waiters(how: dict[str, Any]) -> None:
    """Several tasks may wait for one process; one that is cancelled does not disturb the rest."""

    async def scene() -> None:
        process = await aio.spawn(["sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE, **how)
        waiters = [asyncio.create_task(process.wait()) for _ in range(5)]
        await asyncio.sleep(0.05)
        waiters[0].cancel()
        before = process.returncode
        assert before is None
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.gather(*waiters[1:]) == [3] * 4
        assert process.returncode == 3
        assert (await process.outcome()).exit_code == 3
        assert await process.wait() == 3

    play(scene)


def test_streams(how: dict[str, Any]) -> None:
    """The pipes are asyncio's streams."""

    async def scene() -> None:
        process = await aio.spawn(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a line\n")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"a line\n"
        assert process.level == "OK"
        out, err = await process.communicate(b"more")
        assert (out, err) == (b"more", None)

    play(scene)


def test_signals_and_abort(how: dict[str, Any]) -> None:
    """terminate, kill, send_signal and abort do what they do elsewhere."""

    async def ends(act: Callable[[aio.Process], Awaitable[None] | None]) -> tuple[str, int | None]:
        process = await aio.spawn(FOR_EVER, **how)
        done = act(process)
        if done is not None:
            await done
        outcome = await process.outcome()
        return outcome.cause, outcome.signal

    async def scene() -> None:
        assert await ends(lambda process: process.terminate()) == ("signalled", signal.SIGTERM)
        assert await ends(lambda process: process.kill()) == ("signalled", signal.SIGKILL)
        assert await ends(lambda p: p.send_signal(signal.SIGINT)) == ("signalled", signal.SIGINT)
        assert await ends(lambda process: process.abort()) == ("aborted", signal.SIGTERM)

    play(scene)


def test_without_pidfd(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pidfd a thread waits."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    async def scene() -> None:
        assert (await aio.run(["sh", "-c", "exit 3"], **how)).exit_code == 3

    play(scene)


def test_many_at_once(how: dict[str, Any]) -> None:
    """Twenty at once, and no descriptor more than before."""

    async def scene() -> None:
        await aio.run(["true"], capture_output=True, **how)
        before = len(open_descriptors())
        outcomes = await asyncio.gather(
            *(aio.run(["true"], capture_output=True, **how) for _ in range(20))
        )
        assert {outcome.exit_code for outcome in outcomes} == {0}
        await asyncio.sleep(0)
        assert len(open_descriptors()) <= before + 2

    play(scene)
