"""The project's dependencies, and the project itself, installed on the host for a guest."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import host
from .cache import build_once, cache_root, locked, prune
from .errors import GuestError
from .image import MKE2FS, Image
from .report import say
from .tree import wheel_key

#: Up to bookworm's glibc, 2.36. pip does not infer older tags from a newer one.
PLATFORMS = tuple(
    f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 26, 27, 28, 31, 34, 35, 36)
)
INSTALL = ("install", "--quiet", "--no-compile")
GUEST_PYTHON = "/usr/bin/python3"
KEEP_DAYS = 7.0


def requirements(pyproject: Path, named: Sequence[str] = ("test",)) -> list[str]:
    """Return the requirements to run the project and of the named groups, sorted.

    [] without the file. Raises GuestError when the file is no TOML or a group includes an unknown
    one.
    """
    if not pyproject.exists():
        return []
    try:
        data = tomllib.loads(pyproject.read_text())
        groups = data.get("dependency-groups", {})
        grouped = [one for name in named for one in group(groups, name)]
        return sorted({*data.get("project", {}).get("dependencies", []), *grouped})
    except (tomllib.TOMLDecodeError, KeyError) as err:
        raise GuestError(f"can't read the requirements in {pyproject}: {err}") from err


def group(groups: Mapping[str, Any], name: str) -> list[str]:
    """Return the requirements of a dependency group and those that it includes."""
    if name in ("test", "bench") and name not in groups:
        return []
    found: list[str] = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else group(groups, entry["include-group"])
    return found


def pytest_plugins(wanted: Sequence[str]) -> list[str]:
    """Return the modules of the pytest plugins among requirements, by their usual names."""
    names = (re.match(r"pytest-[A-Za-z0-9-]+", requirement) for requirement in wanted)
    return [match[0].replace("-", "_") for match in names if match]


def deps_key(python: str, wanted: Sequence[str]) -> str:
    """Return 12 hex digits for this set of requirements on this Python."""
    parts = json.dumps([python, sorted(wanted), PLATFORMS, 1])
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def ensure_deps(image: Image, tree: Path, named: Sequence[str]) -> Path | None:
    """Return an ext4 disk image with the project's dependencies and the groups'; None without any.

    Installed with pip for the guest's Python and compiled by it: importing uncompiled modules
    is what takes most of a test run's time under emulation. Raises GuestError.
    """
    wanted = requirements(tree / "pyproject.toml", named)
    if not wanted:
        return None
    python = image.release.python
    folder = cache_root() / "deps"
    target = folder / f"{python}-{deps_key(python, wanted)}"
    build_once(target, lambda work: _build_deps(image, wanted, work))
    prune(folder, "*-*", keep=target, older_than_days=KEEP_DAYS)
    return target / "deps.img"


def _build_deps(image: Image, wanted: Sequence[str], work: Path) -> None:
    python = image.release.python
    say(f"installing {len(wanted)} requirements for Python {python}")
    host.require(["mke2fs"])
    log = new_log(f"deps-{python}")
    site = work / "site"
    host.run_logged([*pip(), *INSTALL, f"--target={site}", *fitting(python), *wanted], log)
    _fix_scripts(site)
    compile_site(image, site, "/job/deps")
    size_mb = 16 + 2 * sum(path.lstat().st_size for path in site.rglob("*")) // 2**20
    disk = [str(work / "deps.img"), f"{size_mb}M"]
    host.run_logged([*MKE2FS, "-E", "root_owner=0:0", "-d", str(site), *disk], log)
    shutil.rmtree(site)


def fitting(python: str) -> list[str]:
    """Return pip's options for wheels that fit a guest's Python ("3.13") and libc."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    return [
        f"--python-version={python}",
        "--implementation=cp",
        "--only-binary=:all:",
        *platforms,
    ]


def ensure_project(image: Image, tree: Path) -> Path | None:
    """Return a folder with the project installed for the guest; None without pyproject.toml.

    `tree` is a clean copy: what git ignores must not get into a wheel. Raises GuestError.
    """
    if not (tree / "pyproject.toml").exists():
        return None
    folder = cache_root() / "project"
    target = folder / f"{image.release.python}-{wheel_key(tree)}"
    build_once(target, lambda work: _build_project(image, tree, work))
    prune(folder, "*-*", keep=target, older_than_days=1)
    return target


def _build_project(image: Image, tree: Path, work: Path) -> None:
    log = new_log(f"project-{image.release.python}")
    host.run_logged([*pip(), *INSTALL, "--no-deps", f"--target={work}", str(tree)], log)
    _fix_scripts(work)
    compile_site(image, work, "/job/project")


def new_log(name: str) -> Path:
    """Return the path of a log in the cache, without an older run's content."""
    log = cache_root() / f"{name}.log"
    log.unlink(missing_ok=True)
    return log


def _fix_scripts(site: Path) -> None:
    for script in (site / "bin").glob("*"):
        script.write_bytes(with_shebang(script.read_bytes()))


def compile_site(image: Image, site: Path, guest_path: str) -> None:
    """Compile all modules in `site`, which will be `guest_path`, with the guest's Python.

    Bytecode only saves time, so what does not compile (a test's sample, say) is left alone.
    """
    env = {**os.environ, "PYTHONHOME": str(image.python_home), "LC_ALL": "C.UTF-8"}
    env.pop("PYTHONPATH", None)
    options = ("-S", "-m", "compileall", "-q", "-s", str(site), "-p", guest_path, str(site))
    subprocess.run(
        [*image.python_command(), *options],
        check=False,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def with_shebang(script: bytes) -> bytes:
    """Return a Python script with the guest's interpreter in its first line."""
    first, newline, rest = script.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        return b"#!" + GUEST_PYTHON.encode() + newline + rest
    return script


def pip() -> list[str]:
    """Return a command that runs pip: this Python's own, else that of a private environment."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    home = cache_root() / "pip"
    python = home / "bin" / "python"
    with locked(cache_root() / ".pip.lock"):
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            if importlib.util.find_spec("ensurepip") is None:
                host.install(["python3-venv"])
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            (home / "ready").touch()
    return [str(python), "-m", "pip"]
