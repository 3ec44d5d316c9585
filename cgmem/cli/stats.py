"""`cgmem stats`: how past subprocesses went, and thresholds that would fit them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import click

from cgmem.cli import options
from cgmem.cli.logs import log_dir_option, log_file, reader, since_option, since_when, tell_skipped
from cgmem.cli.output import age, print_json, print_table
from cgmem.errors import ConfigurationError
from cgmem.logs.history import Run, Summary, as_yaml, is_run, run_of, suggest, summarise
from cgmem.logs.memory_logs import STATS_FILE

_HEADINGS = ("WHAT", "RUNS", "ABORTED", "PEAK p50", "p95", "max", "TIME p50", "p95", "CAUSES")
_NUMBERS = _HEADINGS[1:-1]

EPILOG = """\b
Peaks are MB that can't be reclaimed.

\b
--suggest: the warning is the 95th percentile of the peaks plus the margin,
the hard limit twice that (more if one run needed it), critical halfway.

\b
Example:
  cgmem stats --since 7d --by agent-type --suggest > suggested.yaml

\b
Exit status:
  0  done   1  no run to tell of   2  wrong usage or trouble
"""


@click.command("stats", epilog=EPILOG)
@since_option
@click.option("--by", type=click.Choice(["agent-type", "id"]), help="A line for each.")
@click.option(
    "--suggest", "suggesting", is_flag=True, help="Print thresholds that would fit (not --by id)."
)
@click.option(
    "--margin",
    type=options.Number(0, 1000),
    default=25.0,
    show_default=True,
    metavar="PERCENT",
    help="How much a run may need beyond what was seen.",
)
@log_dir_option
@options.config_option
@options.json_option
def command(
    since: str | None,
    by: str | None,
    suggesting: bool,
    margin: float,
    log_dir: str | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Sum up the subprocesses that have ended and logged here."""
    if suggesting and by == "id":
        raise ConfigurationError(
            "--suggest is no use --by id: a configuration file has budgets by agent type",
            hint="cgmem stats --by agent-type --suggest",
        )
    after = since_when(since)
    found = reader(log_file(STATS_FILE, log_dir, config), is_run, log_dir)
    groups = defaultdict[str, list[Run]](list)
    for line in found.read():
        run = run_of(line)
        if run.at >= after:
            groups[_key(run, by)].append(run)
    tell_skipped(found.skipped)
    summaries = {name: summarise(groups[name]) for name in sorted(groups)}
    if as_json:
        print_json(_as_json(summaries, found.skipped, margin / 100))
    elif suggesting:
        _print_suggestions(summaries, margin / 100, by)
    else:
        print_table(_HEADINGS, [_row(*item) for item in summaries.items()], right=_NUMBERS)
    return 0 if summaries else 1


def _key(run: Run, by: str | None) -> str:
    if by is None:
        return "all"
    return run.agent_type if by == "agent-type" else run.subprocess_id


def _row(name: str, summary: Summary) -> tuple[str, ...]:
    causes = ", ".join(f"{cause} {count}" for cause, count in summary.causes.items())
    return (
        name,
        str(summary.runs),
        str(summary.aborted),
        *(f"{peak:.1f}" for peak in summary.peak_mb),
        *(age(seconds) for seconds in summary.duration_seconds[:2]),
        causes,
    )


def _print_suggestions(summaries: Mapping[str, Summary], margin: float, by: str | None) -> None:
    if by is not None and summaries:
        measured = any(summary.unseen < summary.runs for summary in summaries.values())
        print("agent_types:" if measured else "# agent_types:")  # a key without a value is refused
    for name, summary in summaries.items():
        indent = "" if by is None else "  "
        for remark in _remarks(summary):
            print(f"{indent}# {remark}")
        lines = as_yaml(suggest(summary, margin), None if by is None else name)
        # Nothing was measured: what follows from nothing is no suggestion.
        sign = "# " if summary.unseen == summary.runs else ""
        print("\n".join(f"{sign}{line}" for line in lines))


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _remarks(summary: Summary) -> list[str]:
    median, p95, most = summary.peak_mb
    remarks = [f"{_runs(summary.runs)}, peaks: p50 {median:.1f}, p95 {p95:.1f}, max {most:.1f} MB"]
    if summary.unseen:
        remarks.append(f"{summary.unseen} ended before the first look: their peak may be too low")
    if summary.cut_short:
        remarks.append(f"{summary.cut_short} ended at a limit and wanted more than their peak")
    return remarks


def _as_json(summaries: Mapping[str, Summary], skipped: int, margin: float) -> dict[str, Any]:
    return {
        "skipped_lines": skipped,
        "groups": {
            name: {
                **summary._asdict(),
                "peak_mb": dict(zip(("p50", "p95", "max"), summary.peak_mb, strict=True)),
                "duration_seconds": dict(
                    zip(("p50", "p95", "max"), summary.duration_seconds, strict=True)
                ),
                "suggestion": suggest(summary, margin)._asdict(),
            }
            for name, summary in summaries.items()
        },
    }
