"""Fork, exec and exit of every process of the host, as JSON lines on stdout. A program of its own.

Run as `python -m cgmem_backends.process_events`; it ends when its stdin is closed. Sources: the
process connector (linux/cn_proc.h; root only before 6.6) and taskstats
(Documentation/accounting/taskstats.rst; CAP_NET_ADMIN), both through pyroute2, whose import costs
25 MB: nobody else should have to pay for it.

Lines: {"event": "ready" | "cannot" | "lost", "what": "life" | "memory"}, {"event": "fork", "pid",
"ppid"}, {"event": "exec", "pid"}, {"event": "exit", "pid", "status"}, {"event": "memory", "pid",
"status", "peak_kib", "seconds", "name"}. `status` is a wait status; the first three also have `at`,
the kernel's time of it on the monotonic clock.

pyroute2 opens the sockets and speaks netlink; they are read here, one message at a time. Its own
`get` reads ahead into a queue without a bound, which under a storm of forks grows by megabytes a
second, and gives up for good where the kernel's buffer ran over (ENOBUFS). Here what waits is in
the kernel's buffer and in the pipe, and what did not fit is told as lost.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from struct import Struct
from typing import Any, NamedTuple

Event = dict[str, Any]

KERNEL_BUFFER_BYTES = 8 << 20
"""What may wait in each socket while this program or its reader is not scheduled."""
LISTENING_SECONDS = 5.0
"""Within this the process connector answers; where it may not, some kernels never do."""
_MESSAGE_BYTES = 1 << 16
_IN_A_ROW = 256
_SO_RCVBUFFORCE = 33
"""socket(7), asm-generic/socket.h: past rmem_max, for CAP_NET_ADMIN. Python has no name for it."""

# struct nlmsghdr, struct cn_msg, then struct proc_event: what, cpu, timestamp_ns and a union.
_HEAD = Struct("=IIQ")
_HEAD_AT = 36
_UNION = Struct("=4I")
_UNION_AT = 52
_NONE, _FORK, _EXEC, _EXIT = 0, 1, 2, 0x80000000


class RefusedError(Exception):
    """The kernel does not let us listen; the message says why."""


class Source(NamedTuple):
    """A socket that is listened on, and how one message of it is read."""

    what: str
    socket: Any
    events: Callable[[bytes], Iterator[Event]]


def main() -> None:
    """Write events until stdin is closed, or nobody reads them any more."""
    try:
        _follow(list(_sources()))
    except BrokenPipeError:
        return


def _sources() -> Iterator[Source]:
    """Listen; what can't is told, and why."""
    for what, listen in (("life", _life), ("memory", _memory)):
        try:
            source = listen(what)
        except ImportError as error:
            _write({"event": "cannot", "what": what, "why": f"pyroute2 is missing ({error})"})
        except Exception as error:  # noqa: BLE001  (told to whoever reads; pyroute2 raises its own)
            _write({"event": "cannot", "what": what, "why": _reason(error)})
        else:
            _write({"event": "ready", "what": what})
            yield source


def _reason(error: Exception) -> str:
    code = getattr(error, "code", None)  # pyroute2's NetlinkError
    if isinstance(code, int):
        return f"the kernel refuses: {os.strerror(code)}"
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, KeyError):  # pyroute2's for a socket that could not be bound
        return "the kernel refuses: Operation not permitted"
    return f"{type(error).__name__}: {error}"


def _follow(sources: list[Source]) -> None:
    poller = select.poll()
    poller.register(0, select.POLLIN)
    by_descriptor = {source.socket.fileno(): source for source in sources}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == 0:
                if not os.read(0, 4096):
                    return
            elif not read_some(by_descriptor[descriptor], _write):
                poller.unregister(descriptor)


def read_some(source: Source, write: Callable[[Event], None]) -> bool:
    """Write what has come, but not without end; False once the source is broken.

    Life comes first: an end should not be told before its beginning.
    """
    for _ in range(_IN_A_ROW):
        try:
            data = source.socket.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                write({"event": "cannot", "what": source.what, "why": _reason(error)})
                return False
            write({"event": "lost", "what": source.what})
            continue
        for event in source.events(data):
            write(event)
    return True


def _life(what: str) -> Source:
    from pyroute2.netlink import NLMSG_DONE
    from pyroute2.netlink.connector.cn_proc import (
        CN_IDX_PROC,
        CN_VAL_PROC,
        PROC_CN_MCAST_LISTEN,
        ProcEventSocket,
        proc_event_control,
    )

    life = ProcEventSocket()
    _enlarge(life)
    life.bind()
    # Its own `control` waits for the answer for ever.
    message = proc_event_control()
    message["action"] = PROC_CN_MCAST_LISTEN
    message["idx"], message["val"], message["len"] = CN_IDX_PROC, CN_VAL_PROC, 4
    message["header"]["type"] = NLMSG_DONE
    message.encode()
    life.send(message.data)
    if not select.select([life.fileno()], [], [], LISTENING_SECONDS)[0]:
        raise RefusedError("the kernel does not answer: in this namespace nobody may listen")
    refused = answer(life.recv(_MESSAGE_BYTES))
    if refused:
        raise RefusedError(f"the kernel refuses: {os.strerror(refused)}")
    return Source(what, life, life_events)


def _memory(what: str) -> Source:
    from pyroute2.netlink.taskstats import TaskStats

    stats = TaskStats()
    _enlarge(stats)
    stats.bind()
    stats.get_pid_stat(os.getpid())  # raises without the privilege; register_mask does not
    stats.register_mask(f"0-{(os.cpu_count() or 1) - 1}")

    def events(data: bytes) -> Iterator[Event]:
        for message in stats.marshal.parse(data):
            event = memory_event(message)
            if event is not None:
                yield event

    return Source(what, stats, events)


def _enlarge(netlink: Any) -> None:
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
    with suppress(PermissionError):
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, KERNEL_BUFFER_BYTES)


def answer(data: bytes) -> int:
    """Read the connector's answer to who wants to listen: 0 or errno. An event is an answer too."""
    what, _, _ = _HEAD.unpack_from(data, _HEAD_AT)
    refused: int = _UNION.unpack_from(data, _UNION_AT)[0] if what == _NONE else 0
    return refused


def life_events(data: bytes) -> Iterator[Event]:
    """Read one message of the process connector; threads are no processes of their own."""
    what, _, nanoseconds = _HEAD.unpack_from(data, _HEAD_AT)
    at = nanoseconds / 1e9
    if what == _FORK:
        _, parent_tgid, child_pid, child_tgid = _UNION.unpack_from(data, _UNION_AT)
        if child_pid == child_tgid:
            yield {"event": "fork", "pid": child_pid, "ppid": parent_tgid, "at": at}
    elif what == _EXEC:
        _, tgid, _, _ = _UNION.unpack_from(data, _UNION_AT)
        yield {"event": "exec", "pid": tgid, "at": at}
    elif what == _EXIT:
        pid, tgid, status, _ = _UNION.unpack_from(data, _UNION_AT)
        if pid == tgid:
            yield {"event": "exit", "pid": pid, "status": status, "at": at}


def memory_event(message: Any) -> Event | None:
    """Read one message of taskstats: the end of a task."""
    whole = message.get_attr("TASKSTATS_TYPE_AGGR_PID")
    found = None if whole is None else whole.get_attr("TASKSTATS_TYPE_STATS")
    if found is None:
        return None
    name = found["ac_comm"]
    # 32 bytes as the kernel filled them, or text, whatever version the kernel's struct has.
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return {
        "event": "memory",
        "pid": found["ac_pid"],
        "status": found["ac_exitcode"],
        "peak_kib": found["hiwater_rss"],
        "seconds": found["ac_etime"] / 1e6,
        "name": text.partition("\0")[0],
    }


def _write(event: Event) -> None:
    line = json.dumps(event).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    main()
