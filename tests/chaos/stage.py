"""Where the chaos happens: a delegated cgroup, log directories, the supervisors' processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cgmem_backends.remains import YOUNG_SECONDS
from tests.chaos.ledger import Ledger, Marked
from tests.chaos.plan import MARK
from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real

LEAF = "cgmem-supervisor"
ENTER = 'echo $$ > "$0" && exec "$@"'


class Running:
    """A supervisor in a process of its own; what it says goes to the ledger as it comes."""

    def __init__(self, procs: Path, ledger: Ledger, words: list[str]) -> None:
        command = [sys.executable, "-m", "tests.chaos.supervisor", *words]
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", ENTER, str(procs), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=real.environment(),
        )
        self.began = threading.Event()
        """It has started a subprocess, or has ended."""
        self._listener = threading.Thread(target=self._listen, args=(ledger,))
        self._listener.start()

    def _listen(self, ledger: Ledger) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            ledger.heard(said)
            if "started" in said:
                self.began.set()
        self.began.set()

    def sigkill(self) -> None:
        """Kill it, between any two of its instructions."""
        self.process.send_signal(signal.SIGKILL)
        self.finish(10)

    def finish(self, seconds: float = 180) -> int:
        """Wait for its end; one that hangs is killed, and its status tells."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._listener.join()
            if self.process.stdout is not None:
                self.process.stdout.close()


class Stage:
    """A cgroup that is ours to divide, and two log directories, one on a disk that can be full."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.logs = home / "logs"
        self.disk = home / "disk"
        self._delegated = real.stage()

    def __enter__(self) -> Stage:
        self.base = self._delegated.__enter__()
        # Where supervisors are once one has divided the cgroup: two that start at once would be
        # strangers to each other.
        (self.base / LEAF).mkdir(exist_ok=True)
        self.logs.mkdir()
        self.disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(self.disk)], check=True
        )
        return self

    def __exit__(self, *error: Any) -> None:
        subprocess.run(["umount", str(self.disk)], check=True)
        self._delegated.__exit__(*error)

    def supervise(
        self, ledger: Ledger, seed: str, count: int, log_dir: Path, *more: str
    ) -> Running:
        """Start a supervisor in the stage, beside those that are there."""
        procs = self.base / LEAF / "cgroup.procs"
        return Running(procs, ledger, [seed, str(count), str(log_dir), *more])

    def scopes(self) -> list[Path]:
        """The scopes' directories."""
        found = (path for path in self.base.glob("cgmem-*") if path.name != LEAF)
        return sorted(path for path in found if not path.name.startswith("cgmem-guard"))

    def clean_up(self, ledger: Ledger) -> None:
        """End what was left running, as a person would, and let `cgmem gc` do the rest.

        A cgroup that was made ahead has no record, and is left alone for a minute: it passes.
        """
        for scope in self.scopes():
            with suppress(OSError):  # it has gone by itself
                (scope / "cgroup.kill").write_text("1")
                made = scope.stat().st_mtime
                os.utime(scope, (made, made - YOUNG_SECONDS))
        deadline = time.monotonic() + PATIENCE
        while self.scopes() and time.monotonic() < deadline:
            done = subprocess.run(
                [sys.executable, "-m", "cgmem", "gc", "--json"],
                env=real.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            ledger.collected(done.returncode, done.stdout, done.stderr)
            time.sleep(1)


def marked() -> Iterator[Marked]:
    """Find every living process of the test, wherever it went."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "environ").read_bytes().split(b"\0")
            cgroup = real.cgroup_of(int(directory.name))
        except (OSError, StopIteration):
            continue
        for word in words:
            name, _, value = word.partition(b"=")
            if name == MARK.encode() and running(int(directory.name)):
                yield int(directory.name), os.fsdecode(value), cgroup
