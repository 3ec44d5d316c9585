"""A series as a picture file, by matplotlib (an extra)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cgmem.errors import CgmemError, ConfigurationError
from cgmem.inspecting.recorded import Series
from cgmem.text.words import shown

_COLOURS = {"warning": "tab:orange", "critical": "tab:red", "max": "black"}


_FORMATS = (".png", ".svg", ".pdf")


def check(output: str) -> None:
    """Raise `ConfigurationError` where no picture can come, `CgmemError` without matplotlib."""
    path = Path(output)
    if path.suffix.lower() not in _FORMATS:
        raise ConfigurationError(
            f"--output: {shown(output)} ends in none of {', '.join(_FORMATS)}",
            hint=f"name the format: {', '.join(f'memory{suffix}' for suffix in _FORMATS)}",
        )
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"--output: {shown(output)}: there is no such directory",
            hint=f"mkdir -p {shlex.quote(str(path.parent))}",
        )
    _matplotlib()


def draw(series: Series, path: str) -> None:
    """Write the picture to what `check` let pass. Raises `CgmemError`, OSError."""
    figure_class = _matplotlib()
    figure = figure_class(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    times = [point.t for point in series.points]
    axes.plot(times, [point.current_mb for point in series.points], color="0.8", label="with cache")
    axes.plot(times, [point.judged_mb for point in series.points], label="can't be reclaimed")
    for name, colour in _COLOURS.items():
        # As they were at each moment: `cgmem set` may have changed them.
        heights = [getattr(point, f"{name}_mb") for point in series.points]
        if any(height is not None for height in heights):
            axes.step(times, heights, where="post", color=colour, ls="--", lw=1, label=name)
    for told in series.alerts:
        axes.axvline(told.t, color=_COLOURS.get(told.level.lower(), "0.5"), alpha=0.4, lw=1)
    axes.set(xlabel="seconds", ylabel="MB", title=series.name, ylim=(0, None))
    axes.legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=120)


def _matplotlib() -> Any:
    try:
        # Not pyplot: that would look for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CgmemError(
            "a picture needs matplotlib", hint="pip install 'cgmem[picture]', or --json"
        ) from error
    return Figure
