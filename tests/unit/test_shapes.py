"""`cgmem.shapes`: at run time what typing's NamedTuple is, without typing."""

from __future__ import annotations

import copy
import pickle

import pytest

from cgmem.shapes import NamedTuple


class Box(NamedTuple):
    """A box."""

    width: int
    height: int | None = None
    """None: endless."""
    names: tuple[NoSuchName, ...] = ()  # type: ignore[name-defined]  # noqa: F821  (unread)

    @property
    def flat(self) -> bool:
        """No height to speak of."""
        return self.height == 0

    @classmethod
    def cube(cls, size: int) -> Box:
        """As high as wide."""
        return cls(size, size)


def test_a_record_is_a_named_tuple() -> None:
    """Fields in their order, defaults, methods and the documentation are the class's."""
    assert Box._fields == ("width", "height", "names")
    assert Box(1) == (1, None, ())
    assert Box.cube(2)._replace(height=0).flat
    assert Box(height=3, width=1)._asdict() == {"width": 1, "height": 3, "names": ()}
    assert Box.__doc__ == "A box."
    assert repr(Box(1, 2)) == "Box(width=1, height=2, names=())"


def test_a_record_is_found_again_by_its_name() -> None:
    """Copying and pickling go by module and name."""
    assert copy.deepcopy(Box(1)) == Box(1)
    assert pickle.loads(pickle.dumps(Box(1))) == Box(1)
    assert Box.__module__ == __name__


def test_a_field_without_a_default_comes_first() -> None:
    """As with typing's, a mistake shows when the class is made."""
    with pytest.raises(TypeError):

        class Wrong(NamedTuple):
            """One can't leave out what comes first."""

            width: int = 1
            height: int  # type: ignore[misc]
