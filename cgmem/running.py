"""`cgmem.spawn` and `cgmem.run`: subprocess.Popen and subprocess.run, under a budget."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
from collections.abc import Callable, Mapping

from cgmem.config.setting_table import BY_KEY
from cgmem.contract import Alert, Cause
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervisor import Hooks, Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_lock = threading.Lock()
_default: Supervisor | None = None


def default_supervisor() -> Supervisor:
    """The supervisor of this process: one poller thread for all that `spawn` and `run` start."""
    global _default  # noqa: PLW0603  (the one piece of state of this module)
    with _lock:
        if _default is None:
            _default = Supervisor()
            atexit.register(_default.close)
        return _default


def spawn(
    args: Any,
    *,
    subprocess_id: str | None = None,
    agent_type: str | None = None,
    on_alert: Callable[[str, Alert], Any] | None = None,
    on_abort: Callable[[str, Cause], Any] | None = None,
    on_end: Callable[[Outcome], Any] | None = None,
    supervisor: Supervisor | None = None,
    **options: Any,
) -> MonitoredProcess:
    """Start a command under a memory budget; returns once it runs.

    `options` are settings (`warning`, `critical`, `max`, `swap`, `timeout`, `grace`, `keep`,
    `enforcement`, `backend`, …: docs/settings.md; sizes as "512M", "2GiB", "80%") and whatever
    subprocess.Popen takes. `on_alert(subprocess_id, alert)`, `on_abort(subprocess_id, cause)`
    (once, when it is ended for its budget or time, or asked to be) and `on_end(outcome)` are called
    one after the other on a thread of their own; one that runs for 10 s is no longer waited for.

    Raises what subprocess.Popen raises, and `ConfigurationError`, `InvalidIdError`,
    `InsufficientMemory`, `EnforcementError`, `BackendUnavailable`, `CgroupError`.
    """
    settings_given, popen_options = _split(options)
    chosen = supervisor or default_supervisor()
    settings = chosen.settings(settings_given, agent_type)
    return chosen.spawn(
        args,
        popen_options,
        settings=settings,
        subprocess_id=subprocess_id,
        agent_type=agent_type,
        hooks=Hooks(on_alert, on_end, on_abort),
    )


def run(
    args: Any,
    *,
    input: Any = None,  # noqa: A002  (subprocess.run's name)
    capture_output: bool = False,
    check: bool = False,
    **options: Any,
) -> Outcome:
    """Run a command under a memory budget, wait for its end, and say how it ended.

    As subprocess.run, with `spawn`'s options. One difference: when `timeout` (seconds) is over,
    the group gets SIGTERM, then SIGKILL, and the outcome's cause is `timeout`; nothing is raised.

    Raises subprocess.CalledProcessError with `check` and a status other than 0, and what `spawn`
    raises.
    """
    options = with_pipes(options, input, capture_output=capture_output)
    with spawn(args, **options) as process:
        try:
            stdout, stderr = process.communicate(input)
        except BaseException:
            process.supervision.kill("abort")
            raise
    outcome = process.outcome()._replace(stdout=stdout, stderr=stderr)
    if check:
        outcome.check_returncode()
    return outcome


def with_pipes(
    options: Mapping[str, Any], input_data: Any, *, capture_output: bool
) -> dict[str, Any]:
    """The options with the pipes that `input` and `capture_output` of `run` ask for.

    Raises ValueError where they contradict the options, as subprocess.run.
    """
    piped = dict(options)
    if input_data is not None:
        _only_without(options, "stdin", "input")
        piped["stdin"] = subprocess.PIPE
    if capture_output:
        _only_without(options, "stdout", "capture_output")
        _only_without(options, "stderr", "capture_output")
        piped["stdout"] = piped["stderr"] = subprocess.PIPE
    return piped


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = {key: value for key, value in options.items() if key in BY_KEY}
    return settings, {key: value for key, value in options.items() if key not in BY_KEY}


def _only_without(options: Mapping[str, Any], name: str, other: str) -> None:
    if options.get(name) is not None:
        raise ValueError(f"{name} may not be used together with {other}")


def _after_fork_in_child() -> None:
    # A thread that is not here may have held it. The supervisor looks after itself.
    global _lock  # noqa: PLW0603  (as above)
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
