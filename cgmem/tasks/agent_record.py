"""One agent subprocess of the Task Tool's helper: what it was told, its process, how it went."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from cgmem.config.settings import Settings
from cgmem.contract import Cause
from cgmem.logs.lines import local_timestamp
from cgmem.monitoring import thresholds_of
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervision import Supervision
from cgmem.tasks.task_prompt import Task

_STATUS: dict[Cause, str] = {
    "hard_limit": "aborted",
    "stalled": "aborted",
    "aborted": "aborted",
    "timeout": "timeout",
}


class AgentRecord:
    """Its owner, the helper, sees to threads."""

    def __init__(
        self, task: Task, subprocess_id: str, prompt: str, settings: Settings, memory_word: str
    ) -> None:
        self.task = task
        self.subprocess_id = subprocess_id
        self.prompt = prompt
        self.settings = settings
        self.memory_word = memory_word
        self.process: MonitoredProcess | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._creation_time = local_timestamp(time.time())
        self._results: Mapping[str, Any] | None = None
        self._outputs: tuple[str | None, str | None] = (None, None)

    def open_outputs(self) -> None:
        """Have both outputs collected in temporary files. Raises `OSError`."""
        self.stdout = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  (likewise)

    def started(self, process: MonitoredProcess) -> None:
        """It runs."""
        self.process = process

    def has_ended(self) -> bool:
        """Whether the outcome is there."""
        return self.process is not None and self.process.supervision.outcome is not None

    def running(self) -> MonitoredProcess:
        """The process, of a record that was started."""
        assert self.process is not None
        return self.process

    def placeholders(self, working_directory: str) -> dict[str, str]:
        """What the placeholders of the command template stand for."""
        return {
            "prompt": self.prompt,
            "task": self.task.task_description,
            "agent_type": self.task.agent_type,
            "subprocess_id": self.subprocess_id,
            "working_directory": working_directory,
        }

    def info(self) -> dict[str, Any]:
        """What the monitor is told."""
        return {
            "process": self.process,
            "agent_type": self.task.agent_type,
            "task_description": self.task.task_description,
        }

    def created(self) -> dict[str, Any]:
        """What `create_agent_subprocess` returns."""
        process = self.running()
        return {
            "success": True,
            "subprocess_id": self.subprocess_id,
            "pid": process.pid,
            "agent_type": self.task.agent_type,
            "task_description": self.task.task_description,
            "prompt": self.prompt,
            "command": list(process.args),
            "creation_time": self._creation_time,
            "timeout_seconds": self.settings.timeout_seconds,
            "memory_monitoring": self.memory_monitoring(),
        }

    def memory_monitoring(self) -> dict[str, Any]:
        """The budget, and who holds it."""
        thresholds = thresholds_of(self.settings)
        limited = self.settings.max_bytes is not None
        found: dict[str, Any] = {
            "enabled": not self.settings.disabled,
            "thresholds": {
                "warning_mb": thresholds.warning_mb,
                "critical_mb": thresholds.critical_mb,
                "max_mb": thresholds.max_mb if limited else None,
            },
            "preflight": self.memory_word,
        }
        supervision = self.process and self.process.supervision
        if isinstance(supervision, Supervision):
            found["backend"] = supervision.plan.backend
            found["enforced"] = supervision.plan.effective.enforced
            found["log_dir"] = supervision.scope.record.log_dir
        return found

    def status(self) -> dict[str, Any]:
        """What `get_subprocess_status` returns."""
        memory_mb, level = self.running().check_memory()
        outcome = self.running().supervision.outcome
        return {
            **self.created(),
            "status": "running" if outcome is None else status_of(outcome),
            "memory_status": {"current_mb": memory_mb, "status": level},
        }

    def completed(self, outcome: Outcome, results: Mapping[str, Any] | None) -> dict[str, Any]:
        """What `complete_subprocess` returns."""
        self._results = results if results is not None else self._results
        self._collect()
        status = status_of(outcome)
        return {
            "success": status == "completed",
            "subprocess_id": self.subprocess_id,
            "agent_type": self.task.agent_type,
            "status": status,
            "cause": outcome.cause,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "message": outcome.message,
            "memory_stats": {
                "start_mb": outcome.start_mb,
                "peak_mb": outcome.peak_mb,
                "end_mb": outcome.end_mb,
                "duration_seconds": outcome.duration_seconds,
                "warnings": list(outcome.warnings),
                "aborted": outcome.aborted,
            },
            "results": self._results,
            "stdout": self._outputs[0],
            "stderr": self._outputs[1],
        }

    def close(self) -> None:
        """Give up the temporary files."""
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()

    def _collect(self) -> None:
        if self.stdout is None or self.stderr is None or self.stdout.closed:
            return
        self._outputs = _text(self.stdout), _text(self.stderr)
        self.close()


def status_of(outcome: Outcome) -> str:
    """Return completed, failed, aborted or timeout."""
    if outcome.cause == "exited" and outcome.exit_code == 0:
        return "completed"
    return _STATUS.get(outcome.cause, "failed")


def failure(record: AgentRecord, error: str, hint: str | None) -> dict[str, Any]:
    """What `create_agent_subprocess` returns where nothing was started."""
    return {
        "success": False,
        "subprocess_id": None,
        "pid": None,
        "agent_type": record.task.agent_type,
        "task_description": record.task.task_description,
        "prompt": record.prompt,
        "error": error,
        "hint": hint,
        "memory_monitoring": record.memory_monitoring(),
    }


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextmanager
def stdin_file(text: str | None) -> Iterator[IO[bytes] | int]:
    """Give a standard input with this text, or none.

    A file: a pipe would need somebody who writes while the agent reads.
    """
    if text is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(text.encode(errors="surrogateescape"))
        file.seek(0)
        yield file
