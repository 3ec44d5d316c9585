"""Record what workloads do under a budget, as JSON lines a sample: python3 -m tests.kernel.record.

One file a workload, CASE.jsonl, in $CGMEM_GUEST_RESULTS (set in a guest), else here; tests/unit
replays those that are kept in tests/unit/series. The brake is held throughout, so that what each
policy would have done can be told from one recording.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.helpers.series import Series, kubelet, measurements, naive
from tests.kernel.recording import record
from tests.kernel.workloads import FULL, SHORT, WORKLOADS


def main() -> None:
    """Record the cases asked for, all of them by default."""
    parser = argparse.ArgumentParser(prog="record", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the small budget of the tests")
    parser.add_argument("--suffix", default="", help="of the files' names, as -psi-off")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(WORKLOADS))
    given = parser.parse_args()
    target = Path(os.environ.get("CGMEM_GUEST_RESULTS") or ".")
    for name in given.cases or WORKLOADS:
        with tempfile.TemporaryDirectory() as directory:
            made = record(name, SHORT if given.short else FULL, Path(directory), "hold")
        made.series.dump(target / f"{name}{given.suffix}.jsonl")
        sys.stdout.write(_summary(name, made.series))
        sys.stdout.flush()


def _summary(name: str, series: Series) -> str:
    row = measurements({name: series}).splitlines()[-1]
    return f"{row} naive {naive(series)}, kubelet {kubelet(series)}\n"


if __name__ == "__main__":
    main()
