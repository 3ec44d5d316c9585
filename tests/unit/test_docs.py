"""The reference pages name what the code has."""

from __future__ import annotations

from pathlib import Path

from cgmem.config.setting_table import TABLE
from cgmem.supervising.outcome import Outcome

DOCS = Path(__file__).parents[2] / "docs"


def test_every_setting_is_documented() -> None:
    """docs/settings.md has a row with each setting's key, flag, variable and help."""
    text = (DOCS / "settings.md").read_text()

    for setting in TABLE:
        flag = f"`{setting.flag}`" if setting.flag else ""
        assert f"| `{setting.key}` | {flag} | `{setting.variable}` | {setting.help} |" in text


def test_every_key_of_the_outcome_is_documented() -> None:
    """docs/report.md names each key that `--report` writes."""
    text = (DOCS / "report.md").read_text()
    not_reported = {"stdout", "stderr"}

    for key in set(Outcome._fields) - not_reported:
        assert f"`{key}`" in text, key


def test_no_two_decisions_have_one_number() -> None:
    """docs/decisions/ is 001, 002, …: a new one takes the next number."""
    numbers = sorted(int(path.name[:3]) for path in (DOCS / "decisions").iterdir())

    assert numbers == list(range(1, len(numbers) + 1))
