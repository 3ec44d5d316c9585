"""Part of building a wheel: the manual pages, from the commands' own help."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface[Any]):
    """Adds share/man/man1/cgmem*.1 to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages to a directory of their own. Called by hatchling before the build."""
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        from cgmem.cli.group import VERBS
        from cgmem.cli.man import page

        self._directory = tempfile.TemporaryDirectory()
        for verb in (None, *VERBS):
            name = "cgmem.1" if verb is None else f"cgmem-{verb}.1"
            file = Path(self._directory.name, name)
            file.write_text(page(verb), encoding="utf-8")
            build_data["shared_data"][str(file)] = f"share/man/man1/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove them again. Called by hatchling after the build."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()
