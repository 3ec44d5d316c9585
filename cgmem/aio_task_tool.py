"""The asyncio form of `cgmem.task_tool.TaskToolHelper`: `cgmem.aio.TaskToolHelper`."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from cgmem import task_tool
from cgmem.aio import exit_of
from cgmem.aio_start import Start
from cgmem.contract import Level
from cgmem.monitoring import SubprocessMemoryMonitor
from cgmem.supervising.supervisor import Supervisor
from cgmem.tasks.task_configuration import TaskToolConfiguration


class TaskToolHelper:
    """As `cgmem.task_tool.TaskToolHelper`; the event loop is never blocked.

    A task that is cancelled while it creates a subprocess leaves none; one that is cancelled while
    it waits for the end leaves the subprocess running.
    """

    def __init__(
        self,
        working_directory: str | os.PathLike[str] | None = None,
        config: TaskToolConfiguration | None = None,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._helper = task_tool.TaskToolHelper(working_directory, config, supervisor=supervisor)

    @property
    def config(self) -> TaskToolConfiguration:
        """As it was given."""
        return self._helper.config

    @property
    def working_directory(self) -> str:
        """Where agents work, absolute."""
        return self._helper.working_directory

    @property
    def memory_monitor(self) -> SubprocessMemoryMonitor:
        """The monitor of its subprocesses. None of its methods waits for a process."""
        return self._helper.memory_monitor

    async def __aenter__(self) -> TaskToolHelper:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.cleanup()

    async def create_agent_subprocess(
        self, agent_type: str, task_description: str, *args: Any, **options: Any
    ) -> dict[str, Any]:
        """As there."""
        create = self._helper.create_agent_subprocess
        start = Start(
            lambda: create(agent_type, task_description, *args, **options), self._unwanted
        )
        return await start.result()

    async def check_subprocess_memory(self, subprocess_id: str) -> tuple[float, Level]:
        """As there."""
        return await asyncio.to_thread(self._helper.check_subprocess_memory, subprocess_id)

    async def complete_subprocess(
        self,
        subprocess_id: str,
        results: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As there: raises subprocess.TimeoutExpired, `UnknownIdError`."""
        process = self._helper.process(subprocess_id)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout(timeout):
                await exit_of(process)
        except TimeoutError:
            raise subprocess.TimeoutExpired(process.args, timeout or 0.0) from None
        left = deadline and max(0.0, deadline - asyncio.get_running_loop().time())
        return await asyncio.to_thread(
            self._helper.complete_subprocess, subprocess_id, results, left
        )

    async def abort_subprocess(
        self, subprocess_id: str, grace_seconds: float | None = None
    ) -> dict[str, Any]:
        """As there."""
        return await asyncio.to_thread(self._helper.abort_subprocess, subprocess_id, grace_seconds)

    async def get_subprocess_status(self, subprocess_id: str | None = None) -> dict[str, Any]:
        """As there."""
        return await asyncio.to_thread(self._helper.get_subprocess_status, subprocess_id)

    async def cleanup(self, grace_seconds: float | None = None) -> list[dict[str, Any]]:
        """As there."""
        return await asyncio.to_thread(self._helper.cleanup, grace_seconds)

    def _unwanted(self, result: Mapping[str, Any]) -> None:
        if result["success"]:
            self._helper.process(result["subprocess_id"]).supervision.kill("abort")
