"""Judge a guest's test report: only a run in which every test ran and passed is good."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counts:
    """What pytest's junit.xml says; an expected failure counts as skipped there."""

    tests: int
    failures: int
    errors: int
    skipped: int
    seconds: float

    @property
    def passed(self) -> int:
        """The tests that ran and passed."""
        return self.tests - self.failures - self.errors - self.skipped


def read_counts(report: Path) -> Counts | None:
    """Return the counts in a junit.xml; None when it is missing or no such report."""
    try:
        root = ET.parse(report).getroot()
        suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
        return Counts(
            tests=sum(int(suite.attrib["tests"]) for suite in suites),
            failures=sum(int(suite.attrib["failures"]) for suite in suites),
            errors=sum(int(suite.attrib["errors"]) for suite in suites),
            skipped=sum(int(suite.attrib["skipped"]) for suite in suites),
            seconds=sum(float(suite.attrib["time"]) for suite in suites),
        )
    except (OSError, ET.ParseError, KeyError, ValueError):
        return None


def complaint(counts: Counts | None, exit_code: int) -> str | None:
    """Return why a guest's tests are no success, None when they are.

    A skipped test is a failure: these guests exist so that nothing has to be skipped.
    """
    if counts is None:
        return f"pytest ended with {exit_code} and left no report"
    if counts.tests == 0:
        return "no tests ran"
    if counts.failures or counts.errors:
        return f"{counts.failures + counts.errors} of {counts.tests} tests failed"
    if counts.skipped:
        return f"{counts.skipped} of {counts.tests} tests were skipped"
    if exit_code:
        return f"pytest ended with {exit_code}"
    return None
