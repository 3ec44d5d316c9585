"""Processes made from events, and events made from what the kernel sends."""

from __future__ import annotations

import errno
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cgmem.inspecting.traced import KEPT, Trace, Traced, exit_of, lifetime
from cgmem_backends.process_events import (
    Event,
    Source,
    answer,
    life_events,
    memory_event,
    read_some,
)

PIDS = st.integers(1, 6)
EVENTS = st.one_of(
    st.fixed_dictionaries({"event": st.just("fork"), "pid": PIDS, "ppid": PIDS}),
    st.fixed_dictionaries({"event": st.sampled_from(["exec", "exit"]), "pid": PIDS}),
    st.fixed_dictionaries({"event": st.just("memory"), "pid": PIDS, "peak_kib": PIDS}),
)


def fork(pid: int, ppid: int) -> dict[str, Any]:
    """A fork."""
    return {"event": "fork", "pid": pid, "ppid": ppid}


def memory(pid: int, peak_kib: int, name: str = "x") -> dict[str, Any]:
    """An end as taskstats tells it."""
    told = {"peak_kib": peak_kib, "seconds": 0.05, "name": name, "status": 9}
    return {"event": "memory", "pid": pid, **told}


def test_the_hog_that_lived_shortly() -> None:
    """A grandchild that nobody looked at is named, with its peak, its life and its end."""
    trace = Trace(hidden=[10])
    # The end is told by one source before the other has told of the beginning.
    for event in (fork(11, 10), fork(12, 11), memory(12, 300_000)):
        trace.take(event, 1.0)
    trace.seen(12, 11, "its parent's name", None)
    for what in ("exec", "exit"):
        trace.take({"event": what, "pid": 12, "status": 9}, 1.5)
    hog = trace.hog

    assert hog is not None
    assert (hog.pid, hog.ppid, hog.command, hog.peak_kib, hog.status) == (12, 11, "x", 300_000, 9)
    assert lifetime(hog, 99.0) == 0.05
    assert [process.pid for process in trace.processes] == [12, 11]


def test_strangers_are_passed_over() -> None:
    """Only the roots and what they fork."""
    trace = Trace(hidden=[10])
    trace.take(fork(21, 20), 1.0)
    trace.take(memory(21, 5), 2.0)

    assert trace.processes == []
    assert trace.hog is None


def test_both_sources_tell_of_an_end_in_any_order() -> None:
    """One process, whichever of exit and memory comes first."""
    for order in ((0, 1), (1, 0)):
        events = ({"event": "exit", "pid": 11, "status": 256}, memory(11, 7))
        trace = Trace(hidden=[10])
        trace.take(fork(11, 10), 1.0)
        for number in order:
            trace.take(events[number], 2.0)
        (process,) = trace.processes

        settled = [trace.settled]
        trace.take({"event": "exit", "pid": 10}, 3.0)
        settled.append(trace.settled)

        assert settled == [False, True]
        assert (process.peak_kib, process.seconds) == (7, 0.05)
        assert process.ended == 2.0


def test_a_pid_that_is_used_again() -> None:
    """Two lives are two processes."""
    trace = Trace(hidden=[10])
    for peak in (5, 6):
        trace.take(fork(11, 10), 1.0)
        trace.take(memory(11, peak), 2.0)
        trace.take({"event": "exit", "pid": 11, "status": 0}, 2.0)

    assert [process.peak_kib for process in trace.processes] == [5, 6]


def test_what_is_only_looked_at() -> None:
    """Without events: seen with its highest peak, and gone when it is no longer there."""
    trace = Trace()
    trace.seen(11, 1, "sh", 100)
    trace.seen(11, 1, "", 50)
    trace.gone([], 5.0)
    (process,) = trace.processes

    assert (process.command, process.peak_kib, process.ended) == ("sh", 100, 5.0)
    assert lifetime(process, 9.0) is None


def test_one_that_is_ending_keeps_its_command() -> None:
    """Its command line is empty by then; its name is for one whose command was never seen."""
    trace = Trace()
    trace.seen(11, 1, "python hog.py", 100, "[python]")
    trace.seen(11, 1, "", 0, "[python]")
    trace.seen(12, 1, "", 0, "[make]")

    assert [process.command for process in trace.processes] == ["python hog.py", "[make]"]


@given(events=st.lists(EVENTS, max_size=60))
def test_any_order_of_events_can_be_taken(events: list[dict[str, Any]]) -> None:
    """No sequence raises, and no more processes are there than were begun."""
    trace = Trace(hidden=[1])
    trace.seen(2, 1, "sh", None)
    for event in events:
        trace.take(event, 1.0)
    begun = 1 + sum(event["event"] == "fork" for event in events)

    assert len(trace.processes) <= begun


def test_the_helpers_of_a_hidden_root_are_left_out() -> None:
    """Only the main process and what it started is the command's."""
    trace = Trace(hidden=[10])
    for event in (fork(11, 10), fork(12, 11), fork(13, 10), fork(14, 13), fork(15, 14)):
        trace.take(event, 1.0)
    trace.seen(16, 1, "its parent is gone", None)
    for pid in (11, 12, 13):
        trace.take({"event": "exit", "pid": pid, "status": 0}, 2.0)
    trace.leave_out_all_but(13)

    assert sorted(process.pid for process in trace.processes) == [13, 14, 15, 16]


def test_of_many_the_largest_are_kept() -> None:
    """A build of millions of processes takes no more memory than one of thousands."""
    trace = Trace(hidden=[10])
    for number in range(5 * KEPT):
        trace.take(fork(11 + number, 10), 1.0)
        trace.take({"event": "exit", "pid": 11 + number, "status": 0}, 2.0)
        trace.take(memory(11 + number, 900_000 if number == 7 else 1 + number % 500), 2.0)

    assert len(trace.processes) <= 2 * KEPT
    assert len(trace.processes) + trace.dropped == 5 * KEPT
    assert trace.hog is not None
    assert (trace.hog.pid, trace.hog.peak_kib) == (18, 900_000)


def connector(what: int, *union: int) -> bytes:
    """A message of the process connector: two headers, what, cpu, time and four numbers."""
    return bytes(36) + struct.pack("=IIQ4I", what, 0, 2_500_000_000, *union) + bytes(8)


def test_messages_of_the_process_connector() -> None:
    """Threads are no processes; what is of no interest is left out."""
    at = {"at": 2.5}
    assert list(life_events(connector(1, 7, 1, 8, 8))) == [fork(8, 1) | at]
    assert list(life_events(connector(1, 7, 1, 8, 7))) == []
    assert list(life_events(connector(2, 9, 8, 0, 0))) == [{"event": "exec", "pid": 8} | at]
    ended = {"event": "exit", "pid": 8, "status": 9} | at
    assert list(life_events(connector(0x80000000, 8, 8, 9, 17))) == [ended]
    assert list(life_events(connector(0x80000000, 9, 8, 9, 17))) == []
    assert list(life_events(connector(0x200, 8, 8, 0, 0))) == []


def test_the_answer_of_the_process_connector() -> None:
    """Its first number is an errno; an event in its place says that it listens."""
    assert answer(connector(0, 1, 0, 0, 0)) == 1
    assert answer(connector(0, 0, 0, 0, 0)) == 0
    assert answer(connector(1, 7, 7, 8, 8)) == 0


class Socket:
    """Gives what it was given, then nothing."""

    def __init__(self, *coming: bytes | OSError) -> None:
        self.coming = list(coming)

    def recv(self, _size: int) -> bytes:
        """The next one."""
        if not self.coming:
            raise BlockingIOError
        found = self.coming.pop(0)
        if isinstance(found, OSError):
            raise found
        return found


def test_a_buffer_that_ran_over_is_told_and_gone_on_from() -> None:
    """What the kernel could not keep is one line; what comes after it is read."""
    overrun = OSError(errno.ENOBUFS, "")
    socket = Socket(connector(2, 8, 8, 0, 0), overrun, connector(2, 9, 9, 0, 0))
    told: list[Event] = []

    assert read_some(Source("life", socket, life_events), told.append)
    assert [event["event"] for event in told] == ["exec", "lost", "exec"]


def test_a_storm_leaves_the_other_source_its_turn() -> None:
    """Nothing is read ahead: each message is written before the next is asked for."""
    socket = Socket(*[connector(2, 8, 8, 0, 0)] * 1000)
    waiting: list[int] = []
    source = Source("life", socket, life_events)
    read_some(source, lambda _event: waiting.append(len(socket.coming)))

    assert waiting == list(range(999, 999 - len(waiting), -1))
    assert 0 < len(waiting) < 1000


def test_a_broken_source_says_so() -> None:
    """Any other trouble ends that source alone, with the reason."""
    told: list[Event] = []
    source = Source("memory", Socket(OSError(errno.EBADF, "Bad file descriptor")), life_events)

    assert not read_some(source, told.append)
    assert told[0]["event"] == "cannot"
    assert "Bad file descriptor" in told[0]["why"]


class Attributes(dict[str, Any]):
    """A netlink message as pyroute2 has it."""

    def get_attr(self, name: str) -> Any:
        """One attribute; None where it is absent."""
        return self.get(name)


def test_messages_of_taskstats() -> None:
    """Names may be bytes that are no text; a message without figures is passed over."""
    figures = {
        "ac_comm": b"caf\xe9" + bytes(28),
        "ac_pid": 8,
        "ac_exitcode": 0,
        "hiwater_rss": 300,
        "ac_etime": 50_000,
    }
    inner = Attributes(TASKSTATS_TYPE_STATS=figures)
    event = memory_event(Attributes(TASKSTATS_TYPE_AGGR_PID=inner))

    assert event is not None
    assert (event["name"], event["peak_kib"], event["seconds"]) == ("caf\ufffd", 300, 0.05)
    assert memory_event(Attributes()) is None


def test_an_end_in_the_words_of_run() -> None:
    """A wait status is an exit code or a signal, core dump or not; unseen it is neither."""
    ends = [exit_of(Traced(11, 10, status=status)) for status in (3 << 8, 15, 6 | 0x80, None)]

    assert ends == [(3, None), (None, 15), (None, 6), (None, None)]
