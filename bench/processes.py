"""What /proc tells of a process."""

from __future__ import annotations

import re
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def rss_mb(pid: int | str = "self") -> float:
    """Resident memory of a process, MB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


def cgroup(pid: int | str = "self") -> Path:
    """The directory of a process's cgroup, by the usual mount."""
    line = Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]
    return Path("/sys/fs/cgroup" + line.partition("::")[2])
