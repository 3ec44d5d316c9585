"""The import contracts in pyproject.toml know every module."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_is_under_a_contract() -> None:
    """A new module of `cgmem` is listed in each contract that names modules one by one."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = {contract["name"]: contract for contract in contracts["contracts"]}
    modules = {
        f"cgmem.{path.stem}"
        for path in (ROOT / "cgmem").iterdir()
        if not path.name.startswith("__") and (path.suffix == ".py" or path.is_dir())
    }

    policy = named["policy is pure: records only"]
    stand_alone = named["contract and errors stand alone, and mechanisms know nothing else"]
    command_line = named["nobody imports the command line"]

    pure = {"cgmem.contract", "cgmem.errors"}
    assert set(stand_alone["forbidden_modules"]) == modules - pure
    assert set(policy["source_modules"]) | set(policy["forbidden_modules"]) == modules - pure
    assert set(command_line["source_modules"]) == modules - {"cgmem.cli"}
