"""One cgroup's files, processes and removal, on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgmem.errors import CgroupError, ScopeVanished
from cgmem_backends import cgroup_directory as cg
from cgmem_backends import kernel_files as kf
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import FakeCgroupfs, install

MB = 1 << 20
NO_KILL = ("cgroup.kill",)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """A cgroup with two children."""
    return install(FakeCgroupfs(tmp_path, {"job": {}, "job/a": {}, "job/b": {}}), monkeypatch)


def test_read_file(fake: FakeCgroupfs) -> None:
    """The whole content, however long; None for a file that this kernel lacks or a gone cgroup."""
    long = "".join(f"key{number} {number}\n" for number in range(5000))
    fake.put("job", "memory.stat", long)

    assert cg.read_file(fake.at("job"), kf.MEMORY_STAT) == long.encode()
    assert cg.read_file(fake.at("job"), "memory.nonesuch") is None
    assert cg.read_file(fake.at("gone"), kf.MEMORY_STAT) is None


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EOPNOTSUPP])
def test_a_file_that_is_there_and_gives_nothing(
    fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """memory.pressure with psi=0, and a cgroup that went while it was read, are a lack."""

    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fake, "read", refuse, raising=False)

    assert cg.read_file(fake.at("job"), kf.MEMORY_PRESSURE) is None


def test_a_file_that_may_not_be_read(fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other refusal is an error that names file and reason; no descriptor is left."""

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fake, "read", refuse, raising=False)
    before = open_descriptors()
    with pytest.raises(CgroupError, match="reading") as caught:
        cg.read_file(fake.at("job"), kf.MEMORY_STAT)

    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(fake.at("job") / kf.MEMORY_STAT)
    assert open_descriptors() == before


def test_out_of_descriptors_says_what_to_do(
    fake: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMFILE is never taken for a missing file, and comes with a hint."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(fake, "open", refuse)
    with pytest.raises(CgroupError, match="Too many open files"):
        cg.read_file(fake.at("job"), kf.PROCS)
    with pytest.raises(CgroupError, match="Too many open files") as caught:
        cg.write_file(fake.at("job"), kf.FREEZE, b"1")

    assert caught.value.hint is not None
    assert "ulimit -n" in caught.value.hint


def test_write_file(fake: FakeCgroupfs) -> None:
    """The value arrives, in one write."""
    cg.write_file(fake.at("job"), kf.FREEZE, b"1")

    assert fake.get("job", kf.FREEZE) == "1"
    assert fake.written == [(kf.FREEZE, b"1")]


def test_write_a_missing_file(fake: FakeCgroupfs) -> None:
    """A file that this kernel lacks is not created: ENOENT, with value and path."""
    with pytest.raises(CgroupError) as caught:
        cg.write_file(fake.at("job"), "memory.nonesuch", b"1")

    assert caught.value.errno == errno.ENOENT
    assert str(caught.value).startswith("writing '1' to: ")
    assert "memory.nonesuch" in str(caught.value)


def test_write_to_a_removed_cgroup(fake: FakeCgroupfs) -> None:
    """Where the directory is gone, it is the scope that vanished."""
    with pytest.raises(ScopeVanished, match="removed"):
        cg.write_file(fake.at("gone"), kf.FREEZE, b"1")
    fake.refused[kf.FREEZE] = errno.ENODEV
    with pytest.raises(ScopeVanished):
        cg.write_file(fake.at("job"), kf.FREEZE, b"1")


def test_write_refused(fake: FakeCgroupfs) -> None:
    """The kernel's refusal keeps its errno."""
    fake.refused[kf.SUBTREE_CONTROL] = errno.EBUSY
    with pytest.raises(CgroupError, match="busy") as caught:
        cg.write_file(fake.at("job"), kf.SUBTREE_CONTROL, b"+memory")

    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(
    ("asked", "held"),
    [(64 * MB, 64 * MB), (64 * MB + 1, 64 * MB), (0, 0), (None, None)],
)
def test_write_limit(fake: FakeCgroupfs, asked: int | None, held: int | None) -> None:
    """What the kernel then holds is returned: it rounds down to pages."""
    cg.write_limit(fake.at("job"), kf.MEMORY_MAX, 512 * MB)

    assert cg.write_limit(fake.at("job"), kf.MEMORY_MAX, asked) == held
    assert cg.read_limit(fake.at("job"), kf.MEMORY_MAX) == held


def test_read_limit_of_no_file(fake: FakeCgroupfs) -> None:
    """The root has no limits, which reads as none."""
    assert cg.read_limit(fake.mount, kf.MEMORY_MAX) is None


@pytest.mark.parametrize("text", ["", "garbage\n", "-1\n"])
def test_read_a_malformed_limit(fake: FakeCgroupfs, text: str) -> None:
    """Garbage is an error that names the value and the file."""
    fake.put("job", kf.MEMORY_MAX, text)
    with pytest.raises(CgroupError, match="not a number of bytes") as caught:
        cg.read_limit(fake.at("job"), kf.MEMORY_MAX)

    assert str(fake.at("job") / kf.MEMORY_MAX) in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=30))
def test_read_a_limit_of_any_bytes(fake: FakeCgroupfs, text: bytes) -> None:
    """Whatever a file holds, only the library's own error comes out."""
    (fake.at("job") / kf.MEMORY_MAX).write_bytes(text)
    try:
        limit = cg.read_limit(fake.at("job"), kf.MEMORY_MAX)
    except CgroupError:
        return

    assert limit is None or limit >= 0


def test_remove_once(fake: FakeCgroupfs) -> None:
    """Of two callers one has removed it, whoever removed what was nested in it."""
    for name in ("job/outer", "job/outer/inner"):
        fake.mkdir(fake.at(name))

    assert cg.remove_once(fake.at("job/outer"), fake.rmdir)
    assert not cg.remove_once(fake.at("job/outer"), fake.rmdir)


def test_remove_once_of_a_busy_one(fake: FakeCgroupfs) -> None:
    """With a process inside it stays, and nobody has removed it."""
    fake.enter("job", 7)

    assert not cg.remove_once(fake.at("job"), fake.rmdir)
    assert fake.at("job").exists()


def test_walk_goes_deepest_first(fake: FakeCgroupfs) -> None:
    """Children come before their parents, as rmdir needs them."""
    found = list(cg.walk(fake.at("job")))

    assert set(found) == {fake.at("job"), fake.at("job/a"), fake.at("job/b")}
    assert found[-1] == fake.at("job")
    assert list(cg.walk(fake.at("gone"))) == [fake.at("gone")]


def test_pids(fake: FakeCgroupfs) -> None:
    """Of the whole subtree, or of the cgroup alone; none of a gone one."""
    fake.enter("job", 10)
    fake.enter("job/a", 11, 12)

    assert set(cg.pids(fake.at("job"))) >= {10, 11, 12}
    assert cg.own_pids(fake.at("job/a")) == [11, 12]
    assert cg.own_pids(fake.at("job/b")) == []
    assert cg.pids(fake.at("gone")) == []


def test_remove(fake: FakeCgroupfs) -> None:
    """Nested cgroups go first; a removed one is gone, also at the second time."""
    fake.enter("", os.getpid())

    assert cg.remove(fake.at("job"), fake.rmdir)
    assert not fake.at("job").exists()
    assert cg.remove(fake.at("job"), fake.rmdir)


def test_remove_while_a_process_is_inside(fake: FakeCgroupfs) -> None:
    """A process anywhere inside keeps the cgroup."""
    fake.enter("", os.getpid())
    fake.enter("job/b", 77)

    assert not cg.remove(fake.at("job"), fake.rmdir)
    assert fake.at("job").exists()


def test_remove_without_permission(fake: FakeCgroupfs) -> None:
    """Another refusal than busy is an error."""

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(CgroupError, match="removing: Permission denied"):
        cg.remove(fake.at("job"), refuse)


class FakeSignals:
    """Stands in for linux_calls: pidfds are real descriptors, signals are written down."""

    def __init__(self, fake: FakeCgroupfs, forks: int = 0, gone: tuple[int, ...] = ()) -> None:
        self.fake = fake
        self.forks = forks
        self.gone = gone
        self.sent: list[tuple[int, int]] = []
        self.refusal: OSError | None = None
        self._pids: dict[int, int] = {}

    def pidfd_open(self, pid: int) -> int:
        """Open something that stands for the process."""
        if pid in self.gone:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self._pids[descriptor] = pid
        return descriptor

    def pid_of(self, descriptor: int) -> int:
        """Return the process that an open descriptor stands for."""
        return self._pids[descriptor]

    def pidfd_send_signal(self, descriptor: int, signum: int) -> None:
        """Note it; a process that forks does so just before."""
        if self.refusal is not None:
            raise self.refusal
        pid = self._pids[descriptor]
        if self.forks:
            self.forks -= 1
            self.fake.enter("job/a", pid + 1000)
        self.sent.append((pid, signum))


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """A kernel without cgroup.kill (before 5.14)."""
    made = FakeCgroupfs(tmp_path, {"job": {}, "job/a": {}}, lacks=NO_KILL)
    made.enter("", os.getpid())
    return install(made, monkeypatch)


def test_sigkill_through_cgroup_kill(fake: FakeCgroupfs) -> None:
    """One write ends them all; no process is looked for."""
    fake.enter("job/a", 11)
    cg.send_signal(fake.at("job"), signal.SIGKILL)

    assert fake.written == [(kf.KILL, b"1")]
    assert cg.pids(fake.at("job")) == []


def test_sigkill_to_a_removed_cgroup(fake: FakeCgroupfs) -> None:
    """There is nobody left to kill."""
    cg.send_signal(fake.at("gone"), signal.SIGKILL)

    assert fake.written == []


def test_cgroup_kill_refused(fake: FakeCgroupfs) -> None:
    """Without permission it is an error, not a silent nothing."""
    fake.refused[kf.KILL] = errno.EACCES
    with pytest.raises(CgroupError, match="Permission denied"):
        cg.send_signal(fake.at("job"), signal.SIGKILL)


@pytest.mark.parametrize("forks", [0, 3])
def test_sigkill_without_cgroup_kill(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch, forks: int
) -> None:
    """Rounds go on until one finds nobody new, so that forks don't escape."""
    signals = FakeSignals(old, forks)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    old.enter("job/a", 12)
    cg.send_signal(old.at("job"), signal.SIGKILL)

    assert sorted(pid for pid, _ in signals.sent) == sorted(cg.pids(old.at("job")))
    assert {signum for _, signum in signals.sent} == {signal.SIGKILL}
    assert len(signals.sent) == 2 + forks


def test_another_signal_goes_round_once(old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM reaches who is there; who is born later did not ask for it."""
    signals = FakeSignals(old, forks=1)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert signals.sent == [(11, signal.SIGTERM)]


def test_a_frozen_group_is_signalled_to_the_last(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who appears in a frozen group was being forked as it froze, and is meant, too."""
    signals = FakeSignals(old, forks=2)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    cg.write_file(old.at("job"), kf.FREEZE, b"1")
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert [signum for _, signum in signals.sent] == [signal.SIGTERM] * 3
    assert sorted(pid for pid, _ in signals.sent) == sorted(cg.pids(old.at("job")))


@pytest.mark.parametrize("looks", [1, 5])
def test_a_group_that_is_still_being_frozen(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Until all have stopped one may be forked, also after a round that found nobody new."""
    signals = FakeSignals(old)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    cg.write_file(old.at("job"), kf.FREEZE, b"1")
    old.put("job", kf.EVENTS, "populated 1\nfrozen 0\n")
    slept: list[float] = []

    def pause(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == looks:
            old.enter("job", 12)
            old.put("job", kf.EVENTS, "populated 1\nfrozen 1\n")

    monkeypatch.setattr("time.sleep", pause)
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert signals.sent == [(11, signal.SIGTERM), (12, signal.SIGTERM)]


def test_a_group_that_does_not_freeze(old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hangs in the kernel does not stop, and is not waited for without end."""
    signals = FakeSignals(old)
    monkeypatch.setattr(cg, "linux_calls", signals)
    monkeypatch.setattr(cg, "_FREEZE_SECONDS", 0.01)
    old.enter("job", 11)
    cg.write_file(old.at("job"), kf.FREEZE, b"1")
    old.put("job", kf.EVENTS, "populated 1\nfrozen 0\n")
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert signals.sent == [(11, signal.SIGTERM)]


def test_a_process_that_ended_meanwhile(old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over; no descriptor stays open."""
    signals = FakeSignals(old, gone=(11,))
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11, 12)
    before = open_descriptors()
    cg.send_signal(old.at("job"), signal.SIGTERM)
    signals.refusal = ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert signals.sent == [(12, signal.SIGTERM)]
    assert open_descriptors() == before


def test_a_pid_that_left_the_cgroup_is_not_signalled(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pid reused by a stranger between listing and opening must not be hit."""
    signals = FakeSignals(old)
    opened = signals.pidfd_open

    def reused(pid: int) -> int:
        old.enter("", pid)
        return opened(pid)

    monkeypatch.setattr(signals, "pidfd_open", reused)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    cg.send_signal(old.at("job"), signal.SIGTERM)

    assert signals.sent == []


def test_a_process_that_may_not_be_signalled(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names signal and pid."""
    signals = FakeSignals(old)
    signals.refusal = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)

    with pytest.raises(CgroupError, match=r"sending signal 15 to: .*pid 11"):
        cg.send_signal(old.at("job"), signal.SIGTERM)


def test_one_refusal_spares_nobody_else(old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others get the signal all the same, however many they are; then it is an error."""
    signals = FakeSignals(old)
    send, members = signals.pidfd_send_signal, range(1000, 1200)

    def refuse_one(descriptor: int, signum: int) -> None:
        if signals.pid_of(descriptor) == members[0]:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        send(descriptor, signum)

    monkeypatch.setattr(signals, "pidfd_send_signal", refuse_one)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", *members)
    before = open_descriptors()
    with pytest.raises(CgroupError, match=f"pid {members[0]}"):
        cg.send_signal(old.at("job"), signal.SIGTERM)

    assert sorted(pid for pid, _ in signals.sent) == list(members[1:])
    assert open_descriptors() == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS, errno.EPERM])
def test_a_signal_that_can_not_be_sent_is_an_error(
    old: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No descriptor, an old kernel or a seccomp filter is never taken for a process that ended."""

    def refuse(_pid: int) -> int:
        raise OSError(number, os.strerror(number))

    signals = FakeSignals(old)
    monkeypatch.setattr(signals, "pidfd_open", refuse)
    monkeypatch.setattr(cg, "linux_calls", signals)
    old.enter("job", 11)
    with pytest.raises(CgroupError) as caught:
        cg.send_signal(old.at("job"), signal.SIGKILL)

    assert caught.value.errno == number
