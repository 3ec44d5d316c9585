"""A series as a picture file, by matplotlib (an extra)."""

from __future__ import annotations

from typing import Any

from cgmem.errors import CgmemError, ConfigurationError
from cgmem.inspecting.recorded import Series

_COLOURS = {"warning": "tab:orange", "critical": "tab:red", "max": "black"}


def draw(series: Series, path: str) -> None:
    """Write the picture. Raises `CgmemError` without matplotlib, `ConfigurationError`, OSError."""
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
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:  # a format that it doesn't know
        raise ConfigurationError(f"--output: {error}", hint="name it .png, .svg or .pdf") from error


def _matplotlib() -> Any:
    try:
        # Not pyplot: that would look for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CgmemError(
            "a picture needs matplotlib", hint="pip install 'cgmem[picture]', or --json"
        ) from error
    return Figure
