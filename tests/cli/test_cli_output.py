"""What is printed: safe for a terminal, in columns, in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.cli import output
from cgmem.cli.voice import leftovers
from cgmem.contract import EffectiveLimits, MemoryEvents, SystemMemory
from cgmem.supervising.outcome import Outcome


@given(st.text(st.characters(exclude_categories=())))
def test_plain_text_is_printable(text: str) -> None:
    """Whatever comes from outside, no control character reaches the terminal."""
    assert output.plain(text).isprintable()


def test_plain_text_escapes() -> None:
    """Escapes are shown, letters of all languages stay."""
    assert output.plain("a\x1b[31m\nß\udcff") == "a\\x1b[31m\\nß\\udcff"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (99, "99s"), (100, "1m"), (5999, "99m"), (6000, "1h"),
     (172_799, "47h"), (172_800, "2d")],
)  # fmt: skip
def test_age(seconds: float, text: str) -> None:
    """An age has few characters."""
    assert output.age(seconds) == text


def test_table_in_a_pipe_keeps_whole_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal no cell is shortened, and columns stand below their headings."""
    output.print_table(("ID", "N"), [("x" * 100, "1"), ("y", "22")], right=("N",))
    lines = capsys.readouterr().out.splitlines()

    assert lines[1] == "x" * 100 + "   1"
    assert lines[2] == "y" + " " * 99 + "  22"


def test_table_on_a_terminal_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal of 80 columns the first column gives way."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    output.print_table(("ID", "LEVEL", "A"), [("x" * 100, "OK", "b" * 30)])
    lines = capsys.readouterr().out.splitlines()

    assert max(map(len, lines)) == 80
    assert "…" in lines[1]


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and lone surrogates leave as escapes."""
    output.print_json({"id": "a\x1b\udcff"})

    assert "\\u001b\\udcff" in capsys.readouterr().out


def _outcome(leftover_pids: tuple[int, ...], *, kept: bool) -> Outcome:
    return Outcome(
        subprocess_id="id1", command=("sh",), pid=1, backend="psutil", cause="exited",
        exit_code=0, signal=None, message="", start_mb=0.0, peak_mb=0.0, end_mb=0.0,
        peak_charged_mb=None, duration_seconds=0.0, warnings=(), aborted=False, enforced=False,
        limits=EffectiveLimits(None, None, None, None, None, enforced=False),
        events=MemoryEvents(), counters_cached=False, stalls=(), leftovers=leftover_pids,
        kept=kept, metric="rss", system_memory=SystemMemory(1, 1), log_dir=None,
        sigkill_needed=False,
    )  # fmt: skip


def test_leftovers_are_named() -> None:
    """One or many, killed or kept, with what to do about it."""
    assert leftovers(_outcome((7,), kept=False)).startswith("killed 1 leftover process: 7 ")
    assert leftovers(_outcome((7, 8), kept=False)).startswith("killed 2 leftover processes: 7, 8")
    assert leftovers(_outcome((7,), kept=True)).endswith("see: cgmem show id1")


def test_kept_leftovers_are_limited_by_the_kernel_only() -> None:
    """No promise of a hard limit that went with its supervisor."""
    kept = _outcome((7,), kept=True)
    assert "nothing limits them any more" in leftovers(kept)
    assert "the hard limit stays" in leftovers(kept._replace(enforced=True))
