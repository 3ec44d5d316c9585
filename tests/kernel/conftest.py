"""What several kernel tests need once: swap, recordings of workloads, the table made of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.series import Series, held_bytes, judged, kubelet, naive
from tests.kernel import real_cgroups as real
from tests.kernel.real_cgroups import IN_GUEST
from tests.kernel.real_systemd import RUNS
from tests.kernel.recording import Recording, record
from tests.kernel.workloads import LEAKS, WORKLOADS, Budget, has_psi, has_swap

# A guest without systemd runs test_systemd_probe.py, which holds what must be true there; a host
# may not have the ordinary user that the others start processes as.
collect_ignore_glob = [] if RUNS and IN_GUEST else ["test_systemd_[!p]*.py"]

SWAP_BYTES = 200 << 20

Recorded = Callable[[str, Budget], Recording]


@pytest.fixture(scope="session")
def swap() -> Iterator[None]:
    """Have swap on: the guest's own, or a file for as long as the tests run."""
    real.need_cgroup2()
    if has_swap():
        yield
        return
    real.need_root()
    file = Path("/var/tmp/cgmem-test-swap")
    file.touch(mode=0o600)
    subprocess.run(["fallocate", "-l", str(SWAP_BYTES), file], check=True)
    subprocess.run(["mkswap", file], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", file], check=True)
    try:
        yield
    finally:
        subprocess.run(["swapoff", file], check=True)
        file.unlink()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Run a workload under the default policy, or give what it did when it ran before.

    Small leaks run all at once: they wait at the brake. Honest work computes, and runs alone.
    """
    made: dict[tuple[str, Budget], Future[Recording]] = {}
    with ThreadPoolExecutor(len(LEAKS)) as pool:

        def once(name: str, budget: Budget) -> Recording:
            if (name, budget) not in made:
                together = LEAKS if name in LEAKS and not budget.full_size else (name,)
                for each in together:
                    place = tmp_path_factory.mktemp(each)
                    made[each, budget] = pool.submit(record, each, budget, place, policy(each))
            return made[name, budget].result()

        yield once
    write_results([future.result() for future in made.values() if not future.exception()])


def policy(name: str) -> str:
    """Return what to do about a stall. One that can't be told must not be waited for."""
    untold = name == "leak-beside-spin" and not has_psi()  # only an idle CPU tells without PSI
    return "hold" if untold else "release"


def write_results(recordings: list[Recording]) -> None:
    """Leave the recordings and the table of false alarms where the guest's results go."""
    results = os.environ.get("CGMEM_GUEST_RESULTS")
    # Five leaks that start at once: one may be over before its first look, beside all the others.
    recordings = [one for one in recordings if one.series.looks]
    if results is None or not recordings:
        return
    for series, _ in recordings:
        size = (series.thresholds.critical_bytes or 0) >> 20
        series.dump(Path(results) / f"{series.case}-{size}M.jsonl")
    (Path(results) / "false-alarms.md").write_text(table(recordings))


def table(recordings: list[Recording]) -> str:
    """Say what three rules make of the same samples, and what cgmem did about a stall."""
    lines = [
        "| case | brake | can't be reclaimed, at most | cgmem | memory.current > threshold"
        " | kubelet's working set > threshold |",
        "|---|---|---|---|---|---|",
    ]
    for series, outcome in recordings:
        stalls = [f"stall, {one['action']} at {one['at']:.0f} s" for one in outcome.stalls]
        cells = (
            WORKLOADS[series.case].title,
            f"{(series.thresholds.critical_bytes or 0) >> 20} MB",
            f"{max(held_bytes(look.sample) for look in series.looks) / 2**20:.0f} MB",
            ", ".join([judged_verdict(series), *stalls]),
            naive(series),
            kubelet(series),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def judged_verdict(series: Series) -> str:
    """Return the highest level of a series, and whether it thrashed."""
    found = judged(series)
    return ", ".join([found.level, *(found.kinds() & {"thrashing"})])
