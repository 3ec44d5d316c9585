"""posix_spawn(3) into a cgroup: the calls of glibc 2.39 and newer, bound through ctypes.

The child is created by clone3(CLONE_INTO_CGROUP) (Linux 5.7), so it is inside before its first
instruction; with CLONE_VM and CLONE_VFORK, so a large parent costs nothing extra. ctypes.CDLL
releases the GIL while a call runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cgmem.shapes import NamedTuple

_SETPGROUP = 0x02
_SETSIGDEF = 0x04
_SETSID = 0x80
_SETCGROUP = 0x100

# posix_spawnattr_t is 336 bytes, posix_spawn_file_actions_t 80, sigset_t 128 (glibc, x86-64 and
# arm64); both structs end in padding that later versions may use.
_ATTR_BYTES = 512
_ACTIONS_BYTES = 256
_SIGSET_BYTES = 128


class Dup2(NamedTuple):
    """dup2(fd, new_fd); with fd == new_fd it only clears FD_CLOEXEC."""

    fd: int
    new_fd: int


class Close(NamedTuple):
    """close(fd); a descriptor that is not open is no error."""

    fd: int


class Chdir(NamedTuple):
    """chdir(path)."""

    path: bytes


class CloseFrom(NamedTuple):
    """Close every descriptor from `lowest` on."""

    lowest: int


FileAction = Dup2 | Close | Chdir | CloseFrom


class SpawnAttributes(NamedTuple):
    """What the child gets besides its descriptors."""

    new_session: bool = False
    process_group: int = -1
    """As Popen's: -1 leaves it, 0 makes a new one."""
    default_signals: bool = True
    """SIGPIPE and SIGXFSZ, which Python ignores, back to their default."""


class SpawnLibrary:
    """The C library's posix_spawn family. AttributeError if it lacks one of the functions."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int
        self._libc = libc
        self._spawn = _bind(libc, "posix_spawn", pointer, ctypes.c_char_p, *[pointer] * 4)
        self._attr_init = _bind(libc, "posix_spawnattr_init", pointer)
        self._attr_destroy = _bind(libc, "posix_spawnattr_destroy", pointer)
        self._set_flags = _bind(libc, "posix_spawnattr_setflags", pointer, ctypes.c_short)
        self._set_process_group = _bind(libc, "posix_spawnattr_setpgroup", pointer, number)
        self._set_default = _bind(libc, "posix_spawnattr_setsigdefault", pointer, pointer)
        actions = "posix_spawn_file_actions_"
        self._actions_init = _bind(libc, actions + "init", pointer)
        self._actions_destroy = _bind(libc, actions + "destroy", pointer)
        self._add_dup2 = _bind(libc, actions + "adddup2", pointer, number, number)
        self._add_close = _bind(libc, actions + "addclose", pointer, number)
        self._add_chdir = _bind(libc, actions + "addchdir_np", pointer, ctypes.c_char_p)
        self._add_closefrom = _bind(libc, actions + "addclosefrom_np", pointer, number)
        self._python_ignores = _signal_set(libc, signal.SIGPIPE, signal.SIGXFSZ)
        self._bind_cgroup(libc)

    def spawn(
        self,
        path: bytes,
        argv: Sequence[bytes],
        env: Sequence[bytes] | None,
        *,
        cgroup_fd: int,
        actions: Sequence[FileAction] = (),
        attributes: SpawnAttributes = SpawnAttributes(),  # noqa: B008  (an immutable record)
    ) -> int:
        """Start `path` inside the cgroup that `cgroup_fd` (O_PATH is enough) names; its pid.

        `env` None means the C environ, as execv has it. Raises OSError with the one errno that
        posix_spawn gives for cgroup, file actions and exec alike.
        """
        environ = self._environ() if env is None else _strings(env)
        pid = ctypes.c_int()
        with self._attr(cgroup_fd, attributes) as attr, self._actions(actions) as file_actions:
            _check(
                self._spawn(ctypes.byref(pid), path, file_actions, attr, _strings(argv), environ)
            )
        return pid.value

    def _bind_cgroup(self, libc: ctypes.CDLL) -> None:
        name = "posix_spawnattr_setcgroup_np"
        self._set_cgroup = _bind(libc, name, ctypes.c_void_p, ctypes.c_int)

    def _choose_cgroup(self, attr: ctypes.Array[ctypes.c_char], cgroup_fd: int) -> int:
        _check(self._set_cgroup(attr, cgroup_fd))
        return _SETCGROUP

    def _environ(self) -> ctypes.c_void_p:
        return ctypes.c_void_p.in_dll(self._libc, "environ")

    @contextmanager
    def _attr(
        self, cgroup_fd: int, attributes: SpawnAttributes
    ) -> Iterator[ctypes.Array[ctypes.c_char]]:
        attr = ctypes.create_string_buffer(_ATTR_BYTES)
        _check(self._attr_init(attr))
        try:
            flags = self._choose_cgroup(attr, cgroup_fd)
            if attributes.default_signals:
                flags |= _SETSIGDEF
                _check(self._set_default(attr, self._python_ignores))
            if attributes.new_session:
                flags |= _SETSID
            if attributes.process_group >= 0:
                flags |= _SETPGROUP
                _check(self._set_process_group(attr, attributes.process_group))
            _check(self._set_flags(attr, flags))
            yield attr
        finally:
            self._attr_destroy(attr)

    @contextmanager
    def _actions(self, actions: Sequence[FileAction]) -> Iterator[ctypes.Array[ctypes.c_char]]:
        buffer = ctypes.create_string_buffer(_ACTIONS_BYTES)
        _check(self._actions_init(buffer))
        try:
            for action in actions:
                _check(self._add(buffer, action))
            yield buffer
        finally:
            self._actions_destroy(buffer)

    def _add(self, buffer: ctypes.Array[ctypes.c_char], action: FileAction) -> int:
        match action:
            case Dup2(fd, new_fd):
                return int(self._add_dup2(buffer, fd, new_fd))
            case Close(fd):
                return int(self._add_close(buffer, fd))
            case Chdir(path):
                return int(self._add_chdir(buffer, path))
            case CloseFrom(lowest):
                return int(self._add_closefrom(buffer, lowest))


def _bind(libc: ctypes.CDLL, name: str, *argtypes: type) -> ctypes._NamedFuncPointer:
    function = libc[name]
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function


def _signal_set(libc: ctypes.CDLL, *signals: int) -> ctypes.Array[ctypes.c_char]:
    signal_set = ctypes.create_string_buffer(_SIGSET_BYTES)
    _bind(libc, "sigemptyset", ctypes.c_void_p)(signal_set)
    add = _bind(libc, "sigaddset", ctypes.c_void_p, ctypes.c_int)
    for signum in signals:
        add(signal_set, signum)
    return signal_set


def _strings(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(values) + 1))(*values, None)


def _check(error: int) -> None:
    # The posix_spawn family returns the error number and leaves errno alone.
    if error:
        raise OSError(error, os.strerror(error))
