"""What several kernel tests need once: swap, recordings of workloads, the table made of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.series import Series, judged, kubelet, naive
from tests.kernel import real_cgroups as real
from tests.kernel.recording import Recording, record
from tests.kernel.workloads import WORKLOADS, Budget, has_swap

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
    """Run a workload under the default policy, or give what it did when it ran before."""
    made: dict[tuple[str, Budget], Recording] = {}

    def once(name: str, budget: Budget) -> Recording:
        if (name, budget) not in made:
            made[name, budget] = record(name, budget, tmp_path_factory.mktemp(name))
        return made[name, budget]

    yield once
    write_results([one.series for one in made.values()])


def write_results(all_series: list[Series]) -> None:
    """Leave the recordings and the table of false alarms where the guest's results go."""
    results = os.environ.get("CGMEM_GUEST_RESULTS")
    if results is None or not all_series:
        return
    for series in all_series:
        size = (series.thresholds.critical_bytes or 0) >> 20
        series.dump(Path(results) / f"{series.case}-{size}M.jsonl")
    (Path(results) / "false-alarms.md").write_text(table(all_series))


def table(all_series: list[Series]) -> str:
    """Say what three rules make of the same samples."""
    lines = [
        "| case | brake | highest can't be reclaimed | cgmem | memory.current > threshold"
        " | kubelet's working set > threshold |",
        "|---|---|---|---|---|---|",
    ]
    for series in all_series:
        high = (series.thresholds.critical_bytes or 0) >> 20
        held = max(
            look.sample.current_bytes - (look.sample.reclaimable_bytes or 0)
            for look in series.looks
        )
        found = judged(series)
        more = [kind for kind in ("stall", "thrashing") if kind in found.kinds()]
        cells = (
            WORKLOADS[series.case].title,
            f"{high} MB",
            f"{held / 2**20:.0f} MB",
            ", ".join([found.level, *more]),
            naive(series),
            kubelet(series),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
