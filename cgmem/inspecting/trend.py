"""How a number moved in the last minutes: growth, and a sparkline. Pure; time is the caller's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

KEPT_SECONDS = 300.0
"""What a sparkline shows at most."""
GROWTH_SECONDS = 60.0
"""Growth is that of the last minute, or of less where less was seen."""

_BLOCKS = "▁▂▃▄▅▆▇█"


class Trend:
    """Looks at several things by name."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def note(self, at: float, sizes: Iterable[tuple[str, int]]) -> None:
        """Take one look at all of them; `at` is monotonic seconds. Who is missing is forgotten."""
        seen: dict[str, deque[tuple[float, int]]] = {}
        for name, size in sizes:
            looks = seen[name] = self._seen.get(name) or deque()
            looks.append((at, size))
            while looks[0][0] < at - KEPT_SECONDS:
                looks.popleft()
        self._seen = seen

    def per_minute(self, name: str) -> float | None:
        """Growth in bytes a minute; None before the second look."""
        looks = self._seen.get(name)
        if looks is None:
            return None
        last_at, last = looks[-1]
        first_at, first = next(look for look in looks if look[0] >= last_at - GROWTH_SECONDS)
        if last_at <= first_at:
            return None
        return (last - first) * 60 / (last_at - first_at)

    def sizes(self, name: str) -> list[int]:
        """What was seen, the oldest first."""
        return [size for _, size in self._seen.get(name, ())]


def sparkline(sizes: Sequence[int], width: int, top: int | None = None) -> str:
    """Draw sizes in at most `width` characters, from 0 to `top` (default: the largest of them)."""
    if not sizes:
        return ""
    count = min(width, len(sizes))
    bounds = [index * len(sizes) // count for index in range(count + 1)]
    highest = max(1, top or max(sizes))
    last = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[min(last, max(sizes[start:end]) * last // highest)]
        for start, end in pairwise(bounds)
    )


def bar(share: float, width: int) -> str:
    """Draw a share (0 to 1, more is full) as a bar of `width` characters."""
    eighths = min(width * 8, max(0, round(share * width * 8)))
    whole, part = divmod(eighths, 8)
    drawn = "█" * whole + (" ▏▎▍▌▋▊▉"[part] if part else "")
    return drawn.ljust(width, "·")
