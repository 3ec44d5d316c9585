"""What is said once a login."""

from __future__ import annotations

import os
from pathlib import Path

from cgmem.cli.once import first_time


def test_once_a_login(tmp_path: Path) -> None:
    """The same text is new once, another text is new again."""
    assert first_time("one", str(tmp_path))
    assert not first_time("one", str(tmp_path))
    assert first_time("two", str(tmp_path))


def test_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    """Without a directory of our own it is said each time, and nothing is written elsewhere."""
    for directory in (str(tmp_path / "nonesuch"), "relative"):
        assert first_time("one", directory)
        assert first_time("one", directory)
    if os.geteuid() == 0:
        os.chown(tmp_path, 4242, -1)
        assert first_time("one", str(tmp_path))
        assert first_time("one", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
