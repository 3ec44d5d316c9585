"""Calls to a systemd manager over D-Bus: one connection, blocking, every wait bounded.

jeepney does the wire format. Its own blocking connection is not used: its greeting waits without
a bound, and a manager's own socket takes none.
Source: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import itertools
import select
import time
from contextlib import suppress

from cgmem_backends.systemd_address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

TIMEOUT_SECONDS = 5.0
"""For a reply. A manager that is starting dozens of units answers in far less."""

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_JOBS = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'"


class BusError(Exception):
    """A call failed. `name` is the D-Bus error's, or says what became of the connection."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name

    NO_REPLY = "no-reply"
    DISCONNECTED = "disconnected"
    NOT_INSTALLED = "not-installed"


class Bus:
    """One connection. Not thread-safe; a forked child must not use its parent's.

    Every method may raise `BusError`.
    """

    def __init__(self, address: Address, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._serials = itertools.count(1)
        self._removed_jobs: dict[str, str] = {}
        self._jeepney = _load_jeepney()
        self._parser = self._jeepney.Parser()
        self._socket = self._connected(address)
        self._is_bus = address.is_bus
        if address.is_bus:
            try:
                self._ask_bus("Hello")
            except BusError:
                self.close()
                raise

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        self._socket.close()

    def peer_pid(self) -> int:
        """Who listens at the socket, as this pid namespace knows it; 0 if that is outside of it."""
        import socket
        import struct

        found = self._socket.getsockopt(
            socket.SOL_SOCKET, getattr(socket, "SO_PEERCRED", 17), struct.calcsize("3i")
        )
        return int(struct.unpack("3i", found)[0])

    def manager(self, member: str, signature: str = "", *arguments: Any) -> tuple[Any, ...]:
        """Call a method of the manager object and return what it returns."""
        return self._call(_NAME, _PATH, _MANAGER, member, signature, arguments)

    def manager_property(self, name: str) -> Any:
        """Read a property of the manager object."""
        interface = "org.freedesktop.DBus.Properties"
        ((_, value),) = self._call(_NAME, _PATH, interface, "Get", "ss", (_MANAGER, name))
        return value

    def run_job(self, member: str, signature: str, *arguments: Any) -> str:
        """Call a method of the manager that begins a job; return the job's result.

        The reply says only that the job is queued: what it does is done at its JobRemoved signal.
        """
        self._listen("AddMatch", "Subscribe")
        try:
            (job,) = self.manager(member, signature, *arguments)
            deadline = time.monotonic() + self._timeout
            while job not in self._removed_jobs:
                self._note_signal(self._received(deadline))
            return self._removed_jobs[job]
        finally:
            self._removed_jobs.clear()
            # Nobody reads between two calls: signals would fill the bus's queue until it hangs up.
            with suppress(BusError):  # the call's own error is the one to show
                self._listen("RemoveMatch", "Unsubscribe")

    def _listen(self, at_the_bus: str, at_the_manager: str) -> None:
        if self._is_bus:
            self._ask_bus(at_the_bus, "s", _JOBS)
        self.manager(at_the_manager)

    def _connected(self, address: Address) -> socket.socket:
        from jeepney.auth import AuthenticationError
        from jeepney.io.blocking import prep_socket

        try:
            connection: socket.socket = prep_socket(str(address.socket), timeout=self._timeout)
        except TimeoutError as error:
            raise self._no_reply() from error
        except (OSError, AuthenticationError) as error:
            raise BusError(BusError.DISCONNECTED, f"{address.socket}: {error}") from error
        connection.setblocking(False)
        return connection

    def _ask_bus(self, member: str, signature: str = "", *arguments: Any) -> None:
        name = "org.freedesktop.DBus"
        self._call(name, "/org/freedesktop/DBus", name, member, signature, arguments)

    def _call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        arguments: tuple[Any, ...],
    ) -> tuple[Any, ...]:
        jeepney = self._jeepney
        deadline = time.monotonic() + self._timeout
        serial = next(self._serials)
        at = jeepney.DBusAddress(path, bus_name=destination, interface=interface)
        call = jeepney.new_method_call(at, member, signature or None, arguments)
        self._send(call.serialise(serial=serial), deadline)
        while True:
            message = self._received(deadline)
            fields = message.header.fields
            if fields.get(jeepney.HeaderFields.reply_serial) != serial:
                self._note_signal(message)
            elif message.header.message_type is jeepney.MessageType.error:
                text = message.body[0] if message.body else ""
                raise BusError(str(fields[jeepney.HeaderFields.error_name]), str(text))
            else:
                return tuple(message.body)

    def _note_signal(self, message: Any) -> None:
        jeepney = self._jeepney
        if message.header.message_type is jeepney.MessageType.signal:
            fields = message.header.fields
            if fields.get(jeepney.HeaderFields.member) == "JobRemoved":
                _, job, _, result = message.body
                self._removed_jobs[job] = result

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT, deadline)
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise BusError(BusError.DISCONNECTED, str(error)) from error

    def _received(self, deadline: float) -> Any:
        while (message := self._parser.get_next_message()) is None:
            self._wait(select.POLLIN, deadline)
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                raise BusError(BusError.DISCONNECTED, str(error)) from error
            if not data:
                raise BusError(BusError.DISCONNECTED, "the connection was closed")
            self._parser.add_data(data)
        return message

    def _wait(self, events: int, deadline: float) -> None:
        # poll, since select refuses descriptors from 1024 on.
        poller = select.poll()
        poller.register(self._socket, events)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise self._no_reply()

    def _no_reply(self) -> BusError:
        return BusError(BusError.NO_REPLY, f"no reply within {self._timeout:g} s")


def _load_jeepney() -> Any:
    try:
        # It costs 3 MB: not before it is used. It ships no type hints.
        import jeepney
    except ImportError as error:
        raise BusError(BusError.NOT_INSTALLED, f"jeepney can't be imported: {error}") from error
    return jeepney
