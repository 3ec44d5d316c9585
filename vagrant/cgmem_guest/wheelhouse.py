"""A folder of wheels from which a guest without a network installs the project and its tools."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from . import host
from .cache import build_once, cache_root, prune
from .deps import KEEP_DAYS, deps_key, fitting, group, new_log, pip
from .errors import GuestError
from .recipe import Release
from .report import say

#: What `make .venv/.dev` asks pip for beyond pyproject.toml: pip itself, and what hatchling adds
#: for an editable install.
BEYOND = ("pip", "editables")


def all_requirements(pyproject: Path) -> list[str]:
    """Return the requirements to run, build, test and check the project, sorted.

    Raises GuestError when the file is not there, is no TOML or a group includes an unknown one.
    """
    try:
        data = tomllib.loads(pyproject.read_text())
        project, groups = data["project"], data["dependency-groups"]
        needed = groups.keys() - {"bench"}
        grouped = [one for name in needed for one in group(groups, name)]
        extras = [one for extra in project["optional-dependencies"].values() for one in extra]
        # An extra that is made of others names the project itself, which is no wheel.
        extras = [one for one in extras if not one.startswith(f"{project['name']}[")]
        build = data["build-system"]["requires"]
        return sorted({*project["dependencies"], *extras, *grouped, *build, *BEYOND})
    except (OSError, tomllib.TOMLDecodeError, KeyError) as err:
        raise GuestError(f"can't read the requirements in {pyproject}: {err}") from err


def ensure_wheelhouse(release: Release, tree: Path) -> Path:
    """Return a folder with all wheels for the Python of `release`, from the cache or downloaded."""
    wanted = all_requirements(tree / "pyproject.toml")
    folder = cache_root() / "wheels"
    target = folder / f"{release.python}-{deps_key(release.python, wanted)}"
    build_once(target, lambda work: _download(release, wanted, work))
    prune(folder, "*-*", keep=target, older_than_days=KEEP_DAYS)
    return target


def _download(release: Release, wanted: Sequence[str], work: Path) -> None:
    say(f"downloading {len(wanted)} requirements and theirs for Python {release.python}")
    command = [*pip(), "download", "--quiet", f"--dest={work}", *fitting(release.python)]
    host.run_logged([*command, *wanted], new_log(f"wheels-{release.python}"))
