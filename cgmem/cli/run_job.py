"""What `cgmem run` does: one command under a budget, as a foreground job. Without click."""

from __future__ import annotations

import gc
import subprocess

from cgmem.cli import setting_flags
from cgmem.cli.errors import RUN_TROUBLE, complain, described, die_of
from cgmem.cli.foreground import ForegroundJob
from cgmem.cli.report import Report, open_report
from cgmem.cli.signals import Inbox
from cgmem.cli.voice import Voice
from cgmem.config.settings import Settings
from cgmem.config.thresholds import larger_than_machine
from cgmem.contract import Alert, Thresholds
from cgmem.errors import CgmemError
from cgmem.judging.verdict import Verdict, exit_status
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Hooks, OnAlert, Supervisor
from cgmem.text.sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgmem.cli.progress import Progress
    from cgmem.cli.recording import Recording

OUTCOME_LOOK_SECONDS = 0.2
"""How often to look for signals while leftovers are waited for."""


def run(
    words: tuple[str, ...],
    subprocess_id: str | None,
    agent_type: str | None,
    config: str | None,
    report: str | None,
    record: str | None,
    quiet: bool,
    verbose: bool,
    **values: object,
) -> int:
    """Run `words` with the options of `cgmem.cli.run_options`; the exit status."""
    voice = Voice(quiet=quiet, verbose=verbose)
    try:
        outlet = open_report(report)
    except CgmemError as error:
        complain(described(error))
        return RUN_TROUBLE
    supervisor = Supervisor(
        resolve_settings=setting_flags.resolver(config), warn=voice.warn, own_process=True
    )
    inbox = Inbox()
    try:
        recording = None if record is None else _recording(record, voice)
        settings = supervisor.settings(setting_flags.given(values), agent_type)
        _note_larger_than_machine(supervisor, settings, voice)
        inbox.open()
        process = supervisor.spawn(
            list(words),
            {},
            settings=settings,
            subprocess_id=_checked(subprocess_id),
            agent_type=agent_type,
            hooks=Hooks(on_alert=_listener(voice, recording), on_start=inbox.block),
        )
    except (CgmemError, OSError, ValueError, subprocess.SubprocessError) as error:
        supervisor.close()
        return _refused(error, words, outlet, voice)
    gc.freeze()  # nothing that modules made ends before the program does: spare every look at it
    gc.enable()  # see `cgmem.cli.main`
    if not settings.disabled and not quiet:
        _say_note(supervisor.choice(settings).note, voice)
    voice.detail(_started(supervisor, settings, process))
    progress = _progress(process, recording, verbose=verbose)
    outcome = _attend(supervisor, process, inbox, progress)
    if recording is not None:
        recording.end(outcome)
    return _finish(outcome, outlet, voice)


def _recording(path: str, voice: Voice) -> Recording:
    from cgmem.cli.recording import Recording

    return Recording(path, voice.warn)


def _listener(voice: Voice, recording: Recording | None) -> OnAlert:
    def listen(subprocess_id: str, alert: Alert) -> None:
        voice.alert(subprocess_id, alert)
        if recording is not None:
            recording.alert(alert)

    return voice.alert if recording is None else listen


def _progress(
    process: MonitoredProcess, recording: Recording | None, *, verbose: bool
) -> Progress | None:
    """Start to show and record, where that was asked for."""
    supervision = process.supervision
    if not (verbose or recording) or not isinstance(supervision, Supervision):
        return None
    from cgmem.cli.progress import Progress
    from cgmem.cli.status_line import StatusLine

    line = StatusLine.where_possible() if verbose else None
    progress = Progress(supervision, line, recording)
    progress.start()
    return progress


def _note_larger_than_machine(supervisor: Supervisor, settings: Settings, voice: Voice) -> None:
    if settings.origins["max"] == "default":
        return
    thresholds = Thresholds(settings.warning_bytes, settings.critical_bytes, settings.max_bytes)
    note = larger_than_machine(thresholds, supervisor.system_memory().total_bytes)
    if note is not None:
        voice.warn(note)


def _say_note(note: str | None, voice: Voice) -> None:
    if note is None:
        return
    from cgmem.cli.once import first_time

    if first_time(note):
        voice.warn(note)


def _checked(subprocess_id: str | None) -> str | None:
    from cgmem.text.ids import check_id

    return None if subprocess_id is None else check_id(subprocess_id, source="--id")


def _refused(error: Exception, words: tuple[str, ...], outlet: Report, voice: Voice) -> int:
    from cgmem.cli.start_failure import start_failure

    status, failure = start_failure(error, words)
    complain(failure)
    outlet.write({"error": failure.message, "hint": failure.hint, "exit_code": status}, voice.warn)
    return status


def _started(supervisor: Supervisor, settings: Settings, process: MonitoredProcess) -> str:
    if settings.disabled:
        return f"{process.subprocess_id}: memory monitoring is disabled"
    budget = ", ".join(
        f"{name} {format_size(size)}"
        for name, size in (
            ("warning", settings.warning_bytes),
            ("critical", settings.critical_bytes),
            ("max", settings.max_bytes),
        )
    )
    if settings.group_name is not None:
        budget += f", group {settings.group_name}"
    budget += _lower_limit(process)
    where = supervisor.logs(settings).directory
    choice = supervisor.choice(settings)
    return f"{process.subprocess_id}: {budget}; {choice.reason}; logs in {where}"


def _lower_limit(process: MonitoredProcess) -> str:
    """The limit that counts, where it is not the one that was asked for."""
    if not isinstance(process.supervision, Supervision):
        return ""
    held = process.supervision.plan.effective
    if held.effective_max_bytes in (None, held.max_bytes):
        return ""
    return f", effective {format_size(held.effective_max_bytes)} ({held.effective_max_source})"


def _attend(
    supervisor: Supervisor, process: MonitoredProcess, inbox: Inbox, progress: Progress | None
) -> Outcome:
    """Be the foreground job until the end, then wait for the verdict and the logs."""
    job = ForegroundJob(
        process,
        inbox,
        move_timers=process.supervision.pause,
        ending=lambda: process.supervision.ending,
        before_stop=_nothing if progress is None else progress.hide,
    )
    try:
        job.wait()
        _await_outcome(process, inbox)
    finally:
        if progress is not None:
            progress.stop()
        supervisor.close()
    return process.outcome()


def _nothing() -> None:
    """Nothing has to be hidden."""


def _await_outcome(process: MonitoredProcess, inbox: Inbox) -> None:
    """Wait until the leftovers are gone too, or a signal says that we need not."""
    while True:
        try:
            process.outcome(OUTCOME_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if inbox.asked_to_end():
                return
        else:
            return


def _finish(outcome: Outcome, outlet: Report, voice: Voice) -> int:
    voice.end(outcome)
    found = Verdict(outcome.cause, outcome.exit_code, outcome.signal, outcome.message)
    end = exit_status(found, sigkill_needed=outcome.sigkill_needed)
    outlet.write(outcome.as_json(), voice.warn)
    if end.die_of_signal is not None:
        die_of(end.die_of_signal)
    return end.status
