"""NamedTuple and Protocol without what `typing` does at run time.

What supervises defines some fifty records and half a dozen Protocols. `typing.NamedTuple` compiles
every field's annotation, which takes longer than starting Python, and `import typing` takes a
quarter of that start (docs/decisions/039). A type checker sees typing's own.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:

    class _Maker(type):
        """Makes what `typing.NamedTuple` would of a class, its annotations unread."""

        def __new__(
            cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
        ) -> type[tuple[Any, ...]]:
            # A KeyError from Python 3.14 on: the module lacks `from __future__ import annotations`.
            fields = list(namespace["__annotations__"])
            with_default = [field for field in fields if field in namespace]
            if with_default != fields[len(fields) - len(with_default) :]:
                raise TypeError(f"{name}: a field without a default follows one that has it")
            defaults = [namespace.pop(field) for field in with_default]
            made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for key, value in namespace.items():
                setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
    Protocol = object
