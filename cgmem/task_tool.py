"""The Task Tool's helper: agent subprocesses under their budgets (spec, "Integration with Task
Tool").

>>> helper = TaskToolHelper()
>>> result = helper.create_agent_subprocess("engineer", "Implement feature X")
>>> helper.check_subprocess_memory(result["subprocess_id"])
(1523.4, 'WARNING')
>>> helper.complete_subprocess(result["subprocess_id"])["status"]
'completed'

What a task starts, and under which budget, is configured: docs/task-tool.md. `cgmem.aio` has the
asyncio form.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from cgmem.config.settings import Settings
from cgmem.config.thresholds import MemoryThresholds
from cgmem.contract import Alert, Level
from cgmem.errors import CgmemError, ConfigurationError
from cgmem.logs.directory import resolve_log_dir
from cgmem.monitoring import SubprocessMemoryMonitor, thresholds_of
from cgmem.running import default_supervisor
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervisor import Hooks, Supervisor
from cgmem.tasks.agent_book import AgentBook
from cgmem.tasks.agent_command import AgentCommand
from cgmem.tasks.agent_record import AgentRecord, failure, stdin_file
from cgmem.tasks.task_configuration import TaskToolConfiguration
from cgmem.tasks.task_prompt import Task
from cgmem.text.ids import new_id
from cgmem.text.words import shown

__all__ = ["TaskToolConfiguration", "TaskToolHelper"]


class TaskToolHelper:
    """Starts, watches and ends agent subprocesses. Thread-safe.

    `working_directory` is where agents work unless their template says otherwise, and from where
    the configuration file and `.claude-pm/` are looked for upwards (None: the current one). As a
    context manager it ends what still runs.
    """

    def __init__(
        self,
        working_directory: str | os.PathLike[str] | None = None,
        config: TaskToolConfiguration | None = None,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.working_directory = _directory(working_directory)
        self.config = config or TaskToolConfiguration()
        self._supervisor = supervisor or default_supervisor()
        self._book = AgentBook()
        settings = self._settings(None)
        self.memory_monitor = SubprocessMemoryMonitor(
            thresholds_of(settings), settings.log_dir, supervisor=self._supervisor
        )

    def __enter__(self) -> TaskToolHelper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cleanup()

    def create_agent_subprocess(
        self,
        agent_type: str,
        task_description: str,
        requirements: Sequence[str] | None = None,
        deliverables: Sequence[str] | None = None,
        dependencies: Sequence[str] | None = None,
        priority: str = "medium",
        memory_categories: Sequence[str] | None = None,
        timeout_seconds: float | None = None,
        escalation_triggers: Sequence[str] | None = None,
        integration_notes: str = "",
        *,
        thresholds: MemoryThresholds | None = None,
        prompt: str | None = None,
        command: str | Sequence[str] | None = None,
        capture_output: bool = False,
        on_alert: Callable[[str, Alert], Any] | None = None,
        on_end: Callable[[Outcome], Any] | None = None,
    ) -> dict[str, Any]:
        """Check the memory, start the agent's command under its budget, and say what was started.

        The prompt is made from the task unless `prompt` gives it. `thresholds` and
        `timeout_seconds` go before the configuration, `command` before the configured one.
        With `capture_output` both outputs go to temporary files, for `complete_subprocess`;
        otherwise they are this process's own.

        What the machine refuses (too little memory, a command that isn't there) is returned:
        `success` False, `error`, `hint`. A wrong configuration, none for the agent type included,
        raises `ConfigurationError`.
        """
        task = Task(
            _word(agent_type, "agent_type"),
            _word(task_description, "task_description"),
            requirements or (),
            deliverables or (),
            dependencies or (),
            priority,
            memory_categories or (),
            escalation_triggers or (),
            integration_notes,
        )
        settings = self._settings(agent_type, thresholds, timeout_seconds)
        template = self.config.command(settings, agent_type, self.working_directory, command)
        allowed, message = self._preflight(settings)
        told = task.prompt() if prompt is None else prompt
        record = AgentRecord(task, new_id(agent_type), told, settings, message)
        if not allowed:
            return failure(record, message, "free memory, or wait for others to end")
        try:
            self._start(record, template, capture_output, Hooks(on_alert, on_end))
        except ConfigurationError:
            raise
        except (CgmemError, OSError, ValueError) as error:  # ValueError: NUL in an argument
            return failure(record, str(error), _hint(error))
        return record.created()

    def check_subprocess_memory(self, subprocess_id: str) -> tuple[float, Level]:
        """Look now: (MB, status); statuses as in `cgmem.monitoring`."""
        record = self._book.find(subprocess_id)
        if record is not None:
            return record.running().check_memory()
        return self.memory_monitor.check_memory(subprocess_id)

    def complete_subprocess(
        self,
        subprocess_id: str,
        results: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Wait for its end and say how it went; `results` are the caller's own, kept with it.

        `status` is completed (exit status 0), failed, aborted or timeout; `success` is whether it
        is completed. Raises subprocess.TimeoutExpired after `timeout` seconds, `UnknownIdError`.
        """
        record = self._book.record(subprocess_id)
        outcome = record.running().outcome(timeout)
        self._forget_monitor(outcome)
        return self._book.completed(record, outcome, results)

    def abort_subprocess(
        self, subprocess_id: str, grace_seconds: float | None = None
    ) -> dict[str, Any]:
        """End its whole group (SIGTERM, `grace_seconds`, SIGKILL) and return as completed.

        `grace_seconds` None: the setting. Raises `UnknownIdError`.
        """
        self._book.record(subprocess_id).running().abort(grace_seconds)
        return self.complete_subprocess(subprocess_id)

    def get_subprocess_status(self, subprocess_id: str | None = None) -> dict[str, Any]:
        """Return the state of one subprocess (`UnknownIdError` for none), or of all by id."""
        if subprocess_id is not None:
            return self._book.record(subprocess_id).status()
        return {record.subprocess_id: record.status() for record in self._book.records()}

    def process(self, subprocess_id: str) -> MonitoredProcess:
        """Return the process: what `cgmem.spawn` gives. Raises `UnknownIdError`."""
        return self._book.record(subprocess_id).running()

    def cleanup(self, grace_seconds: float | None = None) -> list[dict[str, Any]]:
        """End what still runs, forget everything; return how each of them ended."""
        running = [record for record in self._book.records() if not record.has_ended()]
        for record in running:
            record.running().abort(grace_seconds)
        ended = [self.complete_subprocess(record.subprocess_id) for record in running]
        self._book.clear()
        return ended

    # --- the steps of a start

    def _settings(
        self,
        agent_type: str | None,
        thresholds: MemoryThresholds | None = None,
        timeout_seconds: float | None = None,
    ) -> Settings:
        settings = self.config.settings(
            agent_type,
            directory=self.working_directory,
            thresholds=thresholds,
            timeout_seconds=timeout_seconds,
        )
        log_dir = resolve_log_dir(
            settings.log_dir,
            source=settings.origins["log_dir"],
            environ=os.environ,
            cwd=self.working_directory,
        )
        return settings._replace(log_dir=str(log_dir))

    def _preflight(self, settings: Settings) -> tuple[bool, str]:
        """The spec's check and its message; `OK` where nothing is checked."""
        if settings.disabled or not settings.preflight:
            return True, "OK"
        allowed, message = self.memory_monitor.can_create_subprocess()
        if allowed and message != "OK":
            self._supervisor.warn(message)
        return allowed, message

    def _start(
        self, record: AgentRecord, template: AgentCommand, capture_output: bool, hooks: Hooks
    ) -> None:
        filled = template.filled(record.placeholders(self.working_directory))
        with ExitStack() as on_failure:
            if capture_output:
                record.open_outputs()
                on_failure.callback(record.close)
            with ExitStack() as inputs:
                record.started(
                    self._supervisor.spawn(
                        list(filled.command),
                        {
                            "stdin": inputs.enter_context(stdin_file(filled.stdin)),
                            "stdout": record.stdout,
                            "stderr": record.stderr,
                            "cwd": filled.cwd or self.working_directory,
                            "env": {**os.environ, **filled.env},
                        },
                        settings=record.settings,
                        subprocess_id=record.subprocess_id,
                        agent_type=record.task.agent_type,
                        hooks=hooks._replace(on_end=self._on_end(hooks.on_end)),
                        must_fit=True,
                    )
                )
            on_failure.pop_all()
        self._remember(record)

    def _remember(self, record: AgentRecord) -> None:
        self._book.enter(record)
        if not record.settings.disabled:
            self.memory_monitor.start_monitoring(record.subprocess_id, record.info())
            if record.has_ended():  # before there was an entry for `on_end` to remove
                self.memory_monitor.stop_monitoring(record.subprocess_id)

    def _on_end(self, then: Callable[[Outcome], Any] | None) -> Callable[[Outcome], Any]:
        def ended(outcome: Outcome) -> None:
            self._forget_monitor(outcome)
            if then is not None:
                then(outcome)

        return ended

    def _forget_monitor(self, outcome: Outcome) -> None:
        """Spec, "Subprocess Termination": memory tracking is cleaned up."""
        self.memory_monitor.stop_monitoring(outcome.subprocess_id)


def _directory(path: str | os.PathLike[str] | None) -> str:
    absolute = os.path.abspath(path or ".")  # noqa: PTH100  (a str, and symlinks stay)
    if not os.path.isdir(absolute):  # noqa: PTH112  (likewise)
        raise ConfigurationError(
            f"working_directory: {absolute!a} is not a directory",
            hint="name one that is there",
        )
    return absolute


def _word(text: object, name: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{name}: {shown(text)} says nothing", hint="write text")
    return text


def _hint(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        return "pass the prompt on the standard input: stdin: '{prompt}'"
    hint: str | None = getattr(error, "hint", None)
    return hint
