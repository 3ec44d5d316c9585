"""What came out of the guest: exit code, output and the results folder, from a tar on a disk."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import GuestError


@dataclass(frozen=True)
class Results:
    """The job's exit code, its whole output, and the guest's kernel and Python."""

    exit_code: int
    output: bytes
    kernel: str
    python: str


def read_results(disk: Path, folder: Path | None) -> Results:
    """Read the results disk and put the job's result files into `folder`.

    Raises GuestError when the guest wrote none, which means that it did not get to the end.
    A tar that did not fit is read as far as it goes; exit code and output come first in it.
    """
    exit_code: int | None = None
    output = b""
    versions = ["", ""]
    try:
        with tarfile.open(disk, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if member.name == "exit":
                    exit_code = int(_content(tar, member))
                elif member.name == "versions":
                    versions = _content(tar, member).decode(errors="replace").splitlines()
                elif member.name == "output":
                    output = _content(tar, member)
                elif folder is not None and path.parts[0] == "results":
                    _extract(tar, member, path.relative_to("results"), folder)
    except (tarfile.TarError, ValueError, EOFError) as err:
        if exit_code is None:
            raise GuestError(f"the guest returned no result ({err})") from err
    if exit_code is None:
        raise GuestError("the guest returned no result")
    return Results(exit_code, output, versions[0], versions[-1])


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(member)
    return handle.read() if handle else b""


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: PurePosixPath, folder: Path
) -> None:
    """Extract one folder or regular file; nothing else, and nothing outside `folder`."""
    if name.is_absolute() or ".." in name.parts:
        raise GuestError(f"the guest's results hold a path that leads outside: {member.name}")
    target = folder / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = tar.extractfile(member)
        if handle:
            with target.open("wb") as sink:
                shutil.copyfileobj(handle, sink)
            target.chmod(member.mode & 0o777 | 0o600)
