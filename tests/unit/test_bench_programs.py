"""The programs that the bench lets loose, and its own poller."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import fugitive, hog
from bench.poller import summed_rss
from tests.helpers.waiting import PATIENCE, until


def test_the_hog_says_what_it_took_and_when(tmp_path: Path) -> None:
    """Each process notes its pid and a time for every megabyte it has touched."""
    book = str(tmp_path / "book")
    hog.book(book, 3, 2)
    words = [sys.executable, "-I", "-S", hog.__file__, book, "3", "0", "2"]
    began = time.monotonic()
    with subprocess.Popen(words) as process:
        try:
            until(lambda: len(hog.read(book, 3, 2)[1]) == 6)
            pids, times = hog.read(book, 3, 2)
        finally:
            for one in psutil.Process(process.pid).children():
                one.kill()
            process.kill()

    assert process.pid in pids
    assert len(set(pids)) == 2
    assert began < times[0] <= times[-1] < began + PATIENCE


def test_every_way_to_get_away_is_known_by_name() -> None:
    """The fork bomb is bounded: nobody runs it without an end."""
    assert set(fugitive.WAYS) == {
        "setsid",
        "double fork",
        "nohup env -i",
        "reparenting",
        "fork bomb",
    }
    assert 2**fugitive.BOMB <= 64


def test_the_poller_kills_past_its_limit(tmp_path: Path) -> None:
    """It ends the tree with SIGKILL, and tells the peak that it saw."""
    peak = tmp_path / "peak"
    held = "held = b'x' * (64 << 20); import time; time.sleep(60)"
    own = ["--tick", "0.05", "--max", str(32 << 20), "--peak", str(peak)]
    words = [sys.executable, "-m", "bench.poller", *own, "--", sys.executable, "-c", held]

    done = subprocess.run(words, check=False, timeout=PATIENCE)

    assert done.returncode == 128 + 9
    assert int(peak.read_text()) >= 32 << 20


def test_nobody_holds_nothing() -> None:
    """A process that is gone is summed up to zero."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    watched = psutil.Process(process.pid)
    process.wait()

    assert summed_rss(watched) == (0, [watched]) or summed_rss(watched) == (0, [])
