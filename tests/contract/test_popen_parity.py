"""Whatever subprocess.Popen gives a child, a placed child gets too; and the same exceptions.

Covers every road into a cgroup that this host has, each as a `start(args, **popen_options)`:
a new road is one more entry in ROADS. The reporter child writes down what it was given.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem_backends.execute_child import NotHonoured
from cgmem_backends.placed_popen import Destination, PlacedPopen
from cgmem_backends.placement import load_library
from cgmem_backends.spawn_attr import SpawnLibrary
from cgmem_backends.trampoline_start import start_by_trampoline
from tests.helpers.proc import children, open_descriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")

Start = Callable[..., "subprocess.Popen[Any]"]
Road = Callable[[str, int], Start]

# Another user must be able to run it, which a pyenv below /root does not allow.
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
NOBODY = 65534

REPORTER = r"""
import fcntl, json, os, sys
def read(path):
    with open(path, "rb") as file:
        return file.read()
def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
            flags = fcntl.fcntl(int(name), fcntl.F_GETFL)
        except OSError:
            continue
        if not link.startswith(f"/proc/{os.getpid()}/"):
            found[name] = [link, flags & os.O_ACCMODE, os.get_inheritable(int(name))]
    return found
umask = os.umask(0)
os.umask(umask)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
session = os.getsid(os.getppid())
report = {
    "argv": read("/proc/self/cmdline").hex(),
    "environ": sorted(entry.hex() for entry in read("/proc/self/environ").split(b"\0")),
    "descriptors": descriptors(),
    "umask": umask,
    "blocked": status["SigBlk"].strip(),
    "cwd": os.getcwd(),
    "leads session": os.getsid(0) == os.getpid(),
    "leads group": os.getpgid(0) == os.getpid(),
    "in parent's session": os.getsid(0) == session,
    "in parent's group": os.getpgid(0) == os.getpgid(os.getppid()),
    "parent": os.getppid(),
    "identity": [os.getresuid(), os.getresgid(), os.getgroups()],
    "capabilities": status["CapEff"].strip(),
    "nice": os.nice(0),
}
with open(sys.argv[1], "w") as file:
    json.dump(report, file)
"""


class _UnplacedLibrary(SpawnLibrary):
    """The same posix_spawn where it has no cgroups (glibc 2.34), to hold all else to Popen's."""

    def _bind_cgroup(self, libc: ctypes.CDLL) -> None:
        """Need no setcgroup."""

    def _choose_cgroup(self, attr: ctypes.Array[ctypes.c_char], cgroup_fd: int) -> int:
        return 0


def _by_trampoline(path: str, fd: int) -> Start:
    return lambda args, **options: start_by_trampoline(
        args, options, cgroup_path=path, cgroup_fd=fd
    )


def _by_posix_spawn(library: SpawnLibrary) -> Road:
    def road(path: str, fd: int) -> Start:
        to = Destination(library, path, fd)
        return lambda args, **options: PlacedPopen(args, destination=to, **options)

    return road


def _roads() -> dict[str, Road]:
    roads: dict[str, Road] = {"trampoline": _by_trampoline}
    library = load_library()
    if "CGMEM_IN_GUEST" in os.environ:
        if not isinstance(library, str):
            roads["posix_spawn"] = _by_posix_spawn(library)
    else:
        with contextlib.suppress(AttributeError):
            roads["posix_spawn without a cgroup"] = _by_posix_spawn(
                _UnplacedLibrary(ctypes.CDLL(None))
            )
    return roads


ROADS = _roads() if sys.platform == "linux" else {}
# The trampoline asks glibc and the kernel for nothing new: seen on this host, seen everywhere.
ROADS_HERE = [
    pytest.param(name, marks=[pytest.mark.alike] if name == "trampoline" else []) for name in ROADS
]


@pytest.fixture
def cgroup_path(tmp_path: Path) -> Iterator[Path]:
    """Return a cgroup of our own; on a host that is not ours to change, a directory like one."""
    if "CGMEM_IN_GUEST" in os.environ:
        own = Path("/proc/self/cgroup").read_text().split("0::")[1].splitlines()[0]
        path = Path(tempfile.mkdtemp(prefix="parity-", dir=f"/sys/fs/cgroup{own}"))
        yield path
        path.rmdir()
    else:
        path = tmp_path / "cgroup"
        path.mkdir()
        (path / "cgroup.procs").touch()
        yield path


@pytest.fixture(params=ROADS_HERE)
def start(request: pytest.FixtureRequest, cgroup_path: Path) -> Iterator[Start]:
    """Return what starts a child as subprocess.Popen does, by the road under test."""
    descriptor = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield ROADS[request.param](str(cgroup_path), descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def _one_popen(monkeypatch: pytest.MonkeyPatch) -> None:
    # Popen itself has a posix_spawn road, taken by version and options, which differs in little
    # things: it passes os.environ instead of C's environ, refuses an empty argv[0], and names a
    # path object by its string. Popen's other road is the one that every version has.
    monkeypatch.setattr(subprocess, "_USE_POSIX_SPAWN", False)


@pytest.fixture(scope="module")
def stage() -> Iterator[Path]:
    """Return a directory that any user can use, with the reporter in it."""
    path = Path(tempfile.mkdtemp(prefix="parity-"))
    path.chmod(0o777)
    (path / "reporter.py").write_text(REPORTER)
    (path / "input").write_text("input")
    yield path
    shutil.rmtree(path)


def _report(start: Start, stage: Path, **options: Any) -> dict[str, Any]:
    """Run the reporter and return what it saw, pipes told apart by order instead of by inode."""
    path = stage / "report"
    path.unlink(missing_ok=True)
    argv: Any = options.pop("argv", [PYTHON, "-I", "-S", str(stage / "reporter.py"), str(path)])
    with start(argv, **options) as process:
        process.communicate(timeout=60)
        assert process.returncode == 0
    report: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    own = b"PYTEST_CURRENT_TEST=".hex()
    report["environ"] = [entry for entry in report["environ"] if not entry.startswith(own)]
    pipes: dict[str, str] = {}
    for descriptor in sorted(report["descriptors"], key=int):
        link = report["descriptors"][descriptor][0]
        if re.match(r"pipe:|socket:", link):
            report["descriptors"][descriptor][0] = pipes.setdefault(link, f"pipe {len(pipes)}")
    return report


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "close_fds False": {"close_fds": False},
    "cwd": {"cwd": "/usr"},
    "cwd as bytes": {"cwd": b"/usr"},
    "env": {"env": {"A": "1", "LC_CTYPE": "POSIX", b"B": b"\xff", "EMPTY": ""}},
    "empty env": {"env": {}},
    "env with an empty name": {"env": {"A": "1", "": "nameless"}},
    "env with a name twice": {"env": {"A": "1", b"A": b"2"}},
    "new session": {"start_new_session": True},
    "process group": {"process_group": 0},
    "signals not restored": {"restore_signals": False},
    "umask": {"umask": 0o027},
    "text": {"text": True, "stdout": subprocess.PIPE},
    "pipes": PIPES,
    "pipes, close_fds False": {**PIPES, "close_fds": False},
    "null": {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    },
    "stderr as stdout's pipe": {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    "stderr as stdout's null": {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT},
    "stdin itself": {"stdin": 0},
    "stderr into our stdout": {"stderr": 1},
    "stdout and stderr swapped": {"stdout": 2, "stderr": 1},
    "stdin and stdout swapped": {"stdin": 1, "stdout": 0},
    "unbuffered": {"bufsize": 0, "stdout": subprocess.PIPE},
    "close_fds and session": {"start_new_session": True, "cwd": "/", "close_fds": True},
}


LEFT_TO_THE_TRAMPOLINE = {
    "umask",
    "stdout and stderr swapped",
    "stdin and stdout swapped",
}


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """Return Popen's reports by option name, made once for all roads."""
    return {}


def _compare(start: Start, stage: Path, options: dict[str, Any]) -> None:
    """Hold the road to Popen, unless it leaves these options to the trampoline."""
    try:
        found = _report(start, stage, **options)
    except NotHonoured:
        return

    assert found == _report(subprocess.Popen, stage, **options)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_child_gets_what_popen_gives(
    start: Start, stage: Path, reports: dict[str, dict[str, Any]], name: str
) -> None:
    """The child's argv, environ, descriptors, umask, mask, cwd, session and ids are Popen's."""
    try:
        found = _report(start, stage, **OPTIONS[name])
    except NotHonoured:
        assert name in LEFT_TO_THE_TRAMPOLINE
        return
    if name not in reports:
        reports[name] = _report(subprocess.Popen, stage, **OPTIONS[name])

    assert found == reports[name]


@pytest.mark.parametrize("close_fds", [True, False])
def test_passed_descriptors(start: Start, stage: Path, close_fds: bool) -> None:
    """pass_fds, with gaps between them, arrive by number; an inheritable other does not."""
    with contextlib.ExitStack() as stack:
        files = [os.open(stage / "input", os.O_RDONLY) for _ in range(6)]
        for descriptor in files:
            stack.callback(os.close, descriptor)
        os.set_inheritable(files[5], True)
        options: dict[str, Any] = {"pass_fds": [files[4], files[1]], "close_fds": close_fds}
        warns = contextlib.nullcontext() if close_fds else pytest.warns(RuntimeWarning)
        with warns:
            expected = _report(subprocess.Popen, stage, **options)
        warns = contextlib.nullcontext() if close_fds else pytest.warns(RuntimeWarning)
        with warns:
            found = _report(start, stage, **options)

    assert str(files[1]) in expected["descriptors"]
    assert found == expected


def test_an_inheritable_descriptor_without_close_fds(start: Start, stage: Path) -> None:
    """close_fds=False passes what is inheritable and nothing else, none of ours either."""
    with (stage / "input").open() as kept, (stage / "input").open() as own:
        os.set_inheritable(kept.fileno(), True)
        numbers = str(kept.fileno()), str(own.fileno())
        expected = _report(subprocess.Popen, stage, close_fds=False)
        found = _report(start, stage, close_fds=False)

    assert numbers[0] in expected["descriptors"]
    assert numbers[1] not in expected["descriptors"]
    assert found == expected


def test_files_as_standard_streams(start: Start, stage: Path) -> None:
    """Open files serve as stdin, stdout and stderr."""
    with (stage / "input").open() as given, (stage / "output").open("w") as taken:
        options: dict[str, Any] = {"stdin": given, "stdout": taken, "stderr": taken}
        expected = _report(subprocess.Popen, stage, **options)
        found = _report(start, stage, **options)

    assert found == expected


if os.geteuid() == 0:
    # Only root can change identity.

    @pytest.mark.parametrize(
        "options",
        [
            {"user": NOBODY},
            {"group": NOBODY},
            {"user": "nobody", "group": "nogroup", "extra_groups": ["tty", 7]},
            {"group": NOBODY, "extra_groups": [], "preexec_fn": os.setsid},
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*preexec_fn:DeprecationWarning")
    def test_another_identity(
        start: Start, stage: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """User, group and extra groups are those asked for, in the C locale too."""
        monkeypatch.delenv("LC_ALL", raising=False)
        monkeypatch.delenv("LC_CTYPE", raising=False)
        monkeypatch.setenv("LANG", "C")
        _compare(start, stage, options)


@contextlib.contextmanager
def _closed(descriptor: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@pytest.mark.parametrize(
    ("closed", "options"),
    [
        (0, {}),
        (0, {"close_fds": False}),
        (0, {"stdin": subprocess.DEVNULL}),
        (0, PIPES),
        (0, {"stdout": subprocess.PIPE}),
        (1, {}),
        (1, PIPES),
        (2, {"stdout": subprocess.PIPE}),
        (2, PIPES),
    ],
)
def test_a_standard_descriptor_closed_in_the_parent(
    start: Start, stage: Path, closed: int, options: dict[str, Any]
) -> None:
    """A parent without stdin, stdout or stderr gives its children what Popen gives."""
    with _closed(closed):
        _compare(start, stage, options)


@contextlib.contextmanager
def _dispositions(ignored: set[int], blocked: set[int]) -> Iterator[None]:
    handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _signals(start: Start, **options: Any) -> dict[str, int]:
    # Not the reporter: a Python child has its own idea of SIGPIPE.
    with start(["/bin/cat", "/proc/self/status"], stdout=subprocess.PIPE, **options) as process:
        output = process.communicate(timeout=60)[0].decode()
    lines = [line.split(":") for line in output.splitlines() if line.startswith("Sig")]
    # SigQ counts the user's queue. 32 and 33 are glibc's own, which no program can use or see;
    # posix_spawn of some versions leaves them ignored.
    glibc = 0b11 << 31
    return {name: int(mask, 16) & ~glibc for name, mask in lines if name != "SigQ"}


@pytest.mark.parametrize("restore_signals", [True, False])
@pytest.mark.parametrize(
    "ignored",
    [set(), {signal.SIGPIPE, signal.SIGINT, signal.SIGHUP}, {signal.SIGCHLD, signal.SIGXFSZ}],
    ids=["none", "PIPE INT HUP", "CHLD XFSZ"],
)
def test_signals(start: Start, ignored: set[int], restore_signals: bool) -> None:
    """Blocked and ignored signals reach the child as by Popen."""
    with _dispositions(ignored, {signal.SIGUSR1, signal.SIGUSR2}):
        expected = _signals(subprocess.Popen, restore_signals=restore_signals)
        found = _signals(start, restore_signals=restore_signals)

    assert found == expected


def test_a_default_sigpipe_without_restore(start: Start) -> None:
    """A parent that set SIGPIPE back to its default has children with the default."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        expected = _signals(subprocess.Popen, restore_signals=False)
        found = _signals(start, restore_signals=False)
    finally:
        signal.signal(signal.SIGPIPE, before)

    assert found == expected


def _output(start: Start, args: Any, **options: Any) -> tuple[Any, Any, int]:
    with start(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        out, err = process.communicate(options.get("input"), timeout=60)
        assert process.args is args
        return out, err, process.returncode


@pytest.mark.parametrize(
    ("locale", "lc_ctype"),
    [("C", None), ("C", "C"), ("C.UTF-8", None), ("POSIX", "xx_XX.nonesuch"), ("C", "C.UTF-8")],
)
def test_the_environ_in_any_locale(
    start: Start, monkeypatch: pytest.MonkeyPatch, locale: str, lc_ctype: str | None
) -> None:
    """What Python's start-up does to LC_CTYPE in the C locale does not reach the command."""
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LANG", locale)
    monkeypatch.setenv("CGMEM_TEST_BYTES", os.fsdecode(b"\xff\xfe"))
    if lc_ctype is None:
        monkeypatch.delenv("LC_CTYPE", raising=False)
    else:
        monkeypatch.setenv("LC_CTYPE", lc_ctype)
    args = ["/bin/cat", "/proc/self/environ"]

    assert _output(start, args) == _output(subprocess.Popen, args)


COMMANDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one string": ("/bin/pwd", {}),
    "one bytes": (b"pwd", {}),
    "a path": (Path("/bin/pwd"), {}),
    "mixed": ([Path("/bin/echo"), b"a", "b"], {}),
    "not utf-8": ([b"echo", b"\xff\xfe", os.fsdecode(b"\xfd")], {}),
    "empty strings": (["printf", "[%s]", "", "a", ""], {}),
    "newlines": (["printf", "[%s]", "a\nb", "\t"], {}),
    "shell": ("echo $0 $PPID >/dev/null; exit 3", {"shell": True}),
    "shell with arguments": (["echo $0 $1", "zero", "one"], {"shell": True}),
    "another shell": ("echo $0", {"shell": True, "executable": "/bin/bash"}),
    "another argv[0]": (
        ["renamed", "-c", "cat /proc/$$/cmdline"],
        {"executable": "/bin/sh"},
    ),
    "found on the given PATH": (["pwd"], {"env": {"PATH": "/nonesuch:/bin:/usr/bin"}}),
    "PATH relative to cwd": (["pwd"], {"env": {"PATH": "nonesuch:bin"}, "cwd": "/usr"}),
    "relative to cwd": (["./pwd"], {"cwd": "/bin"}),
    "a long line": (["sh", "-c", "echo $#", *(["x" * 1000] * 500)], {}),
    "empty argv[0]": (["", "-c", "cat /proc/$$/cmdline"], {"executable": "/bin/sh"}),
    "empty argv[0], with env": ([""], {"executable": "/bin/env", "env": {"A": "1"}}),
    "no argv[0]": ([], {"executable": "/bin/pwd"}),
    "killed": (["sh", "-c", "kill -9 $$"], {}),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(start: Start, name: str) -> None:
    """Every form of command line runs the same command, and `.args` is what the caller gave."""
    args, options = COMMANDS[name]

    assert _output(start, args, **options) == _output(subprocess.Popen, args, **options)


def test_text_communicate(start: Start) -> None:
    """Text goes in and comes out, with newlines translated."""
    with start(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.communicate("häh\r\n" * 20000, timeout=60) == ("häh\n" * 20000, None)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with things that can't be executed."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "headless").write_text("echo no first line\n")
    (tmp_path / "headless").chmod(0o755)
    (tmp_path / "orphan").write_text("#!/nonesuch/interpreter\n")
    (tmp_path / "orphan").chmod(0o755)
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


FAILURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "missing": (["nonesuch-command"], {}),
    "missing, as bytes": ([b"nonesuch-command"], {}),
    "missing with a path": (["/nonesuch/command"], {}),
    "missing on an empty PATH": (["ls"], {"env": {"PATH": ""}}),
    "missing on a PATH through a file": (["ls"], {"env": {"PATH": "/bin/true"}}),
    "below a file": (["/bin/true/x"], {}),
    "not executable": (["{}/plain"], {}),
    "not executable, on PATH": (["plain"], {"env": {"PATH": "/nonesuch:{}"}}),
    "not executable, then missing": (["plain"], {"env": {"PATH": "{}:/nonesuch"}}),
    "directory": (["{}/directory"], {}),
    "empty name": ([""], {}),
    "no first line": (["{}/headless"], {}),
    "interpreter missing": (["{}/orphan"], {}),
    "loop": (["{}/loop"], {}),
    "name too long": (["/" + "x" * 300], {}),
    "executable missing": (["true"], {"executable": "/nonesuch"}),
    "path object": ([Path("/nonesuch/path")], {}),
    "cwd missing": (["true"], {"cwd": "/nonesuch"}),
    "cwd missing, as a path": (["true"], {"cwd": Path("/nonesuch")}),
    "cwd empty": (["true"], {"cwd": ""}),
    "cwd a file": (["true"], {"cwd": "{}/plain"}),
    "cwd and command missing": (["/nonesuch/command"], {"cwd": "/nonesuch"}),
    "NUL in an argument": (["true", "a\0b"], {}),
    "NUL in the command": (["tr\0ue"], {}),
    "NUL in the environ": (["true"], {"env": {"A": "a\0b"}}),
    "NUL in the cwd": (["true"], {"cwd": "a\0b"}),
    "= in a name": (["true"], {"env": {"A=B": "1"}}),
    "number as argument": (["true", 1], {}),
    "number in the environ": (["true"], {"env": {"A": 1}}),
    "no arguments": ([], {}),
    "path in a shell": (Path("/bin/true"), {"shell": True}),
    "shell missing": ("true", {"shell": True, "executable": "/nonesuch"}),
    "too long an argument": (["true", "x" * 200_000], {}),
    "too long a command line": (["true", *(["x" * 100_000] * 100)], {}),
    "closed descriptor passed": (["true"], {"pass_fds": [900]}),
    "negative descriptor passed": (["true"], {"pass_fds": [-5]}),
    "closed stdin": (["true"], {"stdin": 900}),
    "session and group": (["true"], {"start_new_session": True, "process_group": 0}),
    "unknown group of processes": (["true"], {"process_group": 2**22 - 7}),
    "unknown user": (["true"], {"user": "no such user"}),
    "negative user": (["true"], {"user": -3}),
    "user of the wrong type": (["true"], {"user": 1.5}),
    "groups of the wrong type": (["true"], {"extra_groups": "tty"}),
    "group too large": (["true"], {"group": 2**40}),
    "unknown option": (["true"], {"no_such_option": 1}),
    "preexec_fn fails": (["true"], {"preexec_fn": lambda: 1 / 0}),
}


FAILURES_LEFT_TO_THE_TRAMPOLINE = {
    "closed descriptor passed",
    "negative descriptor passed",
    "closed stdin",
    "session and group",
    "unknown group of processes",
    "group too large",
    "preexec_fn fails",
}


def _filled_in(value: Any, directory: Path) -> Any:
    """Return the value with {} replaced by the directory, in every string."""
    if isinstance(value, str):
        return value.replace("{}", str(directory))
    if isinstance(value, list):
        return [_filled_in(item, directory) for item in value]
    if isinstance(value, dict):
        return {name: _filled_in(item, directory) for name, item in value.items()}
    return value


def _failure(start: Start, args: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    before, living = open_descriptors(), children()
    with pytest.raises(Exception) as caught:  # noqa: PT011  (which one is the question)
        start(args, **options)
    assert open_descriptors() == before
    assert children() <= living
    error = caught.value
    if isinstance(error, OSError):
        return type(error), error.errno, error.strerror, error.filename
    return type(error), str(error)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.filterwarnings("ignore:.*preexec_fn:DeprecationWarning")
def test_failures(start: Start, files: Path, name: str) -> None:
    """What Popen raises is raised, in type, text, errno and filename; nothing is left behind."""
    args, options = (_filled_in(part, files) for part in FAILURES[name])
    failure = _failure(start, args, options)
    if failure[0] is NotHonoured:
        assert name in FAILURES_LEFT_TO_THE_TRAMPOLINE
        return

    assert failure == _failure(subprocess.Popen, args, options)


if os.geteuid() != 0:
    # Root may enter any directory and become anybody.

    def test_a_cwd_that_may_not_be_entered(start: Start, tmp_path: Path) -> None:
        """A directory without search permission is refused in its own name."""
        (tmp_path / "closed").mkdir(mode=0)
        options = {"cwd": tmp_path / "closed"}

        assert _failure(start, ["true"], options) == _failure(subprocess.Popen, ["true"], options)

    def test_an_identity_that_may_not_be_taken(start: Start) -> None:
        """Without privilege, another user is refused as by Popen."""
        failure = _failure(start, ["true"], {"user": 0})
        if failure[0] is not NotHonoured:
            assert failure == _failure(subprocess.Popen, ["true"], {"user": 0})


@pytest.mark.parametrize("left", range(0, 12, 2))
def test_few_descriptors_left(start: Start, left: int) -> None:
    """Near the descriptor limit a start works or fails with EMFILE, and leaks nothing."""
    before = open_descriptors()
    highest = max(int(name.split()[0]) for name in before)
    taken = [os.dup(0) for _ in range(highest - len(before) + 2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + left, hard))
    try:
        # One pipe: Popen itself leaks the first if there is none left for the second.
        with start(["true"], stdout=subprocess.PIPE):
            pass
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)

    assert open_descriptors() == before


if "CGMEM_IN_GUEST" not in os.environ:
    # A real cgroup.procs lists processes.

    def test_the_trampoline_enters_the_cgroup(cgroup_path: Path) -> None:
        """The trampoline writes `0`, which is the writer itself, to cgroup.procs, once."""
        descriptor = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with _by_trampoline(str(cgroup_path), descriptor)(["true"]) as process:
                pass
        finally:
            os.close(descriptor)

        assert process.returncode == 0
        assert (cgroup_path / "cgroup.procs").read_bytes() == b"0"
