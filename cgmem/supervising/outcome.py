"""What is known of a subprocess once it has ended: the record that `--report` writes."""

from __future__ import annotations

from subprocess import CalledProcessError

from cgmem.contract import Cause, EffectiveLimits, MemoryEvents, SystemMemory
from cgmem.logs.lines import system_memory_mb
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Outcome(NamedTuple):
    """How one subprocess ended. Sizes in MB are 2**20 bytes with one decimal, as in the spec."""

    subprocess_id: str
    command: tuple[str, ...]
    pid: int | None
    backend: str
    cause: Cause
    exit_code: int | None
    """The main process's exit status; None when a signal ended it or it is unknown."""
    signal: int | None
    message: str
    """One sentence or two: what happened, the limit, the peak, what to do."""
    start_mb: float
    peak_mb: float
    end_mb: float
    peak_charged_mb: float | None
    """memory.peak, page cache included."""
    duration_seconds: float
    warnings: tuple[str, ...]
    aborted: bool
    """cgmem or the kernel ended it because of its own budget or time-out."""
    enforced: bool
    """The kernel held the hard limit."""
    limits: EffectiveLimits
    events: MemoryEvents
    counters_cached: bool
    """The scope was gone before its last read; the counters are older."""
    stalls: tuple[dict[str, Any], ...]
    """One entry a stall: `at` (seconds since the start), `seconds`, `action`."""
    leftovers: tuple[int, ...]
    """Processes that still lived in the scope when the main process had ended."""
    kept: bool
    """The leftovers were left running in their scope (`keep`), not killed."""
    metric: str
    system_memory: SystemMemory
    log_dir: str | None
    sigkill_needed: bool
    """cgmem ended it, and not by SIGTERM alone."""
    unobserved: bool = False
    """Nobody was there at its end; what is told is what its scope still knew later."""
    snapshot: dict[str, Any] | None = None
    """The last look at what filled the memory; `at` is seconds since the start."""
    agent_type: str | None = None
    started_at: float = 0.0
    """Seconds since the epoch."""
    supervisor_pid: int | None = None
    supervisor_start: int | None = None
    """Of the process that supervised it; its start time as in /proc/PID/stat."""
    stdout: Any = None
    """What `cgmem.run` captured, as subprocess.run."""
    stderr: Any = None

    @property
    def returncode(self) -> int | None:
        """As subprocess.Popen.returncode: negative for a signal."""
        return -self.signal if self.signal is not None else self.exit_code

    def check_returncode(self) -> None:
        """Raise subprocess.CalledProcessError unless the exit status is 0."""
        if self.returncode != 0:
            raise CalledProcessError(
                -1 if self.returncode is None else self.returncode,
                list(self.command),
                self.stdout,
                self.stderr,
            )

    def as_json(self) -> dict[str, Any]:
        """The outcome as JSON-able values, documented in docs/report.md."""
        fields = self._asdict()
        del fields["stdout"], fields["stderr"]
        fields["command"] = list(self.command)
        fields["limits"] = {
            "high_bytes": self.limits.high_bytes,
            "max_bytes": self.limits.max_bytes,
            "swap_max_bytes": self.limits.swap_max_bytes,
            "effective_max_bytes": self.limits.effective_max_bytes,
            "effective_max_source": self.limits.effective_max_source,
            "soft": self.limits.soft,
        }
        fields["events"] = self.events._asdict()
        fields["system_memory"] = system_memory_mb(self.system_memory)
        for key in ("warnings", "leftovers", "stalls"):
            fields[key] = list(fields[key])
        return fields
