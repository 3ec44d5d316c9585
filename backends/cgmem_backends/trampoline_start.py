"""Start a command by way of the exec trampoline, with nothing but Popen's public interface.

It costs one start of a bare interpreter. Popen does the caller's descriptors, cwd, umask, session
and signals; the trampoline enters the cgroup, changes identity and becomes the command. The
request travels in a memory file, so neither the interpreter nor ps(1) ever sees the caller's
environ, and E2BIG is exec's own.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from cgmem.errors import CgmemError
from cgmem_backends.exec_request import ExecRequest, exec_request
from cgmem_backends.start_errors import cgroup_refused, no_trampoline
from cgmem_backends.trampoline_request import split_environ, stay_ignored, take_identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgmem_backends.subtree_source import Attach

_SCRIPT = Path(__file__).absolute().with_name("trampoline.py")
_TAKEN = ("executable", "shell", "env", "pass_fds", "close_fds")


def start_by_trampoline(
    args: Any,
    options: Mapping[str, Any],
    *,
    cgroup_path: str,
    cgroup_fd: int,
    attach: Attach | None = None,
) -> subprocess.Popen[Any]:
    """Start `args` inside the cgroup. Returns after exec. `attach` puts it in, else it goes itself.

    Raises what subprocess.Popen raises, `ScopeVanished`, `CgroupError`, and `BackendUnavailable`
    if this Python can't start a second one.
    """
    command = _command()
    request = exec_request(
        args,
        executable=options.get("executable"),
        shell=options.get("shell", False),
        env=options.get("env"),
        cwd=options.get("cwd"),
    )
    left = {name: value for name, value in options.items() if name not in _TAKEN}
    identity = take_identity(left)
    env, left["env"] = split_environ(request, options.get("env"))
    with ExitStack() as for_us:
        with ExitStack() as for_child:
            procs_fd = _opened(for_child, _open_procs(cgroup_path, cgroup_fd))
            read_end, write_end = os.pipe()
            read_fd, report_fd = _opened(for_us, read_end), _opened(for_child, write_end)
            go_fd, wait_fd = _go_pipe(for_us, for_child) if attach else (None, None)
            message = {
                "procs_fd": procs_fd,
                "wait_fd": wait_fd,
                "report_fd": report_fd,
                "argv": request.argv,
                "candidates": request.candidates,
                "env": env,
                "ignored": stay_ignored(options.get("restore_signals", True)),
                **identity,
            }
            request_fd = _opened(for_child, _memory_file(marshal.dumps(message)))
            ours = (procs_fd, report_fd, request_fd, *(() if wait_fd is None else (wait_fd,)))
            left["pass_fds"], left["close_fds"] = _descriptors(options, ours)
            process = _popen([*command, str(request_fd)], left)
        try:
            if attach is not None and go_fd is not None:
                _attach(process, go_fd, attach, cgroup_path)
            _await_exec(process, read_fd, request, cgroup_path)
        except BaseException:
            _discard(process)
            raise
    process.args = args
    return process


def _command() -> list[str]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise no_trampoline("sys.executable is not a Python interpreter")
    if not _SCRIPT.is_file():
        raise no_trampoline(f"{_SCRIPT} is not a file")
    return [sys.executable, "-I", "-S", str(_SCRIPT)]


def _open_procs(cgroup_path: str, cgroup_fd: int) -> int:
    # Since 5.16 write permission is the opener's (1756d7994ad8), so it outlasts a change of user.
    try:
        return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        raise cgroup_refused(error.errno, cgroup_path) from error


def _opened(stack: ExitStack, descriptor: int) -> int:
    """Let `stack` close it; kept above 2, where Popen would overwrite it in the child."""
    if descriptor <= 2:
        low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(low)
    stack.callback(os.close, descriptor)
    return descriptor


def _go_pipe(for_us: ExitStack, for_child: ExitStack) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    wait_fd = _opened(for_child, read_end)
    return _opened(for_us, write_end), wait_fd


def _attach(process: subprocess.Popen[Any], go_fd: int, attach: Attach, cgroup_path: str) -> None:
    """Have the trampoline put into the cgroup, then let it go on."""
    try:
        attach(cgroup_path, process.pid)
    except CgmemError:
        if process.poll() is None:
            raise
        return  # it ended before: its report says why
    with suppress(BrokenPipeError):
        os.write(go_fd, b"g")


def _memory_file(content: bytes) -> int:
    descriptor = _memfd_create()
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _memfd_create() -> int:
    if sys.platform == "linux":
        return os.memfd_create("cgmem-request", os.MFD_CLOEXEC)
    raise no_trampoline("it needs Linux")


def _descriptors(options: Mapping[str, Any], ours: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Choose (pass_fds, close_fds) for the trampoline.

    Nothing is ever made inheritable in this process, where another thread's child could inherit
    it: for close_fds=False, what is inheritable now is passed by number instead.
    """
    passed = tuple(options.get("pass_fds", ()))
    close_fds = options.get("close_fds", True)
    if passed or close_fds:
        return (*passed, *ours), close_fds
    return (*_inheritable(), *ours), True


def _inheritable() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (the names are all)
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            # Closed meanwhile: the directory's own, or another thread's.
            continue
    return found


def _popen(command: list[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    try:
        return subprocess.Popen(command, **options)
    except OSError as error:
        # E2BIG: our own environ or the command's, which the command would not have got either.
        if error.filename == command[0] and error.errno != errno.E2BIG:
            raise no_trampoline(f"{command[0]}: {error.strerror}") from error
        raise


def _await_exec(
    process: subprocess.Popen[Any],
    read_fd: int,
    request: ExecRequest,
    cgroup_path: str,
) -> None:
    """Read the trampoline's report: `exec ` when it is ready, then end of file on success."""
    report = b""
    while part := os.read(read_fd, 100):
        report += part
    stage, _, failure = report.decode("ascii").partition(" ")
    if not stage:
        _refuse_silence(process)
    elif stage == "cgroup":
        raise cgroup_refused(int(failure), cgroup_path)
    elif failure:
        filename = request.executable if stage == "exec" else None
        raise OSError(int(failure), os.strerror(int(failure)), filename)


def _refuse_silence(process: subprocess.Popen[Any]) -> None:
    # Killed by a signal is how any command may end; an exit before exec is the trampoline's own.
    status = process.wait()
    if status >= 0:
        raise no_trampoline(f"the exec trampoline ended with status {status}; see its stderr")


def _discard(process: subprocess.Popen[Any]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()
