"""`cgmem run` without a terminal: signals, sessions, descriptors and exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cgmem.cli.foreground import FAR_SECONDS, ForegroundJob
from cgmem.cli.signals import Arrival, Inbox
from tests.cli.command import COMMAND, POLLED, cgmem, environment, start, until
from tests.helpers.proc import running, state

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="macOS: there is no /proc to look in")

COUNTER = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()
"""


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_signal_sent_to_cgmem_reaches_the_child_once(tmp_path: Path) -> None:
    """kill -TERM of cgmem is forwarded once, and cgmem ends as the child does."""
    process = start("run", *POLLED, "--", sys.executable, "-c", COUNTER, cwd=tmp_path)
    assert _line(process) == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert _line(process) == "term\n"
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=60)

    assert (out, process.returncode) == ("", 0)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_child_that_dies_of_a_forwarded_signal(tmp_path: Path, signum: signal.Signals) -> None:
    """Its end is 128+n, and one line says which signal it was."""
    process = start("run", *POLLED, "--", "sh", "-c", "echo ready; exec sleep 300", cwd=tmp_path)
    assert _line(process) == "ready\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 128 + signum
    assert f"ended by {signum.name}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_child_that_dies_of_an_interrupt(tmp_path: Path, signum: signal.Signals) -> None:
    """Of INT and QUIT cgmem dies itself, silently, so that the caller's loop ends."""
    process = start(
        "run", *POLLED, "--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 300", cwd=tmp_path
    )
    assert _line(process) == "ready\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (-signum, "")
    assert not list(tmp_path.glob("core*"))


def test_a_child_that_signals_its_whole_group_gets_it_once(tmp_path: Path) -> None:
    """`kill 0` in the child reaches it by itself; cgmem does not send it on."""
    script = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})\n"
        "os.kill(0, signal.SIGUSR1)\n"
        "os.kill(0, signal.SIGUSR2)\n"
        "print(signal.sigwait({signal.SIGUSR1}))\n"
        "print(signal.sigwait({signal.SIGUSR1, signal.SIGUSR2}))\n"
    )
    process = start("run", *POLLED, "--", sys.executable, "-c", script, cwd=tmp_path)
    out, _ = process.communicate(timeout=60)

    assert out.split() == [str(signal.SIGUSR1.value), str(signal.SIGUSR2.value)]
    assert process.returncode == 0


def test_nohup(tmp_path: Path) -> None:
    """A caller that ignores SIGHUP has it ignored by cgmem and by the child."""
    script = 'trap "" HUP; exec "$@"'
    words = [*COMMAND, "run", *POLLED, "--", "sh", "-c", "kill -HUP $$ $PPID; echo alive"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("alive\n", "", 0)


@LINUX
def test_child_is_started_as_the_caller_would(tmp_path: Path) -> None:
    """Signal mask and dispositions, group, session and descriptors are those without cgmem."""
    look = (
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | wc -l;"
        " cut -d' ' -f5,6 /proc/$$/stat"
    )
    plain = subprocess.Popen(
        ["sh", "-c", look],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wrapped = start("run", *POLLED, "--", "sh", "-c", look, cwd=tmp_path)
    expected = plain.communicate(timeout=60)[0].replace(str(plain.pid), "LEADER")
    found = wrapped.communicate(timeout=60)[0].replace(str(wrapped.pid), "LEADER")

    assert found == expected
    assert "LEADER LEADER" in found


@LINUX
def test_a_stopped_child_of_an_orphaned_group_does_not_stop_cgmem(tmp_path: Path) -> None:
    """Where no shell could continue it, cgmem goes on and waits; the child's stop costs no time."""
    script = "echo $$; kill -STOP $$; echo went on"
    process = start("run", *POLLED, "--timeout", "300", "--", "sh", "-c", script, cwd=tmp_path)
    child = int(_line(process))
    until(lambda: state(child) == "T", "the child to stop")
    assert state(process.pid) != "T"
    os.kill(child, signal.SIGCONT)

    assert process.communicate(timeout=60)[0] == "went on\n"
    assert process.returncode == 0


def test_in_the_background_without_a_terminal(tmp_path: Path) -> None:
    """In a session without a terminal, its stdin at its end, it runs as ever."""
    process = start("run", *POLLED, "--", "sh", "-c", "cat; echo done; exit 7", cwd=tmp_path)
    out, err = process.communicate(timeout=60)

    assert (out, err, process.returncode) == ("done\n", "", 7)


def test_closed_standard_descriptors_stay_closed_for_the_child(tmp_path: Path) -> None:
    """A caller that closed 0, 1 and 2 gets no log file or report there, nor does the child."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os\n"
        "found = []\n"
        "for fd in range(3):\n"
        "    try: os.fstat(fd)\n"
        "    except OSError: found.append(fd)\n"
        "open('closed', 'w').write(str(found))\n"
    )
    words = " ".join([*COMMAND, "run", *POLLED, "--", sys.executable, str(probe)])
    done = subprocess.run(
        ["sh", "-c", f"exec {words} <&- >&- 2>&-"],
        cwd=tmp_path,
        env=environment(),
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert (tmp_path / "closed").read_text() == "[0, 1, 2]"


def test_pipe_that_its_reader_leaves(tmp_path: Path) -> None:
    """`cgmem run yes | head` ends quickly and without a word."""
    words = " ".join([*COMMAND, "run", *POLLED, "--", "yes"])
    done = subprocess.run(
        ["sh", "-c", f"{words} | head -n 1"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("y\n", "")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("ulimit -c 0; kill -SEGV $$", 139),
    ]
    + [(f"kill -{name} $$", 128 + getattr(signal, f"SIG{name}")) for name in ("TERM", "PIPE")],
)
def test_exit_status_is_the_commands_own(tmp_path: Path, script: str, status: int) -> None:
    """A status is passed on, a signal is 128+n."""
    assert cgmem("run", *POLLED, "--", "sh", "-c", script, cwd=tmp_path).returncode == status


def test_supervisor_that_is_killed_leaves_the_child_alone(tmp_path: Path) -> None:
    """SIGKILL of cgmem ends cgmem only."""
    process = start("run", *POLLED, "--", "sh", "-c", "echo $$; exec sleep 300", cwd=tmp_path)
    child = int(_line(process))
    process.kill()
    process.wait(60)
    lived_on = running(child)
    os.kill(child, signal.SIGKILL)
    process.communicate(timeout=60)

    assert lived_on


class FakeChild:
    """A child that only remembers its signals."""

    pid = os.getpid()  # nobody's child: the kernel knows of no change

    def __init__(self) -> None:
        self.got: list[int] = []

    def poll(self) -> int | None:
        """It has ended."""
        return 0

    def wait(self) -> int:
        """It has ended."""
        return 0

    def send_signal(self, signum: int) -> None:
        """Remember."""
        self.got.append(signum)


def _job(child: FakeChild) -> ForegroundJob:
    return ForegroundJob(child, Inbox())


@pytest.mark.parametrize(
    ("arrival", "forwarded"),
    [
        (Arrival(signal.SIGINT, sent=True, sender=1), True),
        (Arrival(signal.SIGINT, sent=False), False),
        (Arrival(signal.SIGTERM, sent=True, sender=FakeChild.pid), False),
        (Arrival(signal.SIGTSTP, sent=True, sender=1), True),
        (Arrival(signal.SIGCONT, sent=True, sender=1), False),
        (Arrival(signal.SIGCHLD, sent=False), False),
    ],
)
def test_what_is_forwarded(arrival: Arrival, forwarded: bool) -> None:
    """Signals that a process sent are, those of the keyboard and of the child itself are not."""
    child = FakeChild()
    _job(child).take(arrival)

    assert child.got == ([arrival.signum] if forwarded else [])


def test_a_refused_signal_is_no_trouble() -> None:
    """A child that became another user's can't be signalled: nothing else happens."""

    class Refusing(FakeChild):
        def send_signal(self, signum: int) -> None:
            raise PermissionError

    _job(Refusing()).take(Arrival(signal.SIGTERM, sent=True, sender=1))


def test_far_moves_are_exact() -> None:
    """Moving a deadline far away and back again costs less than a millisecond."""
    deadline = 5_000_000.25

    assert abs((deadline + FAR_SECONDS) - FAR_SECONDS - deadline) < 0.001
