"""`cgmem run` on a terminal: one job with its child, as bash and a person see it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import POLLED, until
from tests.cli.terminal import CTRL_BACKSLASH, CTRL_C, CTRL_Z, bash
from tests.helpers.proc import running, state

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="macOS: waitid and siginfo are Linux's; not run there yet"
)

RUN = " ".join(("cgmem run", *POLLED))

RAW = """
import os, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
os.write(1, b"raw\\r\\n")
key = os.read(0, 1)
termios.tcsetattr(0, termios.TCSANOW, before)
print("key", key[0])
"""


def test_raw_mode_program_gets_ctrl_c_as_a_byte(tmp_path: Path) -> None:
    """The terminal's modes are the child's: Ctrl-C in raw mode is byte 3, and ends nobody."""
    (tmp_path / "raw.py").write_text(RAW)
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- {sys.executable} raw.py; echo status=$?")
        terminal.expect("raw\n")
        terminal.type(CTRL_C)

        terminal.expect("key 3\n")
        terminal.expect("status=0\n")


def test_ctrl_c_ends_a_loop_of_the_shell(tmp_path: Path) -> None:
    """A child that dies of SIGINT makes cgmem die of it, so bash leaves its loop."""
    with bash(tmp_path) as terminal:
        terminal.line(
            f"while true; do {RUN} -- sh -c 'echo started; exec sleep 300'; echo again; done"
        )
        terminal.expect("started\n")
        terminal.type(CTRL_C)
        terminal.line("echo out$((1 + 1))side $?")

        terminal.expect("out2side")
        assert "again" not in terminal.seen


def test_ctrl_c_that_the_child_handles_does_not_end_the_loop(tmp_path: Path) -> None:
    """A child that handles SIGINT and exits 0 makes cgmem exit 0: the loop goes on."""
    (tmp_path / "child.sh").write_text(
        "trap 'exit 0' INT\necho started\nwhile :; do sleep 0.1; done\n"
    )
    with bash(tmp_path) as terminal:
        terminal.line(f"for i in 1 2; do {RUN} -- sh child.sh; echo again=$?; done")
        for _ in (1, 2):
            terminal.expect("started\n")
            terminal.type(CTRL_C)
            terminal.expect("again=0\n")


def test_ctrl_backslash_ends_cgmem_by_quit_without_a_core(tmp_path: Path) -> None:
    """SIGQUIT from the keyboard reaches the child once; cgmem dies of it too, leaving no core."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'echo started; exec sleep 300'")
        terminal.expect("started\n")
        terminal.type(CTRL_BACKSLASH)
        terminal.line("echo status=$?")

        terminal.expect("status=131\n")
        assert not list(tmp_path.glob("core*"))


def test_keyboard_signal_is_not_forwarded(tmp_path: Path) -> None:
    """Ctrl-C reaches a child once, from the terminal and not from cgmem too."""
    (tmp_path / "count.py").write_text(
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})\n"
        "print('ready', flush=True)\n"
        "print('int from', signal.sigwaitinfo({signal.SIGINT}).si_pid, flush=True)\n"
        "print('next', signal.sigwaitinfo({signal.SIGINT, signal.SIGUSR1}).si_signo)\n"
    )
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} --id counted -- {sys.executable} count.py & echo pid $!; fg")
        pid = int(terminal.expect(r"pid (\d+)")[1])
        terminal.expect("ready\n")
        terminal.type(CTRL_C)
        terminal.expect("int from 0\n")
        os.kill(pid, signal.SIGUSR1)

        terminal.expect(f"next {signal.SIGUSR1:d}\n")


def test_ctrl_z_and_fg_and_time_stopped_does_not_count(tmp_path: Path) -> None:
    """Ctrl-Z stops both, fg continues both, and a --timeout shorter than the stop is not hit."""
    timeout = 6.0
    with bash(tmp_path) as terminal:
        terminal.line(
            f"{RUN} --timeout {timeout} -- sh -c 'echo started $$; read x; echo got $x'"
            " & echo pid $!; fg"
        )
        pid = int(terminal.expect(r"pid (\d+)")[1])
        child = int(terminal.expect(r"started (\d+)\n")[1])
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        stopped_at = time.monotonic()
        assert (state(pid), state(child)) == ("T", "T")
        until(lambda: time.monotonic() > stopped_at + timeout + 0.5, "the time-out to pass")
        terminal.line("fg; echo status=$?")
        until(lambda: state(child) == "S", "the child to go on")
        terminal.line("hello")

        terminal.expect("got hello\n")
        terminal.expect("status=0\n")


def test_a_job_can_stop_and_go_on_many_times(tmp_path: Path) -> None:
    """No stop is taken for another one: after each fg the job runs until the next Ctrl-Z."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'while read x; do echo got $x; done'")
        for number in range(5):
            terminal.line(f"line{number}")
            terminal.expect(f"got line{number}\n")
            terminal.type(CTRL_Z)
            terminal.expect("Stopped")
            terminal.line("fg")
            terminal.expect("cgmem")
        terminal.line("last")
        terminal.expect("got last\n")


def test_ctrl_z_that_the_child_ignores_stops_nobody(tmp_path: Path) -> None:
    """Like in a plain shell, a program that ignores SIGTSTP keeps the terminal."""
    with bash(tmp_path) as terminal:
        terminal.line(f"""{RUN} -- sh -c 'trap "" TSTP; echo started; read x; echo got $x'""")
        terminal.expect("started\n")
        terminal.type(CTRL_Z)
        terminal.line("hello")

        terminal.expect("got hello\n")
        assert "Stopped" not in terminal.seen


def test_a_child_that_stops_itself_gives_the_shell_back(tmp_path: Path) -> None:
    """SIGSTOP of the child stops cgmem too, so that bash gets its terminal back; fg goes on."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'kill -STOP $$; echo went on'; echo status=$?")
        terminal.expect("Stopped")
        terminal.line("fg; echo status=$?")

        terminal.expect("went on\n")
        terminal.expect("status=0\n")


def test_background_job_that_reads_the_terminal_stops(tmp_path: Path) -> None:
    """SIGTTIN stops a background job with its child; in the foreground it gets its line."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'read x; echo got $x' & echo pid $!")
        pid = int(terminal.expect(r"pid (\d+)")[1])
        until(lambda: state(pid) == "T", "the job to stop")
        terminal.line("fg")
        terminal.expect("cgmem")
        until(lambda: state(pid) == "S", "the job to go on")
        terminal.line("hello")

        terminal.expect("got hello\n")


def test_stop_and_continue_sent_to_cgmem_alone_reach_the_child(tmp_path: Path) -> None:
    """kill -TSTP of cgmem stops both; kill -CONT of cgmem continues both."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'echo started $$; exec sleep 300' & echo pid $!; fg")
        pid = int(terminal.expect(r"pid (\d+)")[1])
        child = int(terminal.expect(r"started (\d+)\n")[1])
        os.kill(pid, signal.SIGTSTP)
        terminal.expect("Stopped")
        until(lambda: state(child) == "T", "the child to stop")
        os.kill(pid, signal.SIGCONT)

        until(lambda: state(child) == "S" and state(pid) == "S", "both to go on")
        os.kill(pid, signal.SIGTERM)
        until(lambda: not running(child), "the child to end")


def test_critical_line_reaches_the_terminal_whole(tmp_path: Path) -> None:
    """At CRITICAL one whole line appears while the child runs."""
    hog = Path(__file__).parents[1] / "helpers" / "hog.py"
    with bash(tmp_path) as terminal:
        terminal.line(
            f"{RUN} --id h1 --critical 16M --max 4G -- {sys.executable} {hog} --mb 64 --hold 300"
        )

        terminal.expect(r"(?m)^cgmem: h1: CRITICAL: Memory exceeded 16MB at [0-9.]+MB\n")
        terminal.type(CTRL_C)


def test_hanging_up_ends_the_job(tmp_path: Path) -> None:
    """When the terminal goes, SIGHUP ends the child, and cgmem with it."""
    with bash(tmp_path) as terminal:
        terminal.line(f"{RUN} -- sh -c 'echo started $$; exec sleep 300' & echo pid $!; fg")
        pid = int(terminal.expect(r"pid (\d+)")[1])
        child = int(terminal.expect(r"started (\d+)\n")[1])

    until(lambda: not running(child), "the child to end")
    until(lambda: not running(pid), "cgmem to end")


def test_colours_only_where_wanted(tmp_path: Path) -> None:
    """A level is coloured on a terminal, and not with NO_COLOR."""
    hog = Path(__file__).parents[1] / "helpers" / "hog.py"
    with bash(tmp_path) as terminal:
        terminal.line(
            f"{RUN} -q --id red --critical 16M --max 4G -- {sys.executable} {hog}"
            " --mb 64 --hold 300 &"
        )
        terminal.expect(r"ready \d+\n")
        terminal.line("cgmem show red")
        terminal.expect("level +\x1b\\[31;1mCRITICAL\x1b\\[0m\n")
        terminal.line("NO_COLOR=1 cgmem show red")
        terminal.expect("level +CRITICAL\n")
        terminal.line("kill %1; wait")
