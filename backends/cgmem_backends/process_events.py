"""Fork, exec and exit of every process of the host, as JSON lines on stdout. A program of its own.

Run as `python -m cgmem_backends.process_events`; it ends when its stdin is closed. Sources: the
process connector (Documentation/driver-api/connector.rst; root only before 6.6) and taskstats
(Documentation/accounting/taskstats.rst; CAP_NET_ADMIN), both through pyroute2, whose import costs
25 MB: nobody else should have to pay for it.

Lines: {"event": "ready" | "cannot", "what": "life" | "memory"}, {"event": "fork", "pid", "ppid"},
{"event": "exec", "pid"}, {"event": "exit", "pid", "status"}, {"event": "memory", "pid", "status",
"peak_kib", "seconds", "name"}. `status` is a wait status.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Event = dict[str, Any]

_LISTENING = ("life", "memory")


def main() -> None:
    """Write events until stdin is closed."""
    try:
        # Both in this thread: two that import at once can wait for each other.
        from pyroute2.netlink.connector.cn_proc import ProcEventSocket
        from pyroute2.netlink.taskstats import TaskStats
    except ImportError as error:
        for what in _LISTENING:
            _write({"event": "cannot", "what": what, "why": f"pyroute2 is missing ({error})"})
    else:
        _listen("life", lambda: _life(ProcEventSocket()))
        _listen("memory", lambda: _memory(TaskStats()))
    sys.stdin.read()
    os._exit(0)  # the threads wait in the kernel


def _listen(what: str, events: Callable[[], Iterator[Event]]) -> None:
    def run() -> None:
        try:
            for event in events():
                _write(event)
        except BrokenPipeError:  # nobody reads any more: stdin is closed too
            return
        except Exception as error:  # noqa: BLE001  (told to whoever reads; pyroute2 raises its own)
            _write({"event": "cannot", "what": what, "why": f"{type(error).__name__}: {error}"})

    threading.Thread(target=run, name=what, daemon=True).start()


def _life(socket: Any) -> Iterator[Event]:
    socket.bind()
    socket.control(listen=True)
    yield {"event": "ready", "what": "life"}
    while True:
        for message in socket.get():
            event = life_event(message)
            if event is not None:
                yield event


def life_event(message: Mapping[str, Any]) -> Event | None:
    """Read one message of the process connector; threads are no processes of their own."""
    what = message.get("event", "")
    if what == "PROC_EVENT_FORK" and message["child_pid"] == message["child_tgid"]:
        return {"event": "fork", "pid": message["child_pid"], "ppid": message["parent_tgid"]}
    if what == "PROC_EVENT_EXEC":
        return {"event": "exec", "pid": message["process_tgid"]}
    if what == "PROC_EVENT_EXIT" and message["process_pid"] == message["process_tgid"]:
        return {"event": "exit", "pid": message["process_pid"], "status": message["exit_code"]}
    return None


def _memory(stats: Any) -> Iterator[Event]:
    stats.bind()
    stats.register_mask(f"0-{(os.cpu_count() or 1) - 1}")
    # Without the privilege the error comes with the first answer.
    yield {"event": "ready", "what": "memory"}
    while True:
        for message in stats.get():
            event = memory_event(message)
            if event is not None:
                yield event


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


_lock = threading.Lock()


def _write(event: Event) -> None:
    line = json.dumps(event).encode() + b"\n"
    with _lock:
        while line:
            line = line[os.write(1, line) :]


if __name__ == "__main__":
    main()
