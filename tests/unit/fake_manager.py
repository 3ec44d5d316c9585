"""A systemd manager at a socket in a temporary directory, which answers as it is told to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jeepney

from cgmem_backends.systemd_address import Address

Answer = Callable[..., Any]


class Refusal(Exception):  # noqa: N818  (what the manager answers)
    """An answer that is an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class FakeManager:
    """Serves one connection after the other. `answers` are by member; None hangs."""

    def __init__(self, path: Path, **answers: Answer | None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.properties = {"Version": "257.9", "ControlGroup": "/user.slice"}
        self.job_result = "done"
        self.hangs_up_after: int | None = None
        self._answers: dict[str, Answer | None] = {"Get": self._get, **answers}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve nobody any more."""
        # A close alone would not wake who waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()

    def members(self) -> list[str]:
        """Name what was called, in order, the greeting and the properties left out."""
        return [member for member, _ in self.calls if member not in ("Hello", "Get")]

    def _get(self, _interface: str, name: str) -> tuple[str, tuple[Any, ...]]:
        return "v", (("s", self.properties[name]),)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        if "AUTH" in self._answers:
            return
        connection.recv(1)
        connection.recv(100)
        connection.sendall(b"OK 0123456789abcdef\r\n")
        parser, begun, answered = jeepney.Parser(), False, 0
        while data := connection.recv(4096):
            if not begun:
                data, begun = data.removeprefix(b"BEGIN\r\n"), True
            parser.add_data(data)
            while (message := parser.get_next_message()) is not None:
                if answered == self.hangs_up_after:
                    self.hangs_up_after = None
                    return
                self._answer(connection, message)
                answered += 1

    def _answer(self, connection: socket.socket, message: Any) -> None:
        member = message.header.fields[jeepney.HeaderFields.member]
        self.calls.append((member, tuple(message.body)))
        answer: Answer | None = self._answers.get(member, _nothing)
        if answer is None:
            return
        try:
            answered: tuple[str | None, tuple[Any, ...]] = answer(*message.body) or (None, ())
        except Refusal as refusal:
            error = jeepney.new_error(message, refusal.name, "s", (str(refusal),))
            connection.sendall(error.serialise(serial=7))
            return
        signature, body = answered
        if signature == "o":  # a job: somebody else's ends before the reply, the own one after
            connection.sendall(self._job_removed("/job/other", 1))
        reply = jeepney.new_method_return(message, signature, body)
        connection.sendall(reply.serialise(serial=7))
        if signature == "o":
            connection.sendall(self._job_removed(body[0], 2))

    def _job_removed(self, job: str, serial: int) -> bytes:
        at = jeepney.DBusAddress("/m", interface="org.freedesktop.systemd1.Manager")
        body = (serial, job, "x.scope", self.job_result)
        signal = jeepney.new_signal(at, "JobRemoved", "uoss", body)
        return bytes(signal.serialise(serial=serial))


def _nothing(*_: Any) -> Any:
    return None


@contextmanager
def manager_at(path: Path, **answers: Answer | None) -> Iterator[tuple[FakeManager, Address]]:
    """Give a manager at `path`, as at a message bus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fake = FakeManager(path, **answers)
    try:
        yield fake, Address(path, is_bus=True, user=os.geteuid() != 0)
    finally:
        fake.close()
