"""The asyncio form of the Task Tool helper: the loop is free, a cancelled start leaves nothing."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem import aio
from cgmem.errors import UnknownIdError
from cgmem.supervising.supervisor import Supervisor
from cgmem.task_tool import TaskToolConfiguration
from tests.helpers.ending import end
from tests.helpers.waiting import Gate

PATIENCE = 30.0
FOR_EVER = ["sleep", "3600"]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor of the test's own, on the backend that works anywhere."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CGMEM_BACKEND", "psutil")
    made = Supervisor()
    yield made
    end(made)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it in a loop of its own, for a bounded time."""

    async def bounded() -> None:
        await asyncio.wait_for(scene(), PATIENCE)

    asyncio.run(bounded())


def test_tasks_side_by_side(supervisor: Supervisor, tmp_path: Path) -> None:
    """Several agents run at once; each is checked, completed, aborted or waited for in vain."""

    async def scene() -> None:
        config = TaskToolConfiguration(command=["sh", "-c", "echo $0", "{task}"])
        async with aio.TaskToolHelper(tmp_path, config, supervisor=supervisor) as helper:
            results = await asyncio.gather(
                *(
                    helper.create_agent_subprocess("qa", f"task {n}", capture_output=True)
                    for n in range(4)
                )
            )
            done = await asyncio.gather(
                *(helper.complete_subprocess(result["subprocess_id"]) for result in results)
            )
            assert [one["stdout"] for one in done] == [f"task {n}\n" for n in range(4)]
            waits = await helper.create_agent_subprocess("qa", "wait", command=FOR_EVER)
            name = waits["subprocess_id"]
            assert (await helper.check_subprocess_memory(name))[1] == "OK"
            with pytest.raises(subprocess.TimeoutExpired):
                await helper.complete_subprocess(name, timeout=0.05)
            assert (await helper.get_subprocess_status(name))["status"] == "running"
            assert list(helper.memory_monitor.active_monitors) == [name]
            assert (await helper.abort_subprocess(name, 5))["status"] == "aborted"
            assert (await helper.complete_subprocess(name))["status"] == "aborted"
            left = await helper.create_agent_subprocess("qa", "wait", command=FOR_EVER)
            assert (helper.working_directory, helper.config) == (str(tmp_path), config)
        assert supervisor.find(left["subprocess_id"]) is None
        with pytest.raises(UnknownIdError):
            await helper.complete_subprocess(left["subprocess_id"])

    play(scene)


def test_a_cancelled_start_leaves_nothing(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled while its subprocess starts ends that subprocess."""
    started = []
    real, gate = supervisor.spawn, Gate()

    def slow(*args: Any, **options: Any) -> Any:
        started.append(real(*args, **options))
        gate.pass_through()
        return started[0]

    monkeypatch.setattr(supervisor, "spawn", slow)

    async def scene() -> None:
        helper = aio.TaskToolHelper(
            tmp_path, TaskToolConfiguration(command=FOR_EVER), supervisor=supervisor
        )
        task = asyncio.create_task(helper.create_agent_subprocess("qa", "wait"))
        while not gate.reached.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    play(scene)

    assert started[0].outcome(timeout=PATIENCE).cause == "aborted"
