"""Draw the pictures of the README from results: python3 -m bench.pictures NAME.json …

Needs matplotlib (cgmem[picture]). Writes NAME-QUESTION.svg beside each file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.report import COUNTED

OURS, THEIRS, BASE = "#1b7f5c", "#9aa5b1", "#4a5560"
NEVER = "never"
Record = dict[str, Any]


def main() -> None:
    """Draw what is there."""
    for path in map(Path, sys.argv[1:]):
        record = json.loads(path.read_text())
        for answer in record["answers"]:
            if answer["key"] in _DRAWN:
                target = path.parent / f"{path.stem}-{answer['key']}.svg"
                _DRAWN[answer["key"]](answer, record["machine"], target)
                print(target)


def _bars(metric: str, unit: str, scene: str | None, *, logarithmic: bool = False) -> Any:
    """A drawing of one scene: a bar for each contender, quartiles as a line, the number behind."""

    def draw(answer: Record, machine: dict[str, str], target: Path) -> None:
        rows = [row for row in answer["rows"] if scene is None or row["scene"] == scene]
        name = metric if metric in _metrics(answer) else COUNTED[metric]
        title = answer["title"] + (f" ({scene})" if scene else "")
        label = name if name != metric else unit
        _draw(title, label, _found(rows, name), machine, target, logarithmic)

    return draw


def _metrics(answer: Record) -> Sequence[str]:
    return [metric["name"] for metric in answer["metrics"]]


def _found(rows: Sequence[Record], metric: str) -> list[tuple[str, Record]]:
    return [(row["name"], row["values"][metric]) for row in rows if metric in row["values"]]


def _draw(
    title: str,
    label: str,
    found: Sequence[tuple[str, Record]],
    machine: dict[str, str],
    target: Path,
    logarithmic: bool,
) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "cgmem"  # the same numbers give the same file
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["text.parse_math"] = False  # a shell's $$ is none
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.36 * len(found)))
    known = [one["median"] for _, one in found if one["median"] is not None]
    longest = max(known, default=1.0) or 1.0
    for place, (name, one) in enumerate(reversed(found)):
        endless = one["median"] is None
        length = 1.2 * longest if endless else one["median"]
        axes.barh(place, length, color=_color(name), height=0.66, hatch="//" if endless else "")
        if not endless and None not in (one["low"], one["high"]):
            axes.plot((one["low"], one["high"]), (place, place), color="black", linewidth=1)
        text = NEVER if endless else _number(length)
        axes.annotate(f" {text}", (max(length, one["high"] or 0), place), va="center", fontsize=9)
    axes.set_yticks(range(len(found)), [name for name, _ in reversed(found)], fontsize=9)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(0, longest * 1.4)
    axes.set_xlabel(f"{label}\n{machine['system']}; {machine['processor']}", fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _color(name: str) -> str:
    if "cgmem" in name:
        return OURS
    return BASE if name.startswith(("subprocess.Popen", "python3", "two preads")) else THEIRS


_DRAWN: dict[str, Callable[[Record, dict[str, str], Path], None]] = {
    "spawn": _bars("ms", "ms", "small parent, 1 thread", logarithmic=True),
    "command": _bars("ms", "ms", None),
    "overshoot": _bars("MB past the limit", "MB past the limit", "1 process, full speed"),
    "stall": _bars("seconds above critical", "seconds above critical", None),
    "peaks": _bars("peak seen, MB", "MB seen, of 300", None),
    "footprint": _bars("CPU, %", "CPU, % of one processor", "100 idle", logarithmic=True),
}

if __name__ == "__main__":
    main()
