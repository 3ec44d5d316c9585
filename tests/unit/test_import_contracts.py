"""The import contracts in pyproject.toml know every module."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPEN_TO_THEM = {"cgmem.contract", "cgmem.errors", "cgmem.shapes"}


def test_mechanisms_are_kept_from_every_module() -> None:
    """What is new in `cgmem` is closed to the backends, unless both are made of it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = {contract["name"]: contract for contract in contracts["contracts"]}
    modules = {
        f"cgmem.{path.stem}"
        for path in (ROOT / "cgmem").iterdir()
        if not path.name.startswith("__") and (path.suffix == ".py" or path.is_dir())
    }
    mechanisms = named["mechanisms know the contract, errors and shapes alone"]

    assert set(mechanisms["forbidden_modules"]) == modules - OPEN_TO_THEM
