"""The spec's import names, `claude_pm.monitoring` and `claude_pm.utils.task_tool_helper`.

>>> import cgmem.claude_pm
>>> cgmem.claude_pm.install()
>>> from claude_pm.monitoring import get_memory_monitor

Where no `claude_pm` package is installed, cgmem answers for both modules. Where one is, the names
of `claude_pm.monitoring` that the spec has are ours, and everything else stays its own: its other
names, its helper, its submodules. `python -m cgmem.claude_pm` does it for a script, a module or
`-c` code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ROOT = "claude_pm"
_MONITORING = "claude_pm.monitoring"
_OURS: dict[str, str | None] = {
    _ROOT: None,
    _MONITORING: "cgmem.monitoring",
    "claude_pm.utils": None,
    "claude_pm.utils.task_tool_helper": "cgmem.task_tool",
}
"""What is answered for, and whose names it has; None for a package that only holds others."""


def install() -> None:
    """Answer imports of the spec's names from now on. Twice is as good as once.

    A `claude_pm.monitoring` that was imported before gets our names too; who had taken its old
    names out of it keeps those.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    loaded = sys.modules.get(_MONITORING)
    if loaded is not None:
        _overlay(loaded)


class _Finder(MetaPathFinder):
    """Looks first, so that an installed package's module can be overlaid."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _OURS:
            return None
        installed = _installed(fullname, path)
        if installed is not None:
            if fullname == _MONITORING and installed.loader is not None:
                installed.loader = _Overlay(installed.loader)
                return installed
            return None
        if fullname in (_ROOT, _MONITORING) or _is_ours(fullname.rpartition(".")[0]):
            return ModuleSpec(fullname, _Ours(), is_package=_OURS[fullname] is None)
        return None


class _Ours(Loader):
    """A module that there is nowhere else."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"{module.__name__}, answered by cgmem."
        home = _OURS[module.__name__]
        if home is not None:
            module.__dict__["__all__"] = _take_names(module, home)

    def get_code(self, fullname: str) -> None:
        """There is no code (runpy and inspect ask)."""


class _Overlay(Loader):
    """The installed module's own loader, and then our names."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        _overlay(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def _installed(fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What the import system finds without us. A bare directory of that name is no package."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if isinstance(finder, _Finder) or find is None:
            continue
        spec: ModuleSpec | None = find(fullname, path)
        if spec is not None and spec.loader is not None and spec.origin is not None:
            return spec
    return None


def _is_ours(package: str) -> bool:
    spec = getattr(sys.modules.get(package), "__spec__", None)
    return spec is not None and isinstance(spec.loader, _Ours)


def _overlay(module: ModuleType) -> None:
    names = _take_names(module, "cgmem.monitoring")
    # Without an `__all__`, `import *` takes every public name, the module's own too.
    if "__all__" in module.__dict__:
        module.__dict__["__all__"] = sorted({*module.__dict__["__all__"], *names})


def _take_names(module: ModuleType, home: str) -> list[str]:
    ours = import_module(home)
    names = sorted(ours.__all__)
    for name in names:
        setattr(module, name, getattr(ours, name))
    return names
