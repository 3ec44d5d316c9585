"""Which of the two roads into a cgroup is taken, and why."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from cgmem.errors import BackendUnavailable, CgroupError, ScopeVanished
from cgmem_backends import placement, trampoline_start
from cgmem_backends.placement import Placement
from cgmem_backends.spawn_attr import FileAction, SpawnAttributes, SpawnLibrary

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")


class FakeLibrary:
    """Spawns without a cgroup, or fails as the kernel would; counts the calls."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.started: list[bytes] = []

    def spawn(
        self,
        path: bytes,
        argv: Sequence[bytes],
        env: Sequence[bytes] | None,
        *,
        cgroup_fd: int,
        actions: Sequence[FileAction] = (),
        attributes: SpawnAttributes | None = None,
    ) -> int:
        """Start the command by os.posix_spawn, or raise the next error."""
        self.started.append(path)
        if self.errors and (error := self.errors.pop(0)):
            raise OSError(error, os.strerror(error))
        dups = [(os.POSIX_SPAWN_DUP2, *a) for a in actions if type(a).__name__ == "Dup2"]
        return os.posix_spawn(path, list(argv), dict(os.environ), file_actions=dups)


class Cgroup:
    """A directory that looks like a cgroup to open(2)."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        (path / "cgroup.procs").touch()
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def where(self) -> dict[str, Any]:
        """Return the arguments that name it."""
        return {"cgroup_path": str(self.path), "cgroup_fd": self.descriptor}


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Cgroup]:
    """Return a directory that stands for a cgroup."""
    made = Cgroup(tmp_path / "the-scope")
    yield made
    os.close(made.descriptor)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process but this one be seen in the cgroup."""
    monkeypatch.setattr(
        placement, "_cgroup_line", lambda pid: "/own" if pid == "self" else "/own/the-scope"
    )


def _placement(library: FakeLibrary | str) -> Placement:
    loaded = library if isinstance(library, str) else cast("SpawnLibrary", library)
    return Placement(load=lambda: loaded)


def _wait(process: subprocess.Popen[Any]) -> int:
    with process:
        return process.wait(timeout=60)


def test_without_the_function_it_is_the_trampoline(cgroup: Cgroup) -> None:
    """A C library that lacks the call settles it, and its reason is kept."""
    chosen = _placement("no such function")

    assert (chosen.method, chosen.reason) == ("trampoline", "no such function")
    assert _wait(chosen.start(["true"], {}, **cgroup.where())) == 0
    assert (cgroup.path / "cgroup.procs").read_bytes() == b"0"


@pytest.mark.usefixtures("inside")
def test_a_probe_proves_posix_spawn_once(cgroup: Cgroup) -> None:
    """The first start places a probe child, the second none."""
    library = FakeLibrary()
    chosen = _placement(library)

    assert "no child was placed yet" in chosen.reason
    assert _wait(chosen.start(["true"], {}, **cgroup.where())) == 0
    assert _wait(chosen.start(["true"], {}, **cgroup.where())) == 0

    assert chosen.method == "posix_spawn"
    assert "probe" in chosen.reason
    assert [Path(os.fsdecode(path)).name for path in library.started] == ["cat", "true", "true"]


def test_a_child_that_is_elsewhere_rules_posix_spawn_out(cgroup: Cgroup) -> None:
    """If /proc says that the probe child is not in the cgroup, the trampoline does it."""
    library = FakeLibrary()
    chosen = _placement(library)

    assert _wait(chosen.start(["true"], {}, **cgroup.where())) == 0

    assert chosen.method == "trampoline"
    assert str(cgroup.path) in chosen.reason
    assert len(library.started) == 1


@pytest.mark.parametrize("refusal", ["ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM", "E2BIG"])
def test_a_kernel_without_clone3_means_the_trampoline(cgroup: Cgroup, refusal: str) -> None:
    """What seccomp filters and old kernels answer settles it for the process's life."""
    library = FakeLibrary(getattr(errno, refusal))
    chosen = _placement(library)

    for _ in range(2):
        assert _wait(chosen.start(["true"], {}, **cgroup.where())) == 0

    assert chosen.method == "trampoline"
    assert os.strerror(getattr(errno, refusal)) in chosen.reason
    assert len(library.started) == 1


def test_a_cgroup_that_refuses_settles_nothing(cgroup: Cgroup) -> None:
    """EACCES and EBUSY are the cgroup's: an error with a hint, and the choice stays open."""
    chosen = _placement(FakeLibrary(errno.EACCES))

    with pytest.raises(CgroupError) as caught:
        chosen.start(["true"], {}, **cgroup.where())

    assert caught.value.errno == errno.EACCES
    assert "--backend systemd" in (caught.value.hint or "")
    assert chosen.method == "posix_spawn"


@pytest.mark.usefixtures("inside")
def test_a_filter_that_comes_later_is_noticed(cgroup: Cgroup) -> None:
    """If clone3 is forbidden after the probe, that start and all later ones go the other way."""
    library = FakeLibrary(0, errno.EPERM, errno.EPERM)
    chosen = _placement(library)

    assert _wait(chosen.start(["/bin/true"], {}, **cgroup.where())) == 0

    assert chosen.method == "trampoline"
    assert os.strerror(errno.EPERM) in chosen.reason


@pytest.mark.parametrize("loaded", ["none", FakeLibrary()])
@pytest.mark.usefixtures("inside")
def test_a_cgroup_that_is_gone(cgroup: Cgroup, loaded: Any) -> None:
    """A removed cgroup is ScopeVanished on both roads, before cwd and command are judged."""
    chosen = _placement(loaded)
    if loaded != "none":
        chosen.probe(**cgroup.where())
        loaded.errors = [errno.ENOENT] * 2
    (cgroup.path / "cgroup.procs").unlink()
    cgroup.path.rmdir()

    with pytest.raises(ScopeVanished):
        chosen.start(["/nonesuch"], {"cwd": "/nonesuch"}, **cgroup.where())


@pytest.mark.usefixtures("inside")
def test_what_posix_spawn_cannot_do_goes_by_trampoline(cgroup: Cgroup) -> None:
    """An umask takes the other road for that start only."""
    library = FakeLibrary()
    chosen = _placement(library)

    line: Any = iter(["sh", "-c", "exit $(($(umask) != 0027))"])
    process = chosen.start(line, {"umask": 0o027}, **cgroup.where())

    assert process.args is line
    assert _wait(process) == 0
    assert chosen.method == "posix_spawn"


@pytest.mark.usefixtures("inside")
def test_many_threads_share_one_probe(cgroup: Cgroup) -> None:
    """Threads that start at once probe once."""
    library = FakeLibrary()
    chosen = _placement(library)
    statuses: list[int] = []

    def start() -> None:
        statuses.append(_wait(chosen.start(["/bin/true"], {}, **cgroup.where())))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [0] * 8
    assert len(library.started) == 9


@pytest.mark.parametrize("executable", ["", None, "/nonesuch/python"])
def test_without_an_interpreter(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    """No sys.executable, or one that is gone, is said, with what to do."""
    monkeypatch.setattr(sys, "executable", executable)

    with pytest.raises(BackendUnavailable) as caught:
        _placement("none").start(["true"], {}, **cgroup.where())

    assert caught.value.hint


def test_from_a_zip(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A trampoline that is no file of its own is said."""
    monkeypatch.setattr(trampoline_start, "_SCRIPT", tmp_path / "a.zip" / "trampoline.py")

    with pytest.raises(BackendUnavailable, match=r"a\.zip"):
        _placement("none").start(["true"], {}, **cgroup.where())


def test_a_trampoline_that_dies_is_no_success(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An end before exec is told from the command's own end."""
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit(7)")
    monkeypatch.setattr(trampoline_start, "_SCRIPT", script)

    with pytest.raises(BackendUnavailable, match="status 7"):
        _placement("none").start(["true"], {}, **cgroup.where())


def test_a_write_that_the_kernel_refuses(cgroup: Cgroup) -> None:
    """A failed write to cgroup.procs is the cgroup's error, not the command's."""
    (cgroup.path / "cgroup.procs").unlink()
    (cgroup.path / "cgroup.procs").symlink_to("/dev/full")

    with pytest.raises(CgroupError) as caught:
        _placement("none").start(["true"], {}, **cgroup.where())

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == f"{cgroup.path}/cgroup.procs"


@pytest.mark.parametrize(
    ("version", "said"),
    [("glibc 2.36", "2.36"), ("musl 1.2", "not glibc"), ("glibc x", "not glibc"), (None, "not")],
)
def test_the_c_library_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    """A C library that is too old, or none we know, is the reason."""
    monkeypatch.setattr(os, "confstr", lambda name: version)

    assert said in str(placement.load_library())


def test_another_puts_the_child_in(cgroup: Cgroup) -> None:
    """With `attach` the command begins only after it was put in; the own road is not tried."""
    seen: list[tuple[str, bytes]] = []

    def attach(cgroup_path: str, pid: int) -> None:
        seen.append((cgroup_path, Path(f"/proc/{pid}/cmdline").read_bytes()))

    library = FakeLibrary()
    road = _placement(library)
    road.attach_by(attach)
    with road.start(["/bin/sh", "-c", "exit 7"], {}, **cgroup.where()) as process:
        assert process.wait() == 7

    assert [path for path, _ in seen] == [str(cgroup.path)]
    assert not seen[0][1].startswith(b"/bin/sh\0")
    assert library.started == []
    assert road.method == "trampoline"
    assert "systemd does" in road.reason
    assert (cgroup.path / "cgroup.procs").read_bytes() == b""


def test_what_could_not_be_put_in_never_runs(cgroup: Cgroup, tmp_path: Path) -> None:
    """If the one who attaches fails, the error goes up and the command has not begun."""

    def attach(_cgroup_path: str, _pid: int) -> None:
        raise BackendUnavailable("systemd did not")

    mark = tmp_path / "ran"
    road = Placement()
    road.attach_by(attach)
    with pytest.raises(BackendUnavailable, match="systemd did not"):
        road.start(["touch", str(mark)], {}, **cgroup.where())

    assert not mark.exists()


ORPHAN = """
import os, sys
from cgmem_backends.placement import Placement
os.mkdir(sys.argv[1])
open(sys.argv[1] + "/cgroup.procs", "w").close()
descriptor = os.open(sys.argv[1], os.O_RDONLY)
def attach(path, pid):
    print(pid, flush=True)
    os._exit(0)
where = {"cgroup_path": sys.argv[1], "cgroup_fd": descriptor}
road = Placement()
road.attach_by(attach)
road.start(["touch", sys.argv[2]], {}, **where)
"""


def test_a_child_whose_supervisor_died_before_it_was_put_in(tmp_path: Path) -> None:
    """Without a budget nothing runs: the trampoline ends."""
    mark = tmp_path / "ran"
    words = [sys.executable, "-c", ORPHAN, str(tmp_path / "cgroup"), str(mark)]
    root = Path(placement.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root.parent), *sys.path[1:]])
    done = subprocess.run(
        words, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    # The orphan inherits stdout: run returned because it has ended too.
    assert done.stdout.strip().isdigit()
    assert not mark.exists()
