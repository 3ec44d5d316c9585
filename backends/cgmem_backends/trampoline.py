"""The exec trampoline: enters a cgroup, undoes what Python's start-up changed, becomes the command.

Run as a script, `python -I -S trampoline.py FD`, by cgmem_backends.trampoline_start, which sends
the request through FD. Its start-up is the price of this road: it imports built-in modules only.
"""

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum; typeshed lacks this one
import marshal
import posix
import sys

ENOENT, ENOTDIR = 2, 20


def main() -> None:
    """Do what the request says; never returns if exec succeeds."""
    if callable(_signal.getsignal(_signal.SIGINT)):
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    request_fd = int(sys.argv[1])
    size = posix.fstat(request_fd).st_size
    # The parent that started this process wrote it, to a memory file that has no name.
    request = marshal.loads(posix.pread(request_fd, size, 0))  # noqa: S302
    posix.close(request_fd)
    report = request["report_fd"]
    posix.set_inheritable(report, False)
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ):
        ignored = signum in request["ignored"]
        _signal.signal(signum, _signal.SIG_IGN if ignored else _signal.SIG_DFL)
    # Before the change of identity, after which /proc/self is no longer ours to read.
    if request["env"] is None and b"LC_CTYPE" in posix.environ:
        restore_locale()
    try:
        stage = "cgroup"
        enter(request["procs_fd"], request["wait_fd"])
        stage = "identity"
        become(request["groups"], request["gid"], request["uid"])
    except OSError as error:
        posix.write(report, f"{stage} {error.errno}".encode())
        posix._exit(125)
    posix.write(report, b"exec ")
    failure = execute(request["candidates"], request["argv"], request["env"])
    posix.write(report, str(failure).encode())
    posix._exit(125)


def enter(procs_fd: int, wait_fd: "int | None") -> None:
    """Go into the cgroup, or wait until it is said that we have been put there."""
    if wait_fd is None:
        posix.write(procs_fd, b"0")
    elif not posix.read(wait_fd, 1):
        posix._exit(125)  # whoever was to say so has gone: without a budget nothing runs
    else:
        posix.close(wait_fd)
    posix.close(procs_fd)


def become(groups: "list[int] | None", gid: "int | None", uid: "int | None") -> None:
    """Change identity, in Popen's order."""
    if groups is not None:
        posix.setgroups(groups)
    if gid is not None:
        posix.setregid(gid, gid)
    if uid is not None:
        posix.setreuid(uid, uid)


def restore_locale() -> None:
    """Undo PEP 538: in the C locale, Python's start-up sets LC_CTYPE in the environ."""
    try:
        as_started = read("/proc/self/environ")
    except OSError:
        return
    prefix = b"LC_CTYPE="
    for entry in as_started.split(b"\0"):
        if entry.startswith(prefix):
            posix.putenv(b"LC_CTYPE", entry[len(prefix) :])
            return
    posix.unsetenv(b"LC_CTYPE")


def read(path: str) -> bytes:
    """Read a file of unknown size."""
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    content = b""
    while part := posix.read(descriptor, 65536):
        content += part
    posix.close(descriptor)
    return content


def execute(
    candidates: "list[bytes]", argv: "list[bytes]", env: "dict[bytes, bytes] | None"
) -> int:
    """Try each candidate; the errno that Popen would report."""
    failure = 0
    for candidate in candidates:
        try:
            if not argv or not argv[0]:
                execute_nameless(candidate, argv, env)
            elif env is None:
                posix.execv(candidate, argv)
            else:
                posix.execve(candidate, argv, env)
        except OSError as error:
            if failure in (0, ENOENT, ENOTDIR):
                failure = error.errno or 0
    return failure


def execute_nameless(
    candidate: bytes, argv: "list[bytes]", env: "dict[bytes, bytes] | None"
) -> None:
    """Exec with an empty argv[0] or none at all, which the posix module refuses and Popen takes."""
    import ctypes

    def strings(values: "list[bytes]") -> "ctypes.Array[ctypes.c_char_p]":
        return (ctypes.c_char_p * (len(values) + 1))(*values, None)

    libc = ctypes.CDLL(None, use_errno=True)
    if env is None:
        libc.execv(candidate, strings(argv))
    else:
        libc.execve(candidate, strings(argv), strings([b"=".join(e) for e in env.items()]))
    raise OSError(ctypes.get_errno(), "")


if __name__ == "__main__":
    main()
