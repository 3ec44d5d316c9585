"""What counts as a good test run in the guests."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cgmem_guest.junit import Counts, complaint, read_counts
from cgmem_guest.recipe import GUESTS
from cgmem_guest.run import Job
from cgmem_guest.suite import (
    TESTED_GUESTS,
    VARYING,
    Case,
    Verdict,
    cases,
    job_of,
    label,
    totals,
)

REPORT = (
    '<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="1" '
    'failures="2" skipped="3" tests="10" time="1.500"></testsuite></testsuites>'
)
GOOD = Counts(tests=3, failures=0, errors=0, skipped=0, seconds=1.0)


def test_report_is_read(tmp_path: Path) -> None:
    """The counts are those of pytest's report."""
    report = tmp_path / "junit.xml"
    report.write_text(REPORT)

    assert read_counts(report) == Counts(10, 2, 1, 3, 1.5)


@pytest.mark.parametrize(
    "text", [None, "", "<testsuites>", "<testsuites><testsuite/></testsuites>"]
)
def test_no_report_is_no_counts(tmp_path: Path, text: str | None) -> None:
    """A missing, cut-off or empty report has no counts."""
    report = tmp_path / "junit.xml"
    if text is not None:
        report.write_text(text)

    assert read_counts(report) is None


def test_all_passed_is_good() -> None:
    """Tests that all ran and passed, and a pytest that ended with 0, are no complaint."""
    assert complaint(GOOD, 0) is None


@pytest.mark.parametrize(
    ("counts", "exit_code", "words"),
    [
        (None, 0, "no report"),
        (Counts(0, 0, 0, 0, 0.0), 5, "no tests ran"),
        (Counts(0, 0, 0, 0, 0.0), 0, "no tests ran"),
        (Counts(3, 1, 0, 0, 1.0), 1, "1 of 3 tests failed"),
        (Counts(3, 0, 1, 0, 1.0), 1, "1 of 3 tests failed"),
        (Counts(3, 0, 0, 1, 1.0), 0, "1 of 3 tests were skipped"),
        (GOOD, 3, "ended with 3"),
    ],
)
def test_anything_else_fails(counts: Counts | None, exit_code: int, words: str) -> None:
    """No report, no tests, a failure, an error, a skip or a bad exit status fail the guest."""
    assert words in (complaint(counts, exit_code) or "")


def test_totals_count_a_silent_guest_as_failed() -> None:
    """A guest that did not boot shows as a failure in the last line."""
    verdicts = [
        Verdict("a", GOOD, None, None),
        Verdict("b", None, None, "the guest returned no result"),
        Verdict("c", Counts(4, 1, 0, 1, 1.0), None, "1 of 4 tests failed"),
    ]

    assert totals(verdicts) == "5 passed, 2 failed, 1 skipped"


def test_summary_line_says_what_is_wrong() -> None:
    """A guest's line names it and its complaint."""
    line = Verdict("plain", Counts(3, 0, 0, 1, 1.0), None, "1 of 3 tests were skipped").line()

    assert line.startswith("plain: FAILED, 1 of 3 tests were skipped; 3 tests, 0 failures, 1 skip")


def test_few_cases_are_pairwise() -> None:
    """Each guest runs all kernel tests; every two values of two options meet in a boot."""
    few = cases(matrix=False)
    seen = {(GUESTS[case.guest].release, case.swap, case.thp, case.psi) for case in few}

    assert {case.guest for case in few if "tests/kernel" in case.tests} == set(TESTED_GUESTS)
    values = [sorted({str(row[column]) for row in seen}) for column in range(4)]
    for one, other in itertools.combinations(range(4), 2):
        met = {(str(row[one]), str(row[other])) for row in seen}
        assert met == set(itertools.product(values[one], values[other]))


def test_the_matrix_is_the_whole_product() -> None:
    """With --matrix each kernel boots with every combination, and no two boots are the same."""
    every = cases(matrix=True)
    seen = [(GUESTS[case.guest].release, case.swap, case.thp, case.psi) for case in every]

    assert len(set(seen)) == 2 * 2 * 2 * 2
    assert {case[:4] for case in cases(matrix=False)} <= {case[:4] for case in every}
    assert len({label(case) for case in every}) == len(every)


def test_the_matrix_leaves_nothing_out() -> None:
    """Each guest boots with all kernel tests once; the rest is what the options matter to."""
    every = cases(matrix=True)
    whole = [case for case in every if case.tests != VARYING]

    assert [case.guest for case in whole] == list(TESTED_GUESTS)
    assert all("tests/kernel" in case.tests for case in whole)
    assert () in {case.without for case in whole}


def test_what_varies_is_there() -> None:
    """The files that the matrix names are the project's."""
    root = Path(__file__).parents[2]

    assert all((root / name).is_file() for name in VARYING)


def test_a_case_becomes_a_command(tmp_path: Path) -> None:
    """Markers are deselected; psi=0 goes to the kernel; the caller's arguments come last."""
    case = Case("plain", None, "never", psi=False, tests=("tests/kernel/test_x.py",))
    template = Job(GUESTS["debian13"], ["-k", "leak"], tmp_path)

    short, shorter, all_of_it = (
        job_of(template, case._replace(without=markers))
        for markers in (("long",), ("long", "alike"), ())
    )

    assert list(short.command[-5:]) == ["tests/kernel/test_x.py", "-m", "not long", "-k", "leak"]
    assert "not long and not alike" in shorter.command
    assert list(all_of_it.command[-3:]) == ["tests/kernel/test_x.py", "-k", "leak"]
    assert (short.guest.name, short.cmdline, short.thp) == ("plain", "psi=0", "never")
