"""What waits for a snapshot goes out in order, in time, and is never lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import MB, Alert, ProcessMemory, Snapshot
from cgmem.supervising.outbox import Outbox, worth_a_snapshot
from cgmem.supervising.snapshot import TIME_LIMIT, Inspection
from tests.unit.fakes import FakeClock, FakeScope

LEAK = Snapshot(processes=(ProcessMemory(7, ("leak",), MB, "pss"),))


class Office:
    """An outbox, what went out of it, and the snapshots that were asked for."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.asked: list[Inspection] = []
        self.out: list[tuple[Any, Snapshot | None]] = []
        self.box = Outbox(self.clock)

    def _inspect(self) -> Inspection:
        self.asked.append(Inspection(FakeScope(self.clock), lambda: None))
        return self.asked[-1]

    def add(self, name: object, *, inspect: bool = False) -> None:
        """Give something to be sent."""
        self.box.add(
            lambda snapshot: self.out.append((name, snapshot)), self._inspect if inspect else None
        )

    def arrive(self, snapshot: Snapshot = LEAK) -> None:
        """The last snapshot that was asked for is there."""
        self.asked[-1].so_far = snapshot
        self.asked[-1].done = True
        self.box.hand_out(self.clock())


def test_what_needs_no_snapshot_goes_at_once() -> None:
    """A WARNING waits for nothing, and nothing is read for it."""
    office = Office()
    office.add("warning")

    assert office.out == [("warning", None)]
    assert office.asked == []
    assert office.box.due_at is None
    assert office.box.last is None


def test_in_order_with_the_snapshot() -> None:
    """What comes after a waiting alert waits with it; two at a time share one snapshot."""
    office = Office()
    office.add("critical", inspect=True)
    office.add("warning")
    office.add("stall", inspect=True)
    assert office.out == []
    assert office.box.due_at == office.clock.now + TIME_LIMIT

    office.arrive()

    assert office.out == [("critical", LEAK), ("warning", None), ("stall", LEAK)]
    assert len(office.asked) == 1
    assert office.box.last is not None
    assert office.box.last == (office.clock.now, LEAK)


def test_late() -> None:
    """After the limit an alert goes with what there is; the snapshot that comes later is kept."""
    office = Office()
    began = office.clock.now
    office.add("critical", inspect=True)
    office.box.hand_out(began + TIME_LIMIT / 2)
    assert office.out == []

    office.clock.now += TIME_LIMIT
    office.box.hand_out(office.clock())
    assert office.out == [("critical", Snapshot())]

    office.arrive()
    assert len(office.out) == 1
    assert office.box.last == (began, LEAK)


def test_the_end_hands_out_what_waits() -> None:
    """An outcome that comes meanwhile overtakes nothing."""
    office = Office()
    office.add("critical", inspect=True)
    office.add("abort")
    office.box.hand_out_all()

    assert [name for name, _ in office.out] == ["critical", "abort"]


def test_the_dead_show_nothing() -> None:
    """A later snapshot without a process does not take the place of an earlier one."""
    office = Office()
    office.add("critical", inspect=True)
    office.arrive()
    office.clock.now += 40
    office.add("limit", inspect=True)
    office.arrive(Snapshot(partial=False))

    assert office.box.last == (office.clock.now - 40, LEAK)


def test_without_a_worker() -> None:
    """Where nothing can be inspected, alerts go at once."""
    out: list[Snapshot | None] = []
    box = Outbox(FakeClock())
    box.add(out.append, lambda: None)

    assert out == [None]
    assert box.last is None


@given(
    st.lists(
        st.sampled_from(["plain", "inspect", "arrive", "late", "look", "thrice late"]), max_size=30
    )
)
def test_order_is_kept_and_nothing_lost(steps: list[str]) -> None:
    """Whatever comes when, each is handed out once, in order, no later than the limit allows."""
    office = Office()
    for number, step in enumerate(steps):
        if step in ("plain", "inspect"):
            office.add(number, inspect=step == "inspect")
        elif step == "arrive" and office.asked:
            office.arrive()
        elif step == "look":
            office.box.hand_out(office.clock())
        elif "late" in step:
            office.clock.now += TIME_LIMIT
            office.box.hand_out(office.clock())
            assert office.box.due_at is None
    office.box.hand_out_all()

    expected = [number for number, step in enumerate(steps) if step in ("plain", "inspect")]
    assert [name for name, _ in office.out] == expected


def test_which_alerts_are_worth_one() -> None:
    """CRITICAL thresholds and stalls; a kill only where we do it: the kernel's leaves nobody."""
    alert = Alert("CRITICAL", "x", "threshold", 0.0, 1, 1)

    assert worth_a_snapshot(alert, kernel_limits=True)
    assert worth_a_snapshot(alert._replace(kind="stall"), kernel_limits=True)
    assert not worth_a_snapshot(alert._replace(kind="kill"), kernel_limits=True)
    assert worth_a_snapshot(alert._replace(kind="kill"), kernel_limits=False)
    assert not worth_a_snapshot(alert._replace(level="WARNING"), kernel_limits=True)
    assert not worth_a_snapshot(alert._replace(kind="note"), kernel_limits=True)
