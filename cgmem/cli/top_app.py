"""The screen of `cgmem top`, in textual (an extra). Looking and acting are done in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from cgmem.cli.output import plain
from cgmem.cli.processes import Seen, as_tree, look, with_pss
from cgmem.cli.scope_table import HEADINGS_OF_NUMBERS, SORTS, Filter, Row, rendered
from cgmem.cli.scope_table import look as look_at_all
from cgmem.cli.show import described
from cgmem.contract import Snapshot
from cgmem.errors import CgmemError
from cgmem.inspecting import orders
from cgmem.inspecting.live_scopes import inspected
from cgmem.inspecting.trend import Trend, sparkline

TREND_WIDTH = 16
NAME_WIDTH = 20
GRACE_SECONDS = 5.0
PROCESSES = 50
"""Of how many PSS is read."""
_STYLES = {"WARNING": "yellow", "CRITICAL": "bold red", "ABORTED": "bold red", "FROZEN": "cyan"}
_WITHOUT = ("BACKEND", "BY", "RAW")


class Question(ModalScreen[bool]):
    """Asks whether to do something; `y` does, anything else doesn't."""

    DEFAULT_CSS = """
    Question { align: center middle; }
    Question Static { width: auto; max-width: 70; padding: 1 3; border: round $warning; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """One box."""
        yield Static(Text(f"{self._text}\n\ny: yes   any other key: no"))

    def on_key(self, event: object) -> None:
        """Any key answers."""
        self.dismiss(getattr(event, "key", "") == "y")


class Processes(ModalScreen[None]):
    """The process tree of one scope."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "back")]
    DEFAULT_CSS = """
    Processes { align: center middle; }
    Processes Vertical { width: 90%; height: 80%; border: round $primary; padding: 0 1; }
    Processes DataTable { height: 1fr; }
    """

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def compose(self) -> ComposeResult:
        """The command above its processes."""
        live = self._row.live
        title = f"{live.record.subprocess_id}: {' '.join(live.record.command)}"
        with Vertical():
            yield Static(Text(plain(title), no_wrap=True, overflow="ellipsis"))
            yield Static(id="memory")
            yield DataTable[Text](cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Look once, in a thread: a stuck process keeps its readers waiting."""
        self.query_one(DataTable).add_columns("PID", "PSS MB", "RSS MB", "COMMAND")
        self._look()

    @work(thread=True)
    def _look(self) -> None:
        snapshot = inspected(self._row.live, PROCESSES)
        processes = with_pss(look(self._row.live.pids), snapshot)
        self.app.call_from_thread(self._show, snapshot, processes)

    def _show(self, snapshot: Snapshot, processes: list[Seen]) -> None:
        if snapshot.memory_stat is not None:
            self.query_one("#memory", Static).update(described(snapshot.memory_stat))
        table = self.query_one(DataTable)
        for depth, seen in as_tree(processes):
            sizes = ("?" if size is None else f"{size}" for size in (seen.pss_mb, seen.rss_mb))
            command = Text("  " * depth + plain(seen.command))
            cells = (Text(size, justify="right") for size in sizes)
            table.add_row(Text(str(seen.pid)), *cells, command)


class TopApp(App[None]):
    """The table of live scopes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter", "processes", "processes"),
        ("s", "sort", "sort"),
        ("f", "freeze", "freeze"),
        ("t", "thaw", "thaw"),
        ("k", "kill", "kill"),
        ("q", "quit", "quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, every: float, sort: str) -> None:
        super().__init__()
        self._every = every
        self._sort = sort
        self._trend = Trend()
        self._rows: dict[str, Row] = {}

    def compose(self) -> ComposeResult:
        """A line, the table, the keys."""
        yield Static(id="title")
        yield DataTable[Text](cursor_type="row", id="scopes")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#scopes").focus()
        self.set_interval(self._every, self.refresh_rows)
        self.refresh_rows()

    @work(thread=True, exclusive=True)
    def refresh_rows(self) -> None:
        """Look at every scope, in a thread."""
        rows = look_at_all(self._trend, Filter())
        self.call_from_thread(self._show, rows)

    def _show(self, rows: list[Row]) -> None:
        rows = sorted(rows, key=SORTS[self._sort])
        self._rows = {row.live.location: row for row in rows}
        title = f"cgmem top   {len(rows)} live   sorted by {self._sort}   every {self._every:g} s"
        self.query_one("#title", Static).update(title)
        table = self.query_one("#scopes", DataTable)
        chosen = self._chosen_key()
        headings, cells = rendered(
            rows, room=self.size.width - TREND_WIDTH - 2, without=_WITHOUT, gap=2, bars=True
        )
        table.clear(columns=True)
        table.add_columns(*headings, "TREND")
        for row, line in zip(rows, cells, strict=True):
            drawn = [_cell(heading, text) for heading, text in zip(headings, line, strict=True)]
            trend = Text(sparkline(self._trend.sizes(row.live.location), TREND_WIDTH))
            table.add_row(*drawn, trend, key=row.live.location)
        if chosen in self._rows:
            table.move_cursor(row=table.get_row_index(chosen), animate=False)

    def _chosen_key(self) -> str:
        table = self.query_one("#scopes", DataTable)
        if not table.is_valid_coordinate(table.cursor_coordinate):
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def _chosen(self) -> Row | None:
        return self._rows.get(self._chosen_key())

    def action_sort(self) -> None:
        """Go to the next order."""
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        self._show(list(self._rows.values()))

    def on_data_table_row_selected(self) -> None:
        """Enter, or a click on the chosen row."""
        row = self._chosen()
        if row is not None and not isinstance(self.screen, ModalScreen):
            self.push_screen(Processes(row))

    def action_freeze(self) -> None:
        """Stop the chosen one, after a question."""
        self._ask("Freeze", lambda to: _said(orders.freeze(to, True), "frozen", "not all stopped"))

    def action_thaw(self) -> None:
        """Let the chosen one run again."""
        row = self._chosen()
        if row is not None:
            self._act(row, lambda to: _said(orders.freeze(to, False), "runs", "not all continued"))

    def action_kill(self) -> None:
        """End the chosen one, after a question."""
        self._ask("Kill", self._kill)

    def _kill(self, to: orders.Target) -> str:
        _, _, gone = orders.kill(to, GRACE_SECONDS, self._note)
        return _said(gone, "ended", "lives on")

    def _ask(self, verb: str, do: Callable[[orders.Target], str]) -> None:
        row = self._chosen()
        if row is None:
            return
        count = len(row.live.pids)
        text = f"{verb} {row.live.record.subprocess_id} ({count} process{'es'[: 2 * (count > 1)]})?"

        def answered(yes: bool | None) -> None:
            if yes:
                self._act(row, do)

        self.push_screen(Question(text), answered)

    @work(thread=True)
    def _act(self, row: Row, do: Callable[[orders.Target], str]) -> None:
        name = row.live.record.subprocess_id
        try:
            with orders.target(row.live.location) as to:
                said = do(to)
        except (CgmemError, OSError) as error:
            said = str(error)
        self._note(f"{name}: {said}")
        self.call_from_thread(self.refresh_rows)

    def _note(self, text: str) -> None:
        self.call_from_thread(self.notify, plain(text))


def _said(done: bool, yes: str, no: str) -> str:
    return yes if done else no


def _cell(heading: str, text: str) -> Text:
    if heading == "ID" and len(text) > NAME_WIDTH:
        text = f"{text[: NAME_WIDTH - 1]}…"
    style = _STYLES.get(text, "") if heading == "LEVEL" else ""
    justify = "right" if heading in HEADINGS_OF_NUMBERS else "left"
    return Text(text, style=style, justify=justify)  # type: ignore[arg-type]  # a Literal of rich
