"""One scope's limits, samples and last read, on a fake cgroupfs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import (
    Counters,
    Headroom,
    LimitAbove,
    Limits,
    MemoryEvents,
    MemoryStat,
    Sample,
    Scope,
    ScopeRecord,
    Snapshot,
)
from cgmem.errors import CgroupError, ScopeVanished
from cgmem_backends import cgroup_budget, cgroup_directory
from cgmem_backends import kernel_files as kf
from cgmem_backends.ancestry import Ancestry
from cgmem_backends.cgroup_scope import CgroupScope
from cgmem_backends.placement import Placement
from tests.helpers.proc import open_descriptors
from tests.unit.fake_cgroupfs import MEMORY, FakeCgroupfs, install

MB = 1 << 20
RECORD = ScopeRecord("engineer_1", 1, 2, 3.0)
NONE_YET = MemoryEvents(0, 0, 0, 0, 0)
KILLED = "low 0\nhigh 7\nmax 30\noom 1\noom_kill 4\noom_group_kill 1\n"
AFTER_A_KILL = MemoryEvents(7, 30, 1, 4, 1)


class FakePlacement(Placement):
    """Starts nothing; notes where it was asked to."""

    def __init__(self) -> None:
        super().__init__(lambda: "not wanted here")
        self.asked: list[tuple[Any, dict[str, Any], str, bool]] = []
        self.refusal: Exception | None = None

    def start(
        self, args: Any, options: Mapping[str, Any], *, cgroup_path: str, cgroup_fd: int
    ) -> subprocess.Popen[Any]:
        """Note whether the descriptor is the directory's."""
        same = os.path.samestat(os.fstat(cgroup_fd), Path(cgroup_path).stat())
        self.asked.append((args, dict(options), cgroup_path, same))
        if self.refusal is not None:
            raise self.refusal
        return subprocess.Popen.__new__(subprocess.Popen)


class Opened:
    """A scope and what is under it."""

    def __init__(self, fake: FakeCgroupfs) -> None:
        self.fake = fake
        self.now = 100.0
        self.placement = FakePlacement()
        self.scope = CgroupScope(
            fake.at("job/one"),
            RECORD,
            shown="/job/one",
            ancestry=Ancestry(fake.at("job"), fake.mount),
            placement=self.placement,
            root_is_hosts=True,
            clock=lambda: self.now,
            rmdir=fake.rmdir,
        )

    def put(self, name: str, text: str | None) -> None:
        """Change one of its files."""
        self.fake.put("job/one", name, text)


Open = Callable[..., Opened]


@pytest.fixture
def open_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open a scope in a hierarchy; nothing stays open."""
    opened: list[Opened] = []

    def made(files: dict[str, str | None] | None = None, **options: Any) -> Opened:
        tree: dict[str, dict[str, str | None]] = {"job": {}, "job/one": files or {}}
        fake = FakeCgroupfs(tmp_path, tree, own="/", **options)
        opened.append(Opened(install(fake, monkeypatch)))
        return opened[-1]

    before = open_descriptors()
    yield made
    for one in opened:
        one.scope.detach()
        one.scope._ancestry.close()
    assert open_descriptors() == before


def test_it_is_a_scope(open_one: Open) -> None:
    """It fits the Protocol, with record and location as given."""
    scope: Scope = open_one().scope

    assert scope.record == RECORD
    assert scope.location == "/job/one"


def test_inspect(open_one: Open) -> None:
    """The breakdown of memory.stat comes first, before any process is looked at; a key that the
    kernel lacks is None.
    """
    one = open_one()
    one.fake.enter("job/one", os.getpid(), 4194311)
    first, *rest = one.scope.inspect(5)

    assert first == Snapshot(MemoryStat(anon=8 * MB, file=4 * MB, shmem=MB))
    assert rest[-1].memory_stat == first.memory_stat
    if sys.platform == "linux":
        assert [process.pid for process in rest[-1].processes] == [os.getpid()]


def test_set_limits(open_one: Open) -> None:
    """Four files, memory.high first; what the kernel then holds is returned."""
    one = open_one()
    effective = one.scope.set_limits(Limits(high_bytes=48 * MB, max_bytes=64 * MB + 5))

    assert one.fake.written == [
        (kf.MEMORY_HIGH, b"50331648"),
        (kf.MEMORY_MAX, b"67108869"),
        (kf.MEMORY_SWAP_MAX, b"0"),
        (kf.MEMORY_OOM_GROUP, b"1"),
    ]
    assert effective == (48 * MB, 64 * MB, 0, 64 * MB, "/job/one", True, False, None)


def test_no_limits(open_one: Open) -> None:
    """None is "max", and nothing is enforced."""
    one = open_one()
    effective = one.scope.set_limits(Limits(swap_max_bytes=None, oom_group=False))

    assert one.fake.written == [
        (kf.MEMORY_HIGH, b"max"),
        (kf.MEMORY_MAX, b"max"),
        (kf.MEMORY_SWAP_MAX, b"max"),
    ]
    assert effective == (None, None, None, None, None, False, False, None)


@pytest.mark.parametrize(("above", "smallest"), [(32, 32), (96, 64)])
def test_the_effective_limit(open_one: Open, above: int, smallest: int) -> None:
    """The smaller of the own and the smallest above, with whose it is, and what that leaves."""
    one = open_one()
    one.fake.put("job", kf.MEMORY_MAX, f"{above * MB}\n")
    one.fake.put("job", kf.MEMORY_CURRENT, f"{30 * MB}\n")
    effective = one.scope.set_limits(Limits(max_bytes=64 * MB))

    assert effective.max_bytes == 64 * MB
    assert effective.effective_max_bytes == smallest * MB
    assert effective.effective_max_source == (
        str(one.fake.at("job")) if above == smallest else "/job/one"
    )
    job = LimitAbove(str(one.fake.at("job")), above * MB)
    assert effective.headroom == Headroom((above - 30) * MB, job, above * MB)
    assert effective.enforced


def test_only_a_limit_above(open_one: Open) -> None:
    """Without an own limit the one above is the effective one, and ours is not enforced."""
    one = open_one()
    one.fake.put("job", kf.MEMORY_MAX, "4096\n")
    effective = one.scope.set_limits(Limits())

    assert (effective.max_bytes, effective.effective_max_bytes) == (None, 4096)
    assert not effective.enforced


def test_a_kernel_that_takes_less(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that reads back higher than asked is not enforced."""
    one = open_one()
    monkeypatch.setattr(cgroup_directory, "write_limit", lambda *_: 128 * MB)

    assert not one.scope.set_limits(Limits(max_bytes=64 * MB)).enforced


@pytest.mark.parametrize("swap_on", [True, False])
def test_no_swap_accounting(open_one: Open, monkeypatch: pytest.MonkeyPatch, swap_on: bool) -> None:
    """Without memory.swap.max the limit is soft where the host has swap."""
    one = open_one(lacks=(kf.MEMORY_SWAP_MAX,))
    monkeypatch.setattr(cgroup_budget, "_host_has_swap", lambda: swap_on)
    effective = one.scope.set_limits(Limits(max_bytes=64 * MB))

    assert effective.swap_max_bytes is None
    assert effective.enforced
    assert effective.soft == swap_on


@pytest.mark.parametrize(
    ("text", "has"),
    [("Filename Type Size\n", False), ("Filename Type Size\n/dev/vda file 1 0 -2\n", True),
     ("", False), (None, False)],
)  # fmt: skip
def test_host_has_swap(tmp_path: Path, text: str | None, has: bool) -> None:
    """/proc/swaps has a heading and then a line a swap; without the file there is none."""
    if text is not None:
        (tmp_path / "swaps").write_text(text)

    assert cgroup_budget._host_has_swap(tmp_path / "swaps") == has


def test_limits(open_one: Open) -> None:
    """The budget as `Limits`, from the four files, whoever wrote them."""
    one = open_one({kf.MEMORY_HIGH: "4096", kf.MEMORY_SWAP_MAX: "0", kf.MEMORY_OOM_GROUP: "1"})

    assert one.scope.limits() == Limits(4096, None, 0, oom_group=True)


def test_no_oom_group_file(open_one: Open) -> None:
    """Before 4.19 the kernel kills only the largest; that is no failure."""
    one = open_one(lacks=(kf.MEMORY_OOM_GROUP,))

    assert one.scope.set_limits(Limits(max_bytes=64 * MB)).enforced


@pytest.mark.parametrize("name", [kf.MEMORY_MAX, kf.MEMORY_SWAP_MAX, kf.MEMORY_OOM_GROUP])
def test_a_refused_limit(open_one: Open, name: str) -> None:
    """Any other refusal is an error that names the file."""
    one = open_one()
    one.fake.refused[name] = errno.EACCES
    with pytest.raises(CgroupError, match=name.replace(".", r"\.")):
        one.scope.set_limits(Limits(max_bytes=64 * MB))


def test_a_sample_is_two_reads(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below `detail_above`, memory.current and memory.events and nothing else."""
    one = open_one()
    reads: list[int] = []
    pread = one.fake.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(descriptor)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(one.fake, "pread", counted)
    sample = one.scope.sample(64 * MB)

    assert sample == Sample(100.0, 12 * MB, "cgroup", NONE_YET)
    assert len(reads) == 2


def test_a_detailed_sample(open_one: Open) -> None:
    """Past `detail_above` also what is reclaimable, pressure, swap and CPU time."""
    one = open_one()
    one.put(kf.MEMORY_SWAP_CURRENT, "8192\n")
    sample = one.scope.sample(12 * MB - 1)

    assert sample == Sample(
        at=100.0,
        current_bytes=12 * MB,
        metric="cgroup",
        events=NONE_YET,
        reclaimable_bytes=1048576 + 2097152 + 262144,
        swap_bytes=8192,
        some_seconds=1.5,
        full_seconds=0.25,
        user_seconds=2.0,
        refaults=42,
        frozen=False,
    )


def test_no_detail_at_the_bound(open_one: Open) -> None:
    """Exactly `detail_above` is not past it."""
    sample = open_one().scope.sample(12 * MB)

    assert sample is not None
    assert sample.reclaimable_bytes is None


def test_what_this_kernel_lacks_is_none(open_one: Open) -> None:
    """Absent is not 0."""
    lacks = (kf.MEMORY_STAT, kf.MEMORY_PRESSURE, kf.MEMORY_SWAP_CURRENT, kf.CPU_STAT)
    sample = open_one(lacks=lacks).scope.sample(0)

    assert sample == Sample(100.0, 12 * MB, "cgroup", NONE_YET)


def test_truncated_details(open_one: Open) -> None:
    """Garbage in what is only detail takes nothing away from the rest."""
    one = open_one(
        {
            kf.MEMORY_STAT: "anon",
            kf.MEMORY_PRESSURE: "some avg10=0.00",
            kf.MEMORY_SWAP_CURRENT: "x\n",
            kf.CPU_STAT: "\n",
            kf.MEMORY_EVENTS: "low 0\nhigh 3\nma",
        }
    )
    sample = one.scope.sample(0)

    assert sample == Sample(100.0, 12 * MB, "cgroup", MemoryEvents(high=3))


def test_frozen(open_one: Open) -> None:
    """Read from cgroup.events, and not from the descriptor that is waited on."""
    one = open_one()
    assert one.scope.emptied_descriptor is not None
    waited_on, _ = one.scope.emptied_descriptor
    one.put(kf.EVENTS, "populated 1\nfrozen 1\n")
    sample = one.scope.sample(0)

    assert sample is not None
    assert sample.frozen
    assert one.scope._descriptors["frozen"] != waited_on


def test_if_changed(open_one: Open) -> None:
    """None while both files say the same; a change in either is seen."""
    one = open_one()

    assert one.scope.sample(if_changed=True) is not None
    assert one.scope.sample(if_changed=True) is None
    one.put(kf.MEMORY_CURRENT, "4096\n")
    assert one.scope.sample(if_changed=True) == Sample(100.0, 4096, "cgroup", NONE_YET)
    assert one.scope.sample(if_changed=True) is None
    one.put(kf.MEMORY_EVENTS, KILLED)
    assert one.scope.sample(if_changed=True) == Sample(100.0, 4096, "cgroup", AFTER_A_KILL)
    assert one.scope.sample() is not None


def test_unchanged(open_one: Open) -> None:
    """True while both files say what the last sample said; not known before there was one."""
    one = open_one()
    assert not one.scope.unchanged()

    for name, text in ((kf.MEMORY_CURRENT, "4096\n"), (kf.MEMORY_EVENTS, KILLED)):
        one.scope.sample()
        assert one.scope.unchanged()
        assert one.scope.unchanged()
        one.put(name, text)
        assert not one.scope.unchanged()


def test_the_look_that_found_a_change_is_the_next_sample(open_one: Open) -> None:
    """It is taken once; the sample after it is read anew."""
    one = open_one()
    one.scope.sample()
    one.put(kf.MEMORY_CURRENT, "4096\n")
    assert not one.scope.unchanged()
    one.put(kf.MEMORY_CURRENT, "8192\n")

    samples = [one.scope.sample(if_changed=True) for _ in range(3)]
    assert [sample and sample.current_bytes for sample in samples] == [4096, 8192, None]


def test_wake_descriptors(open_one: Open) -> None:
    """memory.events, by POLLPRI, which is the descriptor that samples clear."""
    one = open_one()
    [(descriptor, mask)] = one.scope.wake_descriptors

    assert one.fake._paths[descriptor].name == kf.MEMORY_EVENTS
    assert mask == 2


def test_emptied_descriptor(open_one: Open) -> None:
    """cgroup.events, opened when asked for; asked twice, the same one."""
    one = open_one()
    before = open_descriptors()
    descriptor, mask = one.scope.emptied_descriptor or (-1, 0)

    assert len(open_descriptors() - before) == 1
    assert one.fake._paths[descriptor].name == kf.EVENTS
    assert mask == 2
    assert one.scope.emptied_descriptor == (descriptor, mask)


def test_start(open_one: Open) -> None:
    """The placement gets the directory's path and a descriptor of it, which is closed after."""
    one = open_one()
    before = open_descriptors()
    one.scope.start(["true"], {"cwd": "/"})

    assert one.placement.asked == [(["true"], {"cwd": "/"}, str(one.fake.at("job/one")), True)]
    assert open_descriptors() == before


def test_a_failed_start(open_one: Open) -> None:
    """What the placement raises comes through; no descriptor is left."""
    one = open_one()
    one.placement.refusal = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "nonesuch")
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        one.scope.start(["nonesuch"], {})

    assert open_descriptors() == before


def test_freeze(open_one: Open) -> None:
    """1 and 0 to cgroup.freeze; before 5.2 there is no such file, and the error says so."""
    one = open_one()
    one.scope.freeze(True)
    one.scope.freeze(False)
    assert one.fake.written == [(kf.FREEZE, b"1"), (kf.FREEZE, b"0")]

    one.put(kf.FREEZE, None)
    with pytest.raises(CgroupError, match=r"cgroup\.freeze"):
        one.scope.freeze(True)


def test_reclaim(open_one: Open) -> None:
    """The size goes to memory.reclaim; that less could be taken back is no error."""
    one = open_one({kf.MEMORY_RECLAIM: ""})
    one.scope.reclaim(4096)
    assert one.fake.written == [(kf.MEMORY_RECLAIM, b"4096")]

    one.fake.refused[kf.MEMORY_RECLAIM] = errno.EAGAIN
    one.scope.reclaim(4096)


@pytest.mark.parametrize(("text", "number"), [("", errno.EINVAL), (None, errno.ENOENT)])
def test_a_refused_reclaim(open_one: Open, text: str | None, number: int) -> None:
    """Any other refusal, or no such file (before 5.19), is an error that names the file."""
    one = open_one({kf.MEMORY_RECLAIM: text})
    one.fake.refused[kf.MEMORY_RECLAIM] = errno.EINVAL
    with pytest.raises(CgroupError, match=r"memory\.reclaim") as caught:
        one.scope.reclaim(4096)

    assert caught.value.errno == number


def test_pids_and_close(open_one: Open) -> None:
    """A process inside, or in a nested cgroup, keeps it; then it goes, nested ones first."""
    one = open_one()
    one.fake.mkdir(one.fake.at("job/one/nested"))
    one.fake.enter("job/one/nested", 77)

    assert one.scope.pids() == [77]
    assert not one.scope.close()
    one.scope.signal(9)
    assert one.scope.pids() == []
    assert one.scope.close()
    assert not one.fake.at("job/one").exists()
    assert one.scope.close()


def test_an_end_is_told_before_the_removal(open_one: Open) -> None:
    """`before` is called while the empty cgroup is there, and not while a process is inside."""
    one = open_one()
    there: list[bool] = []

    def before() -> None:
        there.append(one.fake.at("job/one").exists())

    one.fake.enter("job/one", 77)
    assert not one.scope.close(before)
    assert there == []
    one.scope.signal(9)
    assert one.scope.close(before)
    assert there == [True]


@pytest.mark.parametrize("text", [None, "", "frozen 0\n", "populated x\n"])
def test_an_end_is_told_after_the_removal_too(open_one: Open, text: str | None) -> None:
    """Where nobody can see whether the cgroup is empty, its removal shows it."""
    one = open_one()
    one.put(kf.EVENTS, text)
    there: list[bool] = []

    assert one.scope.close(lambda: there.append(one.fake.at("job/one").exists()))
    assert there == [False]


def test_counters(open_one: Open) -> None:
    """Events, peak, and what reclaim could take back; local events only after a kill."""
    one = open_one()

    assert one.scope.counters() == Counters(
        events=NONE_YET,
        local_events=None,
        ancestors_with_oom=(),
        host_root_visible=True,
        peak_bytes=16 * MB,
        reclaimable_bytes=1048576 + 2097152 + 262144,
    )


def test_counters_after_a_kill(open_one: Open) -> None:
    """The local events tell whose limit it was; ancestors with an OOM of their own are named."""
    one = open_one()
    one.put(kf.MEMORY_EVENTS, KILLED)
    one.put(kf.MEMORY_EVENTS_LOCAL, "low 0\noom 0\n")
    one.fake.put("job", kf.MEMORY_EVENTS_LOCAL, "oom 2\n")
    one.fake.put("job", kf.MEMORY_MAX, f"{96 * MB}\n")
    counters = one.scope.counters()

    assert counters.events == AFTER_A_KILL
    assert counters.local_events == MemoryEvents(oom=0)
    assert counters.ancestors_with_oom == (LimitAbove(str(one.fake.at("job")), 96 * MB),)


def test_an_ancestors_earlier_oom_is_not_ours(open_one: Open, tmp_path: Path) -> None:
    """Only what rose while the scope lived counts."""
    one = open_one()
    one.fake.put("job", kf.MEMORY_EVENTS_LOCAL, "oom 2\n")
    later = Opened(one.fake)
    later.put(kf.MEMORY_EVENTS, KILLED)

    assert later.scope.counters().ancestors_with_oom == ()
    later.scope.detach()
    later.scope._ancestry.close()


def test_counters_of_an_older_kernel(open_one: Open) -> None:
    """No peak before 5.19, no local events before 5.2."""
    lacks = (kf.MEMORY_PEAK, kf.MEMORY_EVENTS_LOCAL, kf.MEMORY_STAT)
    one = open_one({kf.MEMORY_EVENTS: KILLED}, lacks=lacks)
    counters = one.scope.counters()

    assert counters.peak_bytes is None
    assert counters.local_events is None
    assert counters.reclaimable_bytes is None


def test_a_vanished_scope(open_one: Open) -> None:
    """Removed by somebody else: ScopeVanished, empty, or the last values, and no other error."""
    one = open_one()
    one.put(kf.MEMORY_EVENTS, KILLED)
    one.scope.sample()
    one.fake.vanish("job/one")

    for act in (
        one.scope.sample,
        lambda: one.scope.sample(0),
        lambda: one.scope.start(["true"], {}),
        lambda: one.scope.set_limits(Limits()),
        lambda: one.scope.freeze(True),
        lambda: one.scope.reclaim(4096),
        lambda: one.scope.emptied_descriptor,
    ):
        with pytest.raises(ScopeVanished):
            act()
    assert not one.scope.unchanged()
    one.scope.signal(9)
    one.scope.signal(15)
    assert one.scope.pids() == []
    assert one.scope.close()
    assert one.scope.counters() == Counters(AFTER_A_KILL, cached=True)


def test_a_scope_that_vanished_below_an_oom(open_one: Open) -> None:
    """The cgroups above are still there to be asked, as long as they are."""
    one = open_one()
    one.put(kf.MEMORY_EVENTS, "oom 0\noom_kill 1\n")
    one.scope.sample()
    one.fake.put("job", kf.MEMORY_EVENTS_LOCAL, "oom 2\n")
    one.fake.put("job", kf.MEMORY_MAX, f"{96 * MB}\n")
    one.fake.vanish("job/one")
    above = (LimitAbove(str(one.fake.at("job")), 96 * MB),)
    last = MemoryEvents(oom=0, oom_kill=1)

    assert one.scope.counters() == Counters(last, ancestors_with_oom=above, cached=True)
    one.fake.vanish("job")
    assert one.scope.counters() == Counters(last, cached=True)


def test_it_vanishes_between_two_reads(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone after memory.current was read, while the details are: still ScopeVanished."""
    one = open_one()
    pread = one.fake.pread

    def then_gone(descriptor: int, size: int, offset: int) -> bytes:
        if one.fake._paths[descriptor].name == kf.MEMORY_STAT:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(one.fake, "pread", then_gone)
    with pytest.raises(ScopeVanished):
        one.scope.sample(0)


def test_a_read_error(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else than gone is an error with the file's path."""
    one = open_one()

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(one.fake, "pread", refuse)
    with pytest.raises(CgroupError, match=r"memory\.events"):
        one.scope.sample()
    with pytest.raises(CgroupError, match=r"memory\.events"):
        one.scope.counters()


def test_opening_what_is_not_there(open_one: Open) -> None:
    """A cgroup that is gone has vanished; one without the memory controller is an error."""
    one = open_one()
    before = open_descriptors()
    for name in MEMORY:
        if name != kf.MEMORY_CURRENT:
            one.put(name, None)
    with pytest.raises(CgroupError):
        Opened(one.fake)
    one.fake.vanish("job/one")
    with pytest.raises(ScopeVanished):
        Opened(one.fake)

    assert open_descriptors() == before


def test_detach(open_one: Open) -> None:
    """All descriptors are given up; the cgroup stays; twice is harmless."""
    one = open_one()
    one.scope.sample(0)
    assert one.scope.emptied_descriptor
    one.scope.detach()
    one.scope.detach()

    assert one.scope._descriptors == {}
    assert one.fake.at("job/one").is_dir()
    assert not one.scope.unchanged()
