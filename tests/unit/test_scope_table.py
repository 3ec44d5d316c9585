"""The table of live scopes: what gives way, the order, the filters."""

from __future__ import annotations

from cgmem.cli.output import table_lines
from cgmem.cli.scope_table import COLUMNS, SORTS, Filter, Row, rendered
from cgmem.cli.show import _memory
from cgmem.contract import MB, Level, Limits, Sample
from cgmem.inspecting.live_scopes import LiveScope
from tests.unit.fakes import a_record, taken


def a_row(
    name: str = "engineer_1", used: int = 10, level: Level = "OK", growth: float | None = None
) -> Row:
    """A live scope of so many MB under 100 MB."""
    record = a_record(name)._replace(agent_type=name.partition("_")[0], max_bytes=100 * MB)
    live = LiveScope(
        backend="cgroup2",
        kernel_limits=True,
        record=record,
        location=f"/{name}",
        level=level,
        judged_bytes=used * MB,
        sample=Sample(1.0, used * MB, "cgroup", full_seconds=1.5),
        pids=(1, 2),
        supervised=True,
        peak_bytes=2 * used * MB,
        held=taken(Limits()),
    )
    return Row(live, growth)


def test_a_pipe_gets_every_column() -> None:
    """Nothing is left out where no width is given."""
    headings, cells = rendered([a_row()], room=None)

    assert headings == [column.heading for column in COLUMNS]
    assert len(cells[0]) == len(headings)


def test_a_peak_is_told_with_its_cache() -> None:
    """Beside figures without page cache the peak says that it is one with it."""
    live = a_row(used=50).live

    assert _memory(live).endswith("; peak 100M including cache")
    assert _memory(live._replace(peak_bytes=None)).endswith(" reclaimable")


def test_columns_give_way_in_turn() -> None:
    """80 columns hold the table whatever the id; what matters most stays at any width."""
    rows = [a_row("x" * 128, growth=-3.0 * MB), a_row()]
    for room in (80, 60, 40, 10):
        headings, cells = rendered(rows, room=room)

        assert {"ID", "LEVEL", "USED", "MAX", "%"} <= set(headings)
        if room >= 60:
            widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
            assert min(20, widths[0]) + sum(widths[1:]) + len(widths) - 1 <= room
    assert "BY" not in rendered(rows, room=80)[0]
    assert "/MIN" in rendered(rows, room=80)[0]


def test_a_name_from_outside_moves_no_cursor() -> None:
    """Escape sequences are shown, not sent."""
    _, cells = rendered([a_row("a\x1b[2Jb")], room=None)

    assert "\x1b" not in "".join(table_lines(["X"], [cells[0][:1]]))


def test_sorting_puts_the_worst_first() -> None:
    """By level, by size, by growth; unknown growth is none."""
    small = a_row("small", 10, "CRITICAL", 5.0)
    large = a_row("large", 90, "OK", None)

    def order(key: str) -> list[str]:
        return [row.live.record.subprocess_id for row in sorted([large, small], key=SORTS[key])]

    assert order("level") == ["small", "large"]
    assert order("used") == ["large", "small"]
    assert order("growth") == ["small", "large"]
    assert all(order(key) for key in SORTS)


def test_filters() -> None:
    """This level or worse; a type; a backend; a pattern."""
    warned = a_row("engineer_1", level="WARNING").live

    assert Filter().takes(warned)
    assert Filter(level="WARNING", agent_type="engineer", backend="cgroup2", name="eng*").takes(
        warned
    )
    assert not Filter(level="CRITICAL").takes(warned)
    assert not Filter(agent_type="qa").takes(warned)
    assert not Filter(backend="psutil").takes(warned)
    assert not Filter(name="engineer").takes(warned)
