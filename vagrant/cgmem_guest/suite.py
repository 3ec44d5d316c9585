"""The test command: the project's kernel and contract tests in every guest, and one verdict."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from .errors import GuestError
from .image import ensure_images
from .junit import Counts, complaint, read_counts
from .qemu import choose_accelerator
from .recipe import GUESTS
from .report import say
from .run import Finished, Job, run_job

TESTED_GUESTS = ("debian13", "debian12", "plain")
#: One guest for each kernel: what has to do with neither systemd's presence nor absence.
KERNELS = ("debian13", "debian12")
SWAPS = (None, "400M")
HUGE_PAGES = ("always", "never")

KERNEL_AND_CONTRACT = ("tests/kernel", "tests/contract")
#: plain has debian13's kernel, libc and Python: what a child gets is the same there.
WITHOUT_PARITY = ("tests/kernel", "tests/contract/test_backend_contract.py")
STALLS = ("tests/kernel/test_stall_cases.py",)
#: Half a minute and more each, and little in them that a kernel could change: with the newer kernel
#: and systemd only, but for the matrix.
WITHOUT_THE_SLOWEST = (
    *KERNEL_AND_CONTRACT,
    *(
        f"--ignore=tests/kernel/test_{name}.py"
        for name in (
            "systemd_family",
            "false_alarms",
            "remains",
            "trace",
            "cgroup2_orders",
            "nested",
            "chaos",
        )
    ),
)
#: What swap, huge pages or PSI can make a difference to.
VARYING = tuple(
    f"tests/kernel/test_{name}.py"
    for name in (
        "stall_cases",
        "false_alarms",
        "ends_abort",
        "ends_command",
        "ends_outside",
        "cgroup2_oom",
        "cgroup2_swap",
        "cgroup2_snapshot",
        "guard",
    )
)

#: Markers. The full-size variants take minutes each; what comes out alike in every guest has run
#: on this host. The matrix has both, in one boot.
SLOW_OR_SEEN = ("long", "alike")


class Case(NamedTuple):
    """One boot, what it tests, and the markers of what it leaves out."""

    guest: str
    swap: str | None
    thp: str
    psi: bool = True
    tests: tuple[str, ...] = KERNEL_AND_CONTRACT
    without: tuple[str, ...] = SLOW_OR_SEEN


#: Every two values of kernel (6.12, 6.1), swap, huge pages and PSI meet in a boot; the last two
#: are there for that alone, and for the tests that it matters to. The whole product is --matrix's.
PAIRWISE = (
    Case("debian13", None, "always"),
    Case("debian12", "400M", "never", tests=WITHOUT_THE_SLOWEST),
    Case("plain", None, "never", psi=False, tests=WITHOUT_PARITY),
    Case("debian12", None, "always", psi=False, tests=STALLS),
    Case("debian13", "400M", "always", psi=False, tests=STALLS),
)

#: The same three guests; the first leaves nothing out, the second what takes minutes.
EACH_GUEST = (
    PAIRWISE[0]._replace(without=()),
    PAIRWISE[1]._replace(tests=KERNEL_AND_CONTRACT, without=("long",)),
    PAIRWISE[2],
)

PYTEST = (
    *("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
    "--junitxml=/job/results/junit.xml",
)


@dataclass(frozen=True)
class Verdict:
    """How one guest's tests went; `complaint` is None when all is well."""

    label: str
    counts: Counts | None
    finished: Finished | None
    complaint: str | None

    def line(self) -> str:
        """Return the guest's summary line."""
        parts = [f"{self.label}: {'FAILED, ' + self.complaint if self.complaint else 'ok'}"]
        if self.counts:
            parts.append(
                f"{self.counts.tests} tests, {self.counts.failures + self.counts.errors} failures, "
                f"{self.counts.skipped} skipped in {self.counts.seconds:.0f} s"
            )
        if self.finished:
            parts.append(
                f"{self.finished.kernel}, {self.finished.python}, "
                f"{self.finished.total_seconds:.0f} s in all ({self.finished.accelerator})"
            )
        return "; ".join(parts)


def cases(matrix: bool) -> list[Case]:
    """Return every boot to make; the longest come first."""
    if not matrix:
        return list(PAIRWISE)
    booted = {case[:4] for case in EACH_GUEST}
    product = (
        Case(*options, tests=VARYING)
        for options in itertools.product(KERNELS, SWAPS, HUGE_PAGES, (True, False))
    )
    return [*EACH_GUEST, *(case for case in product if case[:4] not in booted)]


def label(case: Case) -> str:
    """Return a name for a case that is also good as a folder's."""
    psi = "" if case.psi else "-psi-off"
    return f"{case.guest}-swap-{case.swap or 'none'}-thp-{case.thp}{psi}"


def command_of(case: Case, more: Sequence[str]) -> list[str]:
    """Return what runs in the guest; `more` are pytest's arguments from the command line."""
    chosen = " and ".join(f"not {marker}" for marker in case.without)
    return [*PYTEST, *case.tests, *(("-m", chosen) if chosen else ()), *more]


def run_suite(template: Job, matrix: bool, parallel: int, results: Path) -> bool:
    """Run the tests in every guest, print the verdicts, and return whether all are good.

    `template` gives tree, hardware, time-out and what to add to pytest's arguments. Guests that
    run when Ctrl-C comes are stopped before KeyboardInterrupt goes on.
    """
    began = time.monotonic()
    todo = cases(matrix)
    images = ensure_images(sorted({case.guest for case in todo}))
    template = replace(template, accelerator=choose_accelerator(images[0]))
    stop = threading.Event()
    with ThreadPoolExecutor(parallel) as pool:
        running = [
            pool.submit(_run_case, job_of(template, case), label(case), results, stop)
            for case in todo
        ]
        try:
            verdicts = [future.result() for future in running]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    _print_summary(verdicts, time.monotonic() - began, results)
    return not any(verdict.complaint for verdict in verdicts)


def job_of(template: Job, case: Case) -> Job:
    """Return the job that tests one case."""
    return replace(
        template,
        guest=GUESTS[case.guest],
        swap=case.swap,
        thp=case.thp,
        cmdline="" if case.psi else "psi=0",
        command=command_of(case, template.command),
    )


def _run_case(job: Job, name: str, results: Path, stop: threading.Event) -> Verdict:
    folder = results / name
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "junit.xml"
    report.unlink(missing_ok=True)  # an older run's report must not speak for this one
    say(f"{name}: booting")
    try:
        finished = run_job(replace(job, results=folder), LinePrinter(job.guest.name), stop)
    except GuestError as err:
        say(f"{name}: {err}")
        return Verdict(name, None, None, str(err).splitlines()[0])
    counts = read_counts(report)
    return Verdict(name, counts, finished, complaint(counts, finished.exit_code))


class LinePrinter:
    """Prints a guest's output as whole lines under its name, so that two guests can share."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def __call__(self, output: bytes) -> None:
        """Print the lines that `output` completes; keep the rest. b"" prints that, too."""
        lines = (self._rest + output.replace(b"\r", b"")).split(b"\n")
        self._rest = lines.pop()
        if not output and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            print(f"{self._name} | {line.decode(errors='replace')}")
        sys.stdout.flush()


def _print_summary(verdicts: Sequence[Verdict], seconds: float, results: Path) -> None:
    print()
    for verdict in verdicts:
        print(verdict.line())
    print(f"reports: {results}; {len(verdicts)} guests in {seconds:.0f} s")
    print(totals(verdicts), flush=True)


def totals(verdicts: Sequence[Verdict]) -> str:
    """Return the last line; a guest that failed with no failing test to show counts as one."""
    counted = [verdict.counts for verdict in verdicts if verdict.counts]
    silent = sum(
        1
        for verdict in verdicts
        if verdict.complaint and not (verdict.counts and _has_culprit(verdict.counts))
    )
    passed = sum(counts.passed for counts in counted)
    failed = sum(counts.failures + counts.errors for counts in counted) + silent
    skipped = sum(counts.skipped for counts in counted)
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def _has_culprit(counts: Counts) -> bool:
    return bool(counts.failures or counts.errors or counts.skipped)
