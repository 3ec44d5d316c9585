"""asyncio forms of `cgmem.spawn` and `cgmem.run`. The event loop is never blocked.

>>> outcome = await cgmem.aio.run(["make"], max="2G")

`TaskToolHelper` here is the asyncio form of `cgmem.task_tool`'s.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from cgmem import running
from cgmem.aio_start import Start
from cgmem.contract import Level
from cgmem.supervising.main_process import exit_descriptor
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess

if TYPE_CHECKING:
    from cgmem.aio_task_tool import TaskToolHelper

__all__ = ["Process", "TaskToolHelper", "run", "spawn"]


def __getattr__(name: str) -> Any:
    # It brings the monitor and the configuration, which `run` and `spawn` don't need.
    if name == "TaskToolHelper":
        from cgmem.aio_task_tool import TaskToolHelper

        return TaskToolHelper
    raise AttributeError(f"module 'cgmem.aio' has no attribute {name!r}")


class _Reading(NamedTuple):
    stream: asyncio.StreamReader
    transport: asyncio.ReadTransport


class Process:
    """A supervised subprocess; feels like asyncio.subprocess.Process, and knows its outcome."""

    def __init__(
        self,
        process: MonitoredProcess,
        stdin: asyncio.StreamWriter | None,
        stdout: _Reading | None,
        stderr: _Reading | None,
    ) -> None:
        self.process = process
        self.stdin = stdin
        self.stdout = stdout and stdout.stream
        self.stderr = stderr and stderr.stream
        self._readers = [reading.transport for reading in (stdout, stderr) if reading is not None]

    @property
    def pid(self) -> int:
        """Process id of the main process."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, None while it runs."""
        # Not MonitoredProcess.poll: what may have to be settled can wait for a disk.
        returncode: int | None = self.process.popen.poll()
        return returncode

    @property
    def subprocess_id(self) -> str:
        """The id under which it is logged and shown."""
        return self.process.subprocess_id

    @property
    def level(self) -> Level:
        """OK, WARNING, CRITICAL or ABORTED, as last judged."""
        return self.process.level

    def send_signal(self, signum: int) -> None:
        """Send a signal to the main process."""
        self.process.send_signal(signum)

    def terminate(self) -> None:
        """Send SIGTERM to the main process."""
        self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the main process."""
        self.process.kill()

    async def wait(self) -> int:
        """Wait for the main process and return its status."""
        await exit_of(self.process)
        return await asyncio.to_thread(self.process.wait)

    async def communicate(self, input: bytes | None = None) -> tuple[Any, Any]:  # noqa: A002  (asyncio's name)
        """Send `input`, read both pipes to their ends, wait."""
        _, stdout, stderr = await asyncio.gather(
            _feed(self.stdin, input), _read(self.stdout), _read(self.stderr)
        )
        await self.wait()
        return stdout, stderr

    async def outcome(self) -> Outcome:
        """Wait for the end of the main process and of its leftovers; say how it ended."""
        await self.wait()
        return await asyncio.to_thread(self.process.outcome)

    def close_pipes(self) -> None:
        """Give up the pipes without reading them to their ends."""
        if self.stdin is not None:
            self.stdin.close()
        for reader in self._readers:
            reader.close()

    async def abort(self, grace_seconds: float | None = None) -> None:
        """End the whole group: SIGTERM, the grace time, SIGKILL."""
        await asyncio.to_thread(self.process.abort, grace_seconds)


async def spawn(args: Any, **options: Any) -> Process:
    """Start a command under a memory budget. Options and errors as `cgmem.spawn`.

    Pipes carry bytes, as in asyncio: `text`, `encoding` and `errors` are refused (ValueError).
    """
    for name in ("text", "encoding", "errors", "universal_newlines"):
        if options.get(name):
            raise ValueError(f"{name}: asyncio's pipes carry bytes")
    options.setdefault("bufsize", 0)
    process = await Start(lambda: running.spawn(args, **options), _end_unwanted).result()
    try:
        return Process(
            process,
            await _writer(process.stdin),
            await _reader(process.stdout),
            await _reader(process.stderr),
        )
    except BaseException:
        process.supervision.kill("abort")
        raise


async def run(
    args: Any,
    *,
    input: bytes | None = None,  # noqa: A002  (subprocess.run's name)
    capture_output: bool = False,
    check: bool = False,
    **options: Any,
) -> Outcome:
    """Run a command under a memory budget and say how it ended. As `cgmem.run`.

    When the task is cancelled, the whole group is killed.
    """
    options = running.with_pipes(options, input, capture_output=capture_output)
    process = await spawn(args, **options)
    try:
        stdout, stderr = await process.communicate(input)
        outcome = await process.outcome()
    except BaseException:
        process.process.supervision.kill("abort")
        process.close_pipes()
        raise
    outcome = outcome._replace(stdout=stdout, stderr=stderr)
    if check:
        outcome.check_returncode()
    return outcome


def _end_unwanted(process: MonitoredProcess) -> None:
    process.supervision.kill("abort")
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


async def exit_of(process: MonitoredProcess) -> None:
    """Wait for the exit on a pidfd, where there is one; else return at once."""
    if process.popen.poll() is not None:
        return
    descriptor = exit_descriptor(process.pid)
    if descriptor is None:
        return
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, _settle, exited)
        await exited
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _reader(pipe: Any) -> _Reading | None:
    if pipe is None:
        return None
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe
    )
    return _Reading(reader, transport)


async def _writer(pipe: Any) -> asyncio.StreamWriter | None:
    if pipe is None:
        return None
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _read(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None:
        return
    try:
        if data:
            stream.write(data)
            await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the process did not want it all, as with Popen.communicate
