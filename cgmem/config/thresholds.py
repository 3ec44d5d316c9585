"""The three thresholds of a budget: which values may stand together, and what the unset ones are.

What nobody set follows what somebody set, from the hard limit downwards, in the spec's 1:2:4:

    set                        warning           critical              hard limit
    nothing                    1024 MB           2048 MB               4096 MB
    max                        max/4             max/2                 as set
    max = "max" (no limit)     1024 MB           2048 MB               none
    critical                   critical/2        as set, < 4096 MB     4096 MB
    critical, max              critical/2        as set, < max         as set
    warning                    as set, < 2048 MB 2048 MB               4096 MB
    warning, max               as set, < max     max/2, or if that is  as set
                                                 not above warning:
                                                 halfway to max
    warning, critical          as set            as set, < 4096 MB     4096 MB
    all three                  as set            as set                as set

Nothing raises a threshold that nobody set: `--critical 8G` alone is an error that says to set the
hard limit too. A hard limit larger than the machine is allowed.
"""

from __future__ import annotations

import operator

from cgmem.contract import MB, Thresholds
from cgmem.errors import ConfigurationError
from cgmem.shapes import NamedTuple
from cgmem.text.sizes import LARGEST_BYTES, format_size
from cgmem.text.words import shown

DEFAULT_WARNING_BYTES = 1024 * MB
DEFAULT_CRITICAL_BYTES = 2048 * MB
DEFAULT_MAX_BYTES = 4096 * MB
SMALLEST_MAX_BYTES = 8 * MB
"""Below this hardly any program can start."""
SMALLEST_THRESHOLD_BYTES = 4096
"""The kernel counts in pages: less is none."""

_INFINITY = float("inf")
_HOW_TO_SET = {
    "critical": "--critical SIZE, critical in the file, or CLAUDE_PM_MEMORY_CRITICAL_MB",
    "max": "--max SIZE, max in the file, or CLAUDE_PM_MEMORY_MAX_MB",
}
_CALLED = {
    "warning": "warning threshold",
    "critical": "critical threshold",
    "max": "hard limit",
    "family_max": "family budget",
    "group_max": "group budget",
}
_BUDGETS = ("max", "family_max", "group_max")


class Given(NamedTuple):
    """A threshold that somebody set: bytes (None = "max", no limit) and where it was set."""

    size: int | None
    source: str


class Derived(NamedTuple):
    """All three thresholds, and where each came from (keys: warning, critical, max)."""

    thresholds: Thresholds
    origins: dict[str, str]


_DEFAULT = Derived(
    Thresholds(DEFAULT_WARNING_BYTES, DEFAULT_CRITICAL_BYTES, DEFAULT_MAX_BYTES),
    {"warning": "default", "critical": "default", "max": "default"},
)


def derive(
    warning: Given | None = None, critical: Given | None = None, maximum: Given | None = None
) -> Derived:
    """Return all three thresholds from those that somebody set (None = nobody did).

    The module's table says how. `warning < critical < max` holds in every result, and values that
    were set come back unchanged. Raises `ConfigurationError`, which names the values and their
    sources.
    """
    if warning is None and critical is None and maximum is None:
        return _DEFAULT
    given = {"warning": warning, "critical": critical, "max": maximum}
    for name, value in given.items():
        if value is not None:
            check_size(name, value)
    _check_set_ones(given)
    limit = maximum or Given(DEFAULT_MAX_BYTES, "default")
    brake = critical or _critical(warning, maximum)
    _check_unset_above("critical", brake, "max", limit)
    alarm = warning or _warning(critical, maximum)
    _check_unset_above("warning", alarm, "critical", brake)
    return Derived(
        Thresholds(alarm.size, brake.size, limit.size),
        {"warning": alarm.source, "critical": brake.source, "max": limit.source},
    )


def _critical(warning: Given | None, maximum: Given | None) -> Given:
    if maximum is None or maximum.size is None:
        return Given(DEFAULT_CRITICAL_BYTES, "default")
    half = maximum.size // 2
    if warning is not None and warning.size is not None and warning.size >= half:
        return Given(
            (warning.size + maximum.size) // 2,
            f"derived from warning ({warning.source}) and max ({maximum.source})",
        )
    return Given(half, f"derived from max ({maximum.source})")


def _warning(critical: Given | None, maximum: Given | None) -> Given:
    if critical is not None and critical.size is not None:
        return Given(critical.size // 2, f"derived from critical ({critical.source})")
    if maximum is not None and maximum.size is not None:
        return Given(maximum.size // 4, f"derived from max ({maximum.source})")
    return Given(DEFAULT_WARNING_BYTES, "default")


def check_size(name: str, given: Given) -> None:
    """Refuse a threshold or a budget that nothing fits into. Raises `ConfigurationError`."""
    if given.size is None:
        if name in _BUDGETS:
            return
        raise ConfigurationError(
            f"{given.source}: the {_CALLED[name]} can't be max",
            hint="write a size, as 512M; only the hard limit and swap can be max",
        )
    least = SMALLEST_MAX_BYTES if name in _BUDGETS else SMALLEST_THRESHOLD_BYTES
    if given.size < least:
        raise ConfigurationError(
            f"{given.source}: a {_CALLED[name]} of {format_size(given.size)} is too small,"
            f" the least is {format_size(least)}",
            hint=f"write at least {format_size(least)}",
        )


def _check_set_ones(given: dict[str, Given | None]) -> None:
    for lower_name, higher_name in (
        ("warning", "critical"), ("critical", "max"), ("warning", "max"),
    ):  # fmt: skip
        lower, higher = given[lower_name], given[higher_name]
        if lower is None or higher is None or not _at_least(lower, higher):
            continue
        raise ConfigurationError(
            f"{_described(lower_name, lower)} is not below {_described(higher_name, higher)}",
            hint="thresholds must rise: warning < critical < hard limit",
        )


def _check_unset_above(lower_name: str, lower: Given, higher_name: str, higher: Given) -> None:
    if _at_least(lower, higher):
        # MemoryThresholds(critical_mb=…) is told the name of its own argument.
        own = lower.source == f"{lower_name}_mb"
        raise ConfigurationError(
            f"{_described(lower_name, lower)} is not below {_described(higher_name, higher)},"
            " which nobody set and nothing raises",
            hint=f"set the {_CALLED[higher_name]} too:"
            f" {f'{higher_name}_mb' if own else _HOW_TO_SET[higher_name]}",
        )


def _at_least(lower: Given, higher: Given) -> bool:
    return lower.size is not None and higher.size is not None and lower.size >= higher.size


def _described(name: str, given: Given) -> str:
    return f"the {_CALLED[name]} {format_size(given.size)} ({given.source})"


def larger_than_machine(thresholds: Thresholds, total_bytes: int) -> str | None:
    """Return a note for people if the hard limit can't be reached on a machine of `total_bytes`."""
    limit = thresholds.max_bytes
    if limit is None or limit <= total_bytes:
        return None
    return (
        f"the hard limit {format_size(limit)} is larger than this machine's memory"
        f" ({format_size(total_bytes)}): the machine runs out first"
    )


class MemoryThresholds:
    """The thresholds of one subprocess in MB (2**20 bytes), as in the spec. Immutable.

    A threshold that is left out follows the others (see the module's table). A `max_mb` of
    `float("inf")` means no hard limit. Raises `ConfigurationError`.
    """

    __slots__ = ("_given", "_thresholds")

    def __init__(
        self,
        warning_mb: float | None = None,
        critical_mb: float | None = None,
        max_mb: float | None = None,
    ) -> None:
        self._given = (
            given_mb("warning_mb", warning_mb),
            given_mb("critical_mb", critical_mb),
            given_mb("max_mb", max_mb),
        )
        self._thresholds = derive(*self._given).thresholds

    @property
    def warning_mb(self) -> float:
        """The warning threshold in MB."""
        return _as_mb(self._thresholds.warning_bytes)

    @property
    def critical_mb(self) -> float:
        """The critical threshold in MB."""
        return _as_mb(self._thresholds.critical_bytes)

    @property
    def max_mb(self) -> float:
        """The hard limit in MB; infinite where there is none."""
        return _as_mb(self._thresholds.max_bytes)

    def to_bytes(self) -> Thresholds:
        """Return the thresholds in bytes."""
        return self._thresholds

    def as_arguments(self) -> dict[str, str]:
        """Return only the thresholds that were set, as arguments for `config.settings.resolve`."""
        return {
            key: "max" if given.size is None else f"{given.size}B"
            for key, given in zip(("warning", "critical", "max"), self._given, strict=True)
            if given is not None
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryThresholds):
            return NotImplemented
        return self._thresholds == other._thresholds

    def __hash__(self) -> int:
        return hash(self._thresholds)

    def __repr__(self) -> str:
        return (
            f"MemoryThresholds(warning_mb={self.warning_mb}, critical_mb={self.critical_mb},"
            f" max_mb={self.max_mb})"
        )


def _as_mb(size: int | None) -> float:
    if size is None:
        return _INFINITY
    return size // MB if size % MB == 0 else size / MB


def given_mb(name: str, value: object) -> Given | None:
    """Return a threshold in MB as it was given under this name; None for None.

    One whose name ends in `max_mb` may be infinite. Raises `ConfigurationError`.
    """
    if value is None:
        return None
    number = _number(name, value)
    if name.endswith("max_mb") and number == _INFINITY:
        return Given(None, name)
    if not 0 < number <= LARGEST_BYTES / MB:
        raise ConfigurationError(
            f"{name}: {shown(value)} is not an amount of memory in MB",
            hint="write a number of MB above 0, as 512",
        )
    return Given(int(number * MB), name)


def _number(name: str, value: object) -> float:
    if isinstance(value, float):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # the TypeError is the answer
    except TypeError:
        raise ConfigurationError(
            f"{name}: {shown(value)} is a {type(value).__name__}, not a number of MB",
            hint="write a number of MB, as 512",
        ) from None
