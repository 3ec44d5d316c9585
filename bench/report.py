"""The tables as Markdown and JSON, and the facts about the machine that stand above them."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import Metric, Question, Row, Spread

COUNTED = {
    "ms": "M instructions",
    "µs": "k instructions",
    "CPU, %": "CPU, % of 1 G instructions a second",
}
"""What times are where the guest's clock counts instructions (cgmem_guest run --count)."""
_DISTRIBUTIONS = ("cgmem", "psutil", "benchexec", "con-duct", "psrecord")
_PROGRAMS = {
    "systemd": ["systemctl", "--version"],
    "earlyoom": ["earlyoom", "-v"],
    "gcc": ["gcc", "--version"],
    "git": ["git", "--version"],
    "node": ["node", "--version"],
}


class Answer(NamedTuple):
    """One question, answered."""

    key: str
    title: str
    about: str
    rounds: int
    metrics: Sequence[Metric]
    rows: Sequence[Row]


def answered(question: Question, rows: Iterable[Row], rounds: int, *, counted: bool) -> Answer:
    """Put rows under their question; `counted`: a nanosecond was one instruction."""
    metrics = list(question.metrics)
    rows = list(rows)
    if counted:
        metrics = [one._replace(name=COUNTED.get(one.name, one.name)) for one in metrics]
        rows = [
            row._replace(
                values={COUNTED.get(key, key): value for key, value in row.values.items()},
                ratios={COUNTED.get(key, key): value for key, value in row.ratios.items()},
            )
            for row in rows
        ]
    return Answer(question.key, question.title, question.about, rounds, metrics, rows)


def as_markdown(answer: Answer) -> str:
    """The table for people."""
    scenes = len({row.scene for row in answer.rows}) > 1
    notes = any(row.note for row in answer.rows)
    columns = ["case"] * scenes + [""]
    for metric in answer.metrics:
        columns += [metric.name, *(["ratio"] if metric.ratio else [])]
    columns += ["note"] * notes
    lines = [f"### {answer.title}", ""]
    if answer.about:
        lines += [answer.about, ""]
    lines += [f"{answer.rounds} rounds; medians (quartiles).", "", _line(columns)]
    lines.append(_line("---" for _ in columns))
    for row in answer.rows:
        cells = [row.scene] * scenes + [row.name]
        for metric in answer.metrics:
            cells.append(_cell(row.values.get(metric.name), metric.digits))
            if metric.ratio:
                cells.append(_cell(row.ratios.get(metric.name), 2))
        lines.append(_line(cells + [_escaped(row.note)] * notes))
    return "\n".join([*lines, ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _cell(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ""
    median, low, high = (_figure(value, digits) for value in spread)
    return median if low == high else f"{median} ({low} to {high})"


def _figure(value: float, digits: int) -> str:
    return "never" if math.isinf(value) else f"{value:.{digits}f}"


def machine() -> dict[str, str]:
    """What a reader needs to know to compare: kernel, processor, versions."""
    facts = {
        "system": f"{_os_name()}, Linux {platform.release()} {platform.machine()}",
        "processor": f"{os.cpu_count()} x {_cpu_model()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GB",
        "Python": f"{platform.python_version()}, {' '.join(platform.libc_ver())}",
    }
    versions = [f"{name} {version}" for name, version in _versions()]
    return {**facts, "versions": ", ".join(versions)}


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown model"


def _versions() -> Iterable[tuple[str, str]]:
    for name in _DISTRIBUTIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            words = (done.stdout + done.stderr).split("\n")[0].split()
            found = next((word for word in words if word.strip("v(")[:1].isdigit()), "?")
            yield name, found.strip("()")


def write(directory: Path, name: str, facts: dict[str, str], answers: Sequence[Answer]) -> None:
    """Leave NAME.md and NAME.json in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    head = "".join(f"- {key}: {value}\n" for key, value in facts.items())
    tables = "\n".join(as_markdown(answer) for answer in answers)
    (directory / f"{name}.md").write_text(f"{head}\n{tables}")
    record = {"machine": facts, "answers": [_record(answer) for answer in answers]}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (directory / f"{name}.json").write_text(text + "\n")


def _record(answer: Answer) -> dict[str, Any]:
    return {
        **answer._asdict(),
        "metrics": [metric._asdict() for metric in answer.metrics],
        "rows": [
            {
                **row._asdict(),
                "values": {key: _plain(value) for key, value in row.values.items()},
                "ratios": {key: _plain(value) for key, value in row.ratios.items()},
            }
            for row in answer.rows
        ],
    }


def _plain(spread: Spread) -> dict[str, float | None]:
    """JSON has no infinity: null is "never"."""
    named = spread._asdict()
    return {key: None if math.isinf(one) else round(one, 4) for key, one in named.items()}
