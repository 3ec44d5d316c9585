"""Starting, book-keeping and closing: with a fake backend, and with real children where it matters.

Real processes are waited for on conditions; the machine may be slow.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem import selector
from cgmem.contract import (
    BY_RULE,
    MB,
    Alert,
    Cause,
    EffectiveLimits,
    Group,
    Headroom,
    Leave,
    LimitAbove,
    Limits,
    SystemMemory,
)
from cgmem.errors import (
    BackendUnavailable,
    CgmemError,
    CgroupError,
    ConfigurationError,
    EnforcementError,
    InsufficientMemory,
    InvalidIdError,
    ScopeVanished,
)
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.poller import Poller
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Hooks, Supervisor
from tests.helpers.ending import end
from tests.helpers.proc import children, open_descriptors
from tests.helpers.waiting import PATIENCE, until
from tests.unit.fakes import FakeBackend, FakeClock, FakeScope, a_record, taken

FOR_EVER = ["sleep", "3600"]
HOG = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "hog.py")]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and locks of these tests lie in their own directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def told() -> list[str]:
    """What was warned of."""
    return []


@pytest.fixture
def supervisor(tmp_path: Path, told: list[str]) -> Iterator[Supervisor]:
    """A supervisor on the backend that works anywhere."""
    arguments = {"backend": "psutil", "log_dir": str(tmp_path / "logs"), "preflight": False}
    made = Supervisor(arguments, warn=told.append)
    yield made
    end(made)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """The one and only backend, a fake."""
    made = FakeBackend(FakeClock())

    def choose(
        wanted: str = "auto",
        *,
        kernel_limits_required: bool = False,
        leave: Leave = BY_RULE,
        group: Group | None = None,
    ) -> selector.Choice:
        return selector.Choice(made, "it is a fake")

    monkeypatch.setattr(selector, "choose", choose)
    return made


def start(supervisor: Supervisor, args: Any = ("true",), **how: Any) -> MonitoredProcess:
    """Spawn with the supervisor's own settings; `how` are `spawn`'s options, or settings."""
    known = {"subprocess_id", "agent_type", "hooks", "must_fit"}
    settings = supervisor.settings({key: how[key] for key in how if key not in known})
    options = {key: how[key] for key in how if key in known}
    return supervisor.spawn(args, {}, settings=settings, **options)


def test_the_tick_of_one_subprocess(supervisor: Supervisor) -> None:
    """A tick that `spawn` is given holds for its subprocess, whatever the supervisor's own is."""
    start(supervisor, tick=0.25).outcome(PATIENCE)

    assert supervisor.poller().tick_seconds == 0.25


# --- ids


def test_an_id_of_a_living_one_is_refused(supervisor: Supervisor) -> None:
    """Two live subprocesses can't have one id; after the end the id is free at once."""
    first = start(supervisor, FOR_EVER, subprocess_id="engineer_1")
    with pytest.raises(InvalidIdError, match="'engineer_1' belongs to a live subprocess"):
        start(supervisor, subprocess_id="engineer_1")
    first.kill()
    first.wait()

    second = start(supervisor, subprocess_id="engineer_1")

    assert second.outcome(PATIENCE).cause == "exited"


def test_only_one_of_many_threads_gets_the_id(supervisor: Supervisor) -> None:
    """However many threads ask for one id at once, one gets it."""
    together = threading.Barrier(8)
    found: list[str] = []

    def take() -> None:
        together.wait(PATIENCE)
        try:
            start(supervisor, FOR_EVER, subprocess_id="one")
            found.append("started")
        except InvalidIdError:
            found.append("refused")

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == ["refused"] * 7 + ["started"]
    assert len(supervisor.live()) == 1


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a\0b", "a\nb", "x" * 300, 7])
def test_bad_ids(supervisor: Supervisor, bad: Any) -> None:
    """An id that can't be one is refused before anything was made."""
    with pytest.raises(InvalidIdError):
        start(supervisor, subprocess_id=bad)
    assert supervisor.live() == []


def test_fresh_ids_name_the_program(supervisor: Supervisor) -> None:
    """Without an id it is made of the agent type, else of the program's name."""
    assert start(supervisor, ["/bin/true"]).subprocess_id.startswith("true_")
    assert start(supervisor, agent_type="engineer").subprocess_id.startswith("engineer_")


# --- starts that fail


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["cgmem-no-such-command"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        ([], IndexError),
        (None, TypeError),
        ([1], TypeError),
        (["a\0b"], ValueError),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    supervisor: Supervisor, args: Any, error: type[Exception]
) -> None:
    """A command that can't start raises Popen's error; id, scope and descriptors are free."""
    with pytest.raises(error):
        start(supervisor, args, subprocess_id="one")
    before = open_descriptors()
    for _ in range(20):
        with pytest.raises(error):
            start(supervisor, args, subprocess_id="one")

    assert open_descriptors() <= before
    assert supervisor.live() == []
    assert start(supervisor, subprocess_id="one").outcome(PATIENCE).exit_code == 0


def test_a_start_that_fails_removes_its_scope(supervisor: Supervisor, backend: FakeBackend) -> None:
    """The scope of a start that failed is closed and detached, and the start's error is shown."""
    scope = FakeScope(FakeClock())
    scope.living = []
    scope.errors["start"] = FileNotFoundError("x")
    scope.errors["close"] = OSError("busy")
    backend.scopes = [scope]

    with pytest.raises(FileNotFoundError):
        start(supervisor)

    assert len(scope.asked("close")) == 1
    assert scope.detached == 1


def test_a_module_that_cannot_be_read(supervisor: Supervisor, backend: FakeBackend) -> None:
    """Out of descriptors a module that a start needs can't be read: an error like any other."""
    scope = FakeScope(FakeClock())
    scope.living = []
    scope.errors["start"] = ImportError("_ctypes.so: Too many open files")
    backend.scopes = [scope]

    with pytest.raises(CgmemError, match=r"can't be loaded: _ctypes\.so: Too many open files"):
        start(supervisor)

    assert scope.detached == 1


def test_an_interrupted_start_leaves_no_child(supervisor: Supervisor, backend: FakeBackend) -> None:
    """A start that was interrupted with a child inside ends the child."""
    scope = FakeScope(FakeClock())

    def interrupted(args: Any, options: Any) -> Any:
        raise KeyboardInterrupt

    scope.start = interrupted  # type: ignore[method-assign]  # a start that gets Ctrl-C
    backend.scopes = [scope]
    with pytest.raises(KeyboardInterrupt):
        start(supervisor, subprocess_id="one")

    assert scope.asked("signal") == [signal.SIGKILL]
    assert scope.detached == 1
    assert supervisor.live() == []


def test_interrupted_right_after_the_start(supervisor: Supervisor, backend: FakeBackend) -> None:
    """Ctrl-C between exec and the first look leaves no child that nobody watches."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(supervisor, subprocess_id="one", hooks=Hooks(on_start=interrupt))

    assert backend.opened[0].asked("signal") == [signal.SIGKILL]
    assert supervisor.live() == []
    again = start(supervisor, subprocess_id="one")
    backend.opened[1].end(0)
    assert again.supervision.settle()


def test_a_vanished_scope_is_retried_once(supervisor: Supervisor, backend: FakeBackend) -> None:
    """A cgroup that somebody removed before the start is made once more."""
    clock = FakeClock()
    gone = FakeScope(clock)
    gone.vanish()
    backend.scopes = [gone, FakeScope(clock)]
    process = start(supervisor)
    backend.opened[1].end(0)

    assert process.supervision.settle()
    assert len(backend.opened) == 2
    assert gone.detached == 1


def test_a_scope_that_vanishes_twice(supervisor: Supervisor, backend: FakeBackend) -> None:
    """Twice is no accident: the error is shown, and the id is free."""
    for _ in range(2):
        gone = FakeScope(FakeClock())
        gone.vanish()
        backend.scopes.append(gone)
    with pytest.raises(ScopeVanished):
        start(supervisor, subprocess_id="one")

    assert [scope.detached for scope in backend.opened] == [1, 1]
    scope = FakeScope(FakeClock())
    backend.scopes = [scope]
    start(supervisor, subprocess_id="one")
    scope.end(0)


def test_no_thread_for_the_poller(
    supervisor: Supervisor, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that nobody could watch is ended, not left running; its id is free."""

    def refuse(self: Poller) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Poller, "_start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        start(supervisor, subprocess_id="one")

    assert backend.opened[0].asked("signal") == [signal.SIGKILL]
    assert supervisor.live() == []


def test_settings_that_turn_bad_start_nothing(
    tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can fail fails before there is a child."""
    supervisor = Supervisor({"log_dir": str(tmp_path)})
    settings = supervisor.settings({"preflight": False})
    monkeypatch.setenv("CLAUDE_PM_MEMORY_MAX_MB", "lots")
    with pytest.raises(ConfigurationError):
        supervisor.spawn(["true"], {}, settings=settings)

    assert backend.opened == []
    supervisor.close()


def test_an_iterator_of_words(supervisor: Supervisor) -> None:
    """A command given as an iterator runs with all its words, as under Popen."""
    process = start(supervisor, iter(["sh", "-c", "exit 7"]))

    assert process.outcome(PATIENCE).exit_code == 7
    assert process.outcome().command == ("sh", "-c", "exit 7")


# --- limits


def not_taken(limits: Limits) -> EffectiveLimits:
    """What a kernel without a memory controller holds."""
    return taken(Limits())._replace(enforced=False)


def test_required_and_not_taken(supervisor: Supervisor, backend: FakeBackend) -> None:
    """Where enforcement is required, a limit that the kernel did not take starts nothing."""
    backend.effective = not_taken
    scope = FakeScope(FakeClock())
    scope.living = []
    backend.scopes = [scope]
    with pytest.raises(EnforcementError, match="did not take"):
        start(supervisor, enforcement="required", backend="auto")

    assert scope.asked("start") == []
    assert scope.detached == 1


def soft(limits: Limits) -> EffectiveLimits:
    """What a kernel holds that can't limit swap."""
    return taken(limits)._replace(soft=True)


def test_required_and_swap_is_open(supervisor: Supervisor, backend: FakeBackend) -> None:
    """Where enforcement is required, a limit that swap would get around starts nothing."""
    backend.effective = soft
    with pytest.raises(EnforcementError, match="soft") as refused:
        start(supervisor, enforcement="required", backend="auto")

    assert refused.value.hint == "swapoff -a, or --swap max"
    assert backend.opened[0].asked("start") == []


def test_best_effort_and_swap_is_open(
    supervisor: Supervisor, backend: FakeBackend, told: list[str]
) -> None:
    """With best effort it is told once; who allows swap hears nothing."""
    backend.effective = soft
    for swap in ("max", "0", "0"):
        supervision = start(supervisor, swap=swap).supervision
        assert len(told) == (swap == "0")
        backend.opened[-1].end(0)
        assert supervision.settle()

    assert "soft" in told[0]


def test_a_share_is_one_of_what_a_cgroup_allows(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container `80%` is a share of the smallest limit on the way up, not of the machine."""
    left = Headroom(MB, LimitAbove("/slice", 4000 * MB), 1000 * MB)
    memory = SystemMemory(8000 * MB, 8000 * MB, left)
    monkeypatch.setattr(selector, "system_memory", lambda: memory)

    assert supervisor.settings({"max": "80%"}).max_bytes == 800 * MB
    assert memory._replace(headroom=None).effective_total_bytes == 8000 * MB


def test_best_effort_and_not_taken(
    supervisor: Supervisor, backend: FakeBackend, told: list[str]
) -> None:
    """With best effort it is told, and we hold the limit ourselves."""
    backend.effective = not_taken
    process = start(supervisor)
    supervision = process.supervision
    assert isinstance(supervision, Supervision)

    assert "did not take" in told[0]
    assert not supervision.plan.policy.kernel_limits
    backend.opened[0].end(0)
    assert supervision.settle()


def test_disabled_and_yet_asked_for(
    supervisor: Supervisor, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With monitoring disabled, `required` starts nothing, and what nobody watches is told."""
    monkeypatch.setenv("CLAUDE_PM_DISABLE_MEMORY_MONITOR", "1")
    with pytest.raises(EnforcementError, match=r"disabled \(CLAUDE_PM_DISABLE_MEMORY_MONITOR\)"):
        start(supervisor, enforcement="required")
    assert told == []

    start(supervisor, timeout=60, group_name="a", group_max="1G").outcome(PATIENCE)
    assert told == [
        "memory monitoring is disabled: the timeout is not watched either",
        "memory monitoring is disabled: nothing holds the group's budget",
    ]


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({}, Limits(200 * MB, 400 * MB, 0, True)),
        ({"abort_on_memory_limit": False}, Limits(200 * MB, None, 0, True)),
        ({"enforcement": "off"}, Limits(None, None, None, False)),
        ({"oom_group": False, "swap": "1M"}, Limits(200 * MB, 400 * MB, MB, False)),
    ],
)
def test_the_limits_that_are_asked_for(
    supervisor: Supervisor, backend: FakeBackend, settings: dict[str, Any], limits: Limits
) -> None:
    """The settings lead to these limits."""
    process = start(supervisor, critical="200M", max="400M", **settings)
    backend.opened[0].end(0)

    assert process.supervision.settle()
    assert backend.limits == [limits]


# --- pre-flight


def test_little_memory(
    tmp_path: Path, told: list[str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little memory a start is refused where enforcement is required, else told of."""
    little = SystemMemory(8192 * MB, 512 * MB)
    monkeypatch.setattr(selector, "system_memory", lambda: little)
    supervisor = Supervisor({"log_dir": str(tmp_path)}, warn=told.append)
    with pytest.raises(InsufficientMemory, match=r"Insufficient memory: only 512.0MB available"):
        start(supervisor, enforcement="required")
    assert backend.opened == []

    process = start(supervisor)
    assert told == ["Insufficient memory: only 512.0MB available (need at least 1GB)"]
    start(supervisor, max="500M")
    start(supervisor, preflight=False)
    assert len(told) == 1
    for scope in backend.opened:
        scope.end(0)
    assert process.supervision.settle()
    supervisor.close()


def test_little_left_of_a_limit_above(
    tmp_path: Path, told: list[str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a group or another cgroup above has left is judged like the machine's memory, once."""
    build = Headroom(200 * MB, LimitAbove("group build", 6144 * MB))
    backend.effective = lambda limits: taken(limits)._replace(headroom=build)
    monkeypatch.setattr(selector, "system_memory", lambda: SystemMemory(8192 * MB, 4096 * MB))
    supervisor = Supervisor({"log_dir": str(tmp_path), "max": "512M"}, warn=told.append)
    message = (
        "Insufficient memory: only 200.0MB available (need at least 512MB):"
        " group build, memory.max 6G, leaves no more"
    )
    with pytest.raises(InsufficientMemory) as caught:
        start(supervisor, enforcement="required")
    with pytest.raises(InsufficientMemory):
        start(supervisor, must_fit=True)
    refused = list(backend.opened)

    assert str(caught.value) == message
    assert [scope.detached for scope in refused] == [1, 1]
    assert [scope.asked("start") for scope in refused] == [[], []]
    assert told == []

    start(supervisor)
    assert told == [message]
    start(supervisor, max="200M")
    start(supervisor, preflight=False)
    monkeypatch.setattr(selector, "system_memory", lambda: SystemMemory(8192 * MB, 100 * MB))
    later = Supervisor({"log_dir": str(tmp_path), "max": "512M"}, warn=told.append)
    start(later)
    assert told[1:] == ["Insufficient memory: only 100.0MB available (need at least 512MB)"]
    for scope in backend.opened[2:]:
        scope.end(0)
    supervisor.close()
    later.close()


# --- logs, hooks


def test_log_trouble_hurts_nothing(told: list[str], tmp_path: Path) -> None:
    """A log directory that can't be written costs a warning per file, never a subprocess."""
    blocked = tmp_path / "file" / "logs"
    (tmp_path / "file").write_text("in the way")
    supervisor = Supervisor(
        {"backend": "psutil", "log_dir": str(blocked), "preflight": False}, warn=told.append
    )
    for _ in range(3):
        assert start(supervisor).outcome(PATIENCE).cause == "exited"

    assert len(told) == 1
    supervisor.close()


def test_a_raising_warn_hurts_nothing(tmp_path: Path) -> None:
    """The caller's `warn` may raise."""

    def warn(text: str) -> None:
        raise RuntimeError(text)

    (tmp_path / "file").write_text("in the way")
    supervisor = Supervisor(
        {"backend": "psutil", "log_dir": str(tmp_path / "file/logs"), "preflight": False}, warn=warn
    )

    assert start(supervisor).outcome(PATIENCE).cause == "exited"
    supervisor.close()


def test_hooks(supervisor: Supervisor) -> None:
    """`on_alert`, `on_abort` and `on_end` are called in this order; what they raise hurts nobody,
    and is warned of.
    """
    alerts: list[tuple[str, Alert]] = []
    order: list[str] = []
    ends: list[Outcome] = []
    ended = threading.Event()

    def on_alert(subprocess_id: str, alert: Alert) -> None:
        alerts.append((subprocess_id, alert))
        order.append("alert")
        raise ValueError("mine")

    def on_abort(subprocess_id: str, cause: Cause) -> None:
        order.append(f"{subprocess_id} {cause}")
        raise ValueError("mine too")

    def on_end(outcome: Outcome) -> None:
        ends.append(outcome)
        ended.set()

    process = start(
        supervisor,
        [sys.executable, "-c", "import time; x = b'x' * (1 << 26); time.sleep(3600)"],
        warning="10M",
        critical="15M",
        max="20M",
        subprocess_id="one",
        hooks=Hooks(on_alert, on_end, on_abort),
    )
    outcome = process.outcome(PATIENCE)

    assert outcome.cause == "hard_limit"
    assert ended.wait(PATIENCE)
    assert ends == [outcome]
    assert {name for name, _ in alerts} == {"one"}
    assert tuple(alert.message for _, alert in alerts) == outcome.warnings
    assert order == [*["alert"] * len(alerts), "one hard_limit"]


def test_no_secret_reaches_a_log(supervisor: Supervisor, tmp_path: Path) -> None:
    """A command's secrets are in the caller's outcome, and in no line and no message."""
    process = start(
        supervisor,
        [
            *(sys.executable, "-c", "import time; x = b'x' * (1 << 26); time.sleep(3600)"),
            *("--token", "hunter2"),
        ],
        warning="10M",
        critical="15M",
        max="20M",
    )
    outcome = process.outcome(PATIENCE)
    logged = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())

    assert outcome.command[-1] == "hunter2"
    assert outcome.snapshot is not None
    assert "--token ***" in outcome.snapshot["processes"][0]["command"]
    assert f"[{process.pid}]" in outcome.message
    assert '"snapshot": {"partial": ' in logged
    assert "hunter2" not in logged + outcome.message + str(outcome.snapshot)


def test_no_secret_in_an_id(supervisor: Supervisor) -> None:
    """The id that a shell's command line gets has the name of what it sets, not the value."""
    process = supervisor.spawn(
        "TOKEN=hunter2 true", {"shell": True}, settings=supervisor.settings()
    )

    assert process.subprocess_id.startswith("TOKEN_")
    assert process.outcome(PATIENCE).cause == "exited"


# --- many, and the end


def test_two_hundred_runs_leave_nothing(supervisor: Supervisor) -> None:
    """After 200 runs there are no more descriptors, threads, zombies or ids than after one."""
    start(supervisor).outcome(PATIENCE)
    before = open_descriptors(), threading.active_count()
    living = children()  # an earlier test may have left one dying
    for _ in range(200):
        assert start(supervisor).outcome(PATIENCE).cause == "exited"

    # The first tick opens two for all: the system-wide log and the lock of its one writer.
    assert len(open_descriptors()) <= len(before[0]) + 2
    assert threading.active_count() <= before[1]
    assert supervisor.live() == []
    assert children() <= living


def test_abandoned_ones_leave_no_zombies(supervisor: Supervisor) -> None:
    """Who is never waited for is reaped by the poller."""
    pids = [start(supervisor).pid for _ in range(20)]

    assert until(lambda: supervisor.live() == [])
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_close_and_begin_again_leave_nothing(tmp_path: Path) -> None:
    """Supervisors that come and go leave neither threads nor descriptors."""

    def once() -> None:
        supervisor = Supervisor({"backend": "psutil", "log_dir": str(tmp_path), "tick": 0.1})
        settings = supervisor.settings({"preflight": False})
        done = threading.Event()
        hooks = Hooks(on_end=lambda outcome: done.set())
        process = supervisor.spawn(["sleep", "0.1"], {}, settings=settings, hooks=hooks)
        process.outcome(PATIENCE)
        assert done.wait(PATIENCE)
        supervisor.close()
        supervisor.close()

    once()
    before = open_descriptors(), threading.active_count()
    for _ in range(5):
        once()

    assert until(lambda: (open_descriptors(), threading.active_count()) == before)


def test_close_lets_go_of_the_living(supervisor: Supervisor) -> None:
    """`close` settles what has ended and lets the living live; their owner can still end them."""
    living, ended = start(supervisor, FOR_EVER), start(supervisor)
    ended.wait()
    supervisor.close()

    assert ended.outcome(PATIENCE).cause == "exited"
    assert living.outcome(PATIENCE).cause == "unknown"
    assert living.poll() is None
    assert supervisor.live() == []
    living.kill()
    assert living.wait() == -signal.SIGKILL


def test_close_ends_a_wait_for_what_stays(
    supervisor: Supervisor, backend: FakeBackend, told: list[str]
) -> None:
    """Who waits for an outcome whose scope can't be removed has it once all is closed."""
    process = start(supervisor)
    scope = backend.opened[-1]
    scope.late = [99]
    scope.errors["signal"] = CgroupError(OSError(errno.EPERM, "refused"), "killing", "99")
    scope.end(3)
    outcomes: list[Outcome] = []
    waits = threading.Thread(target=lambda: outcomes.append(process.outcome()))
    waits.start()
    until(lambda: process.supervision.outcome is not None)
    assert supervisor.find(process.subprocess_id) is not None
    supervisor.close()
    waits.join(PATIENCE)

    assert [outcome.exit_code for outcome in outcomes] == [3]
    assert scope.record.concluded
    assert supervisor.live() == []


def test_a_fork_while_one_is_being_removed(supervisor: Supervisor, backend: FakeBackend) -> None:
    """A child forked at the worst moment hangs in none of its copies."""
    process = start(supervisor)
    scope = backend.opened[-1]
    inside, on = threading.Event(), threading.Event()

    def close(before: Callable[[], object]) -> bool:
        before()
        inside.set()
        return on.wait(PATIENCE)

    scope.close = close  # type: ignore[method-assign, assignment]  # a removal that takes its time
    scope.end(0)
    ends = threading.Thread(target=process.outcome)
    ends.start()
    assert inside.wait(PATIENCE)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        process.poll()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    on.set()
    ends.join(PATIENCE)

    assert os.waitstatus_to_exitcode(status) == 0


def test_usable_after_close(supervisor: Supervisor) -> None:
    """A closed supervisor supervises again when it is asked to."""
    start(supervisor).outcome(PATIENCE)
    supervisor.close()

    assert start(supervisor).outcome(PATIENCE).cause == "exited"


def test_threads_start_and_end_together(supervisor: Supervisor) -> None:
    """Threads that start, look and end at once get each their own outcome."""
    outcomes: list[Outcome] = []

    def work(number: int) -> None:
        for _ in range(5):
            process = start(supervisor, ["sh", "-c", f"exit {number}"])
            supervisor.live()
            process.check_memory()
            outcomes.append(process.outcome(PATIENCE))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcome.exit_code or 0 for outcome in outcomes) == sorted(list(range(6)) * 5)
    assert len({outcome.subprocess_id for outcome in outcomes}) == 30


def test_observe(supervisor: Supervisor) -> None:
    """A process that runs already is watched, its end is seen, and its children are left alone."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 3600 & echo $!; read line"], stdin=-1, stdout=-1
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        supervision = supervisor.observe(shell.pid, settings=supervisor.settings())
        assert supervision.check()[0] > 0
        assert not supervision.plan.effective.enforced
        shell.stdin.close()
        shell.wait()
        assert supervision.ended.wait(PATIENCE)
        os.kill(child, 0)
        os.kill(child, signal.SIGKILL)

    assert supervision.outcome is not None
    assert supervision.outcome.cause == "unknown"
    assert child in supervision.outcome.leftovers


def test_observe_past_the_limit(supervisor: Supervisor) -> None:
    """Who is only observed is killed at its hard limit all the same, and its outcome says so."""
    budget = {"warning": "16M", "critical": "24M", "max": "32M"}
    with subprocess.Popen([*HOG, "--mb=64", "--hold=600"], stdout=subprocess.DEVNULL) as hog:
        supervision = supervisor.observe(hog.pid, settings=supervisor.settings(budget))
        ended = supervision.ended.wait(PATIENCE)
        hog.kill()

    assert ended
    assert supervision.outcome is not None
    assert supervision.outcome.cause == "hard_limit"
    assert supervision.outcome.aborted


def test_observe_nobody(supervisor: Supervisor) -> None:
    """A process that isn't there is the caller's error, and the id stays free."""
    with pytest.raises(ProcessLookupError):
        supervisor.observe(2**22 + 7, settings=supervisor.settings(), subprocess_id="one")
    assert start(supervisor, subprocess_id="one").outcome(PATIENCE).exit_code == 0


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()])
def test_observe_oneself(supervisor: Supervisor, pid: int) -> None:
    """Neither this process nor one above it can be watched: at the limit both would be killed."""
    with pytest.raises(ConfigurationError, match="this very process"):
        supervisor.observe(pid, settings=supervisor.settings())


def test_observe_without_a_thread(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be watched does not seem watched: the error comes through, the id is free."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    settings = supervisor.settings()
    with subprocess.Popen(FOR_EVER) as living, monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            supervisor.observe(living.pid, settings=settings, subprocess_id="one")
        living.kill()

    assert supervisor.live() == []
    assert start(supervisor, subprocess_id="one").outcome(PATIENCE).exit_code == 0


# --- programs around it

SCRIPT_HEAD = """
import os, sys, time, threading
import cgmem
how = {"backend": "psutil", "preflight": False, "log_dir": sys.argv[1]}
"""


def run_script(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a host program of its own; its stderr must be empty."""
    roots = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "backends")]
    found = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT_HEAD + script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found


def test_fork_in_the_host(tmp_path: Path) -> None:
    """A forked child ends without touching its parent's subprocess, and can supervise its own."""
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, Python 3.12
p = cgmem.spawn(["sleep", "3600"], subprocess_id="one", **how)
if (pid := os.fork()) == 0:
    assert p.poll() in (None, 0)
    own = cgmem.run(["sh", "-c", "exit 5"], subprocess_id="one", timeout=60, **how)
    try:
        p.outcome()
    except cgmem.CgmemError as error:
        assert "forked" in str(error)
    sys.exit(own.exit_code)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
time.sleep(0.2)
assert p.poll() is None
p.abort()
print(p.outcome().cause)
"""
    assert run_script(tmp_path, script).stdout == "aborted\n"


def test_exit_of_the_interpreter(tmp_path: Path) -> None:
    """A host program that exits while a child lives says nothing, and the child lives on."""
    script = """
ended = threading.Event()
p = cgmem.spawn(["sleep", "3600"], on_end=lambda o: None, on_alert=lambda i, a: None, **how)
cgmem.spawn(["true"], on_end=lambda o: ended.set(), **how)
assert ended.wait(60)
print(p.pid, flush=True)
p.popen.returncode = 0  # so that Popen does not warn of what is meant
"""
    pid = int(run_script(tmp_path, script).stdout)
    os.kill(pid, signal.SIGKILL)


def test_exit_during_a_callback(tmp_path: Path) -> None:
    """Callbacks that still run, or come with the exit, print no traceback."""
    script = """
for number in range(20):
    cgmem.spawn(["true"], on_end=lambda o: time.sleep(0.01), **how)
"""
    run_script(tmp_path, script)


def test_no_descriptors_left(tmp_path: Path) -> None:
    """At EMFILE the poller's thread goes on: the end is still seen, and little is said."""
    script = """
from cgmem.supervising.supervisor import Supervisor
told = []
s = Supervisor({**how, "tick": 0.1}, warn=told.append)
p = cgmem.spawn(["sleep", "1"], supervisor=s)
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
outcome = p.outcome(60)
for descriptor in held:
    os.close(descriptor)
assert outcome.cause == "exited", outcome
assert len(told) <= 5, told
assert cgmem.run(["true"], supervisor=s).exit_code == 0
s.close()
"""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))\n"
    run_script(tmp_path, limit + script)


# --- what other supervisors have left


def left_behind(name: str, *, living: bool) -> FakeScope:
    """A scope whose supervisor is gone."""
    scope = FakeScope(FakeClock(), a_record(name)._replace(high_bytes=200 * MB))
    scope.living = [1234] if living else []
    return scope


def test_what_lies_nearby_is_swept(tmp_path: Path, told: list[str], backend: FakeBackend) -> None:
    """A supervisor that starts something tells of the ends that it finds, once."""
    logs = tmp_path / "earlier"
    stale, refused = left_behind("stale_1", living=False), left_behind("stale_2", living=False)
    stale.record = stale.record._replace(log_dir=str(logs))
    refused.errors["sweep"] = CgroupError(OSError(1, "no permission"), "removing", "/fake")
    backend.left = [stale, refused]
    arguments = {"log_dir": str(tmp_path / "logs"), "preflight": False, "tick": 3600}
    made = Supervisor(arguments, warn=told.append)
    process = start(made, FOR_EVER)

    def swept_after_a_tick() -> bool:
        made.poller().tick(time.monotonic())
        return made._upkeep.swept

    assert until(swept_after_a_tick)
    for _ in range(2):  # and look no more
        swept_after_a_tick()
    process.supervision.kill("abort")
    made.close()
    (line,) = (logs / "subprocess-stats.jsonl").read_text().splitlines()

    assert backend.looked_nearby == [True]
    assert '"unobserved": true' in line
    assert len(stale.asked("sweep")) == 1
    assert told == ["clean-up after another process: removing: no permission (/fake)"]


def test_adopt(
    tmp_path: Path,
    told: list[str],
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An orphan gets its brake back, this process as its supervisor, and an outcome."""
    scope = left_behind("orphan_1", living=True)
    scope.record = scope.record._replace(log_dir=str(tmp_path / "logs"))
    backend.opened = [scope]
    monkeypatch.setattr(selector, "NAMES", ("fake",))
    monkeypatch.setattr(selector, "load", lambda _name: backend)
    made = Supervisor({"tick": 0.05}, warn=told.append)
    supervision = made.adopt("orphan_1", settings=made.settings())
    with pytest.raises(InvalidIdError):
        made.adopt("orphan_1", settings=made.settings())
    limits = scope.asked("set_limits")
    scope.living = []
    ended = supervision.ended.wait(PATIENCE)
    made.close()
    (line,) = (tmp_path / "logs" / "subprocess-stats.jsonl").read_text().splitlines()

    assert limits == [Limits(200 * MB, 400 * MB)]
    assert scope.record.supervisor_pid == os.getpid()
    assert scope.record.supervisor_start == selector.process_start(os.getpid())
    assert ended
    assert '"subprocess_id": "orphan_1"' in line
    assert '"unobserved": false' in line
    assert told == []


def test_an_orphan_that_cannot_be_had(
    backend: FakeBackend, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is let go of, and its id is free."""
    scope = left_behind("orphan_1", living=True)
    backend.opened = [scope]
    backend.take_over_error = CgmemError("too late")
    monkeypatch.setattr(selector, "NAMES", ("fake",))
    monkeypatch.setattr(selector, "load", lambda _name: backend)
    for _ in range(2):
        with pytest.raises(CgmemError, match="too late"):
            supervisor.adopt("orphan_1", settings=supervisor.settings())

    assert scope.detached == 2
    assert supervisor.live() == []


def test_a_budget_set_from_outside_is_looked_for(
    supervisor: Supervisor, backend: FakeBackend
) -> None:
    """When the bell rings, rewritten budgets are taken over, and judged though nothing moved."""
    process = start(supervisor)
    (scope,) = backend.opened
    scope.current_bytes = 20 * MB
    process.check_memory()
    scope.rewritten = scope.record._replace(warning_bytes=10 * MB)
    backend.bell = True
    supervisor.poller().tick(time.monotonic() + 100)

    assert until(lambda: process.level == "WARNING")
    assert backend.bell is False


def test_the_fallback_takes_over(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With best effort a backend that fails after all gives way for good; why is told once."""
    clock = FakeClock()
    failing, fallback = FakeBackend(clock), FakeBackend(clock)
    failing.open_error = BackendUnavailable("the manager is gone")
    fallback.name = selector.FALLBACK
    asked: list[str] = []

    def choose(wanted: str = "auto", **_: Any) -> selector.Choice:
        asked.append(wanted)
        return selector.Choice(fallback if wanted == selector.FALLBACK else failing, "polls")

    monkeypatch.setattr(selector, "choose", choose)
    made = Supervisor({"log_dir": str(tmp_path / "logs"), "preflight": False}, warn=told.append)
    plans = []
    for _ in range(2):
        supervision = start(made).supervision
        assert isinstance(supervision, Supervision)
        plans.append(supervision.plan.backend)
        fallback.opened[-1].end(0)
    made.close()

    assert plans == [selector.FALLBACK] * 2
    assert asked == ["auto", selector.FALLBACK]
    assert told == ["polls (not fake: the manager is gone)"]


@pytest.mark.parametrize("fixed", [{"backend": "cgroup2"}, {"enforcement": "required"}])
def test_no_fallback_for_who_wants_that_one(
    supervisor: Supervisor, backend: FakeBackend, told: list[str], fixed: dict[str, str]
) -> None:
    """A backend asked for by name, or for the kernel's limits, gives way to no other."""
    backend.open_error = BackendUnavailable("the manager is gone")
    with pytest.raises(BackendUnavailable, match="the manager is gone"):
        start(supervisor, **{"backend": "auto", **fixed})

    assert told == []
    assert supervisor.live() == []


def test_each_group_has_a_backend_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend is chosen once for each group and once without; none gives way to the fallback."""
    asked: list[Group | None] = []

    def choose(*_: Any, group: Group | None, **__: Any) -> selector.Choice:
        asked.append(group)
        made = FakeBackend(FakeClock())
        made.open_error = BackendUnavailable("no such cgroup") if group else None
        return selector.Choice(made, "it is a fake")

    monkeypatch.setattr(selector, "choose", choose)
    supervisor = Supervisor({"log_dir": str(tmp_path), "preflight": False})
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="no such cgroup"):
            start(supervisor, group_name="a", group_max="1G")
        supervisor.choice(supervisor.settings({"group_name": "b"}))
        supervisor.choice(supervisor.settings())
    supervisor.close()

    assert asked == [Group("a", 1 << 30), Group("b", None), None]
