"""Which backend is chosen, and what is said about it."""

from __future__ import annotations

import errno
import os

import pytest

from cgmem import selector
from cgmem.contract import BY_RULE, Backend, Capabilities, Group, Leave, Usability
from cgmem.errors import BackendUnavailable, CgmemError, ConfigurationError, EnforcementError
from tests.unit.fakes import FakeBackend, FakeClock


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeBackend]:
    """Backends in place of the real ones: the last polls, the others hold limits."""
    made = {name: FakeBackend(FakeClock()) for name in selector.NAMES}
    for name, backend in made.items():
        backend.name = name
    made["psutil"].capabilities = Capabilities(False, False, True, False, "rss")

    def load(name: str, leave: Leave = BY_RULE, group: Group | None = None) -> Backend:
        return made[name]

    monkeypatch.setattr(selector, "load", load)
    return made


def test_the_preferred_one(backends: dict[str, FakeBackend]) -> None:
    """`auto` takes the first that is usable, and says why."""
    choice = selector.choose()

    assert choice.backend.name == "cgroup2"
    assert choice.reason == "cgroup2: it is a fake"
    assert choice.passed_over == ()


def test_the_fallback(backends: dict[str, FakeBackend]) -> None:
    """Where the first can't work, the reason names it and why."""
    refusal = Usability(False, "nothing is delegated", "systemd-run")
    backends["cgroup2"].usability = backends["systemd"].usability = refusal
    choice = selector.choose()

    assert choice.backend.name == "psutil"
    assert "not cgroup2: nothing is delegated" in choice.reason
    assert choice.passed_over == (("cgroup2", refusal), ("systemd", refusal))


def test_systemd_comes_second(backends: dict[str, FakeBackend]) -> None:
    """Where the own cgroup is not ours, systemd is asked for one before anything only polls."""
    backends["cgroup2"].usability = Usability(False, "nothing is delegated")
    choice = selector.choose()

    assert choice.reason == "systemd: it is a fake (not cgroup2: nothing is delegated)"
    assert choice.note is None


def test_what_can_surprise(backends: dict[str, FakeBackend]) -> None:
    """A usable backend's note goes along with the choice, and what to do about it."""
    usability = Usability(True, "it is a fake", "loginctl enable-linger", "ends with the login")
    backends["cgroup2"].usability = usability

    assert selector.choose().note == "ends with the login: loginctl enable-linger"


def test_what_costs_to_find_out_waits(
    backends: dict[str, FakeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that takes another program is looked for when it is asked for, not to choose."""
    asked: list[Usability] = []

    def with_note(found: Usability) -> Usability:
        asked.append(found)
        return found._replace(note="ends with the unit")

    monkeypatch.setattr(backends["cgroup2"], "with_note", with_note)
    choice = selector.choose()

    assert not asked
    assert choice.note == "ends with the unit"
    assert len(asked) == 1


def test_by_name(backends: dict[str, FakeBackend]) -> None:
    """Who asks for one by name gets that one."""
    choice = selector.choose("psutil")

    assert choice.backend.name == "psutil"
    assert choice.reason == "psutil: asked for; it is a fake"


def test_by_name_and_unusable(backends: dict[str, FakeBackend]) -> None:
    """One that is asked for by name is never replaced by another; the error says how to fix it."""
    backends["cgroup2"].usability = Usability(False, "nothing is delegated", "systemd-run")

    with pytest.raises(BackendUnavailable, match="cgroup2: nothing is delegated") as caught:
        selector.choose("cgroup2")
    assert caught.value.hint == "systemd-run"


def test_required_and_unusable(backends: dict[str, FakeBackend]) -> None:
    """Where limits are required, a backend that only polls is never chosen."""
    for name in ("cgroup2", "systemd"):
        backends[name].usability = Usability(False, "nothing is delegated", "systemd-run")

    with pytest.raises(EnforcementError, match="nothing is delegated") as caught:
        selector.choose(kernel_limits_required=True)
    assert caught.value.hint == "systemd-run"


def test_required_and_polling(backends: dict[str, FakeBackend]) -> None:
    """Requiring limits of a backend that polls is refused with its name."""
    with pytest.raises(EnforcementError, match="the psutil backend polls"):
        selector.choose("psutil", kernel_limits_required=True)


def test_nothing_works(backends: dict[str, FakeBackend]) -> None:
    """Where none works the error names every reason."""
    for backend in backends.values():
        backend.usability = Usability(False, f"no {backend.name}")

    with pytest.raises(
        BackendUnavailable, match="no cgroup2; systemd: no systemd; psutil: no psutil"
    ) as caught:
        selector.choose()
    assert caught.value.hint == "cgmem doctor"


def test_an_unknown_name() -> None:
    """A name that there isn't is the caller's fault; the hint lists those that there are."""
    with pytest.raises(ConfigurationError, match="'rlimit'") as caught:
        selector.choose("rlimit")
    assert caught.value.hint == "choose one of: auto, cgroup2, systemd, psutil"


def test_the_real_ones_load() -> None:
    """Every name leads to a backend of that name."""
    assert [selector.load(name).name for name in selector.NAMES] == list(selector.NAMES)
    assert selector.load_observer().name == selector.FALLBACK


def test_a_start_time_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown, and no reason to fail."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("cgmem_backends.scope_record.process_start", refuse)

    assert selector.process_start(os.getpid()) is None


def test_the_machine_has_memory() -> None:
    """The real reader finds a plausible machine."""
    memory = selector.system_memory()

    assert 0 < memory.available_bytes <= memory.total_bytes


def test_a_group_takes_the_kernel(backends: dict[str, FakeBackend]) -> None:
    """Where only polling works, or was asked for, a group is refused and the reason says so."""
    group = Group("build", 1 << 30)
    assert selector.choose(group=group).backend.name == "cgroup2"
    backends["cgroup2"].usability = backends["systemd"].usability = Usability(False, "no", "fix it")
    for wanted in ("auto", "psutil"):
        with pytest.raises(EnforcementError, match="group build is the kernel's to hold"):
            selector.choose(wanted, group=group)


def test_a_part_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, or half installed: an error of ours that says which part."""
    monkeypatch.setitem(selector._CLASSES, "cgroup2", ("cgmem_backends.nonexistent", "X"))

    with pytest.raises(CgmemError, match=r"can't be loaded: .*cgmem_backends\.nonexistent"):
        selector.load("cgroup2")
