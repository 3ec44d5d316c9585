"""Which scopes there are, by every backend. What is in them is `inspecting.live_scopes`'s."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from cgmem import selector
from cgmem.contract import Backend, Scope
from cgmem.errors import CgmemError, UnknownIdError, out_of_descriptors
from cgmem.text.words import shown


def listed(backend: Backend) -> list[Scope]:
    """A backend's scopes. Raises where only want of descriptors would make it a short list."""
    try:
        return list(backend.list_scopes())
    except (CgmemError, OSError) as error:
        if out_of_descriptors(error):
            raise
        return []  # a mechanism that can't work on this host has none


def each_scope() -> Generator[tuple[Backend, Scope], None, None]:
    """Every scope that is there, with its backend; each is detached when the next is asked for."""
    for backend in map(selector.load, selector.NAMES):
        waiting = listed(backend)
        try:
            while waiting:
                yield backend, waiting[0]
                waiting.pop(0).detach()
        finally:
            for scope in waiting:
                scope.detach()


def unknown(name: str, ids: Sequence[str]) -> UnknownIdError:
    """The error for an id that no live subprocess has; `ids` are those that there are."""
    hint = f"one of: {', '.join(ids)}" if ids else "cgmem ps  # none lives now"
    return UnknownIdError(f"no live subprocess has the id {shown(name)}", hint=hint)
