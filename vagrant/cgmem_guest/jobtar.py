"""What goes into the guest: the job, its environment and the project, as one tar on a raw disk."""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .recipe import Guest

SCRIPTS = Path(__file__).with_name("job")
TESTER = 1000
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Cargo:
    """What a job consists of; see write_job_tar for where each part ends up."""

    guest: Guest
    command: Sequence[str]
    user: bool
    thp: str | None
    timeout: float
    src: Path
    project: Path | None
    shared: Path | None
    pytest_plugins: Sequence[str] = ()
    from_source: bool = False


def environment(cargo: Cargo) -> dict[str, str]:
    """Return the variables that the job gets on top of its service manager's."""
    own = ["/job/src", "/job/src/backends"] if cargo.from_source else ["/job/project"]
    home = "/home/tester" if cargo.user else "/root"
    values = {
        "HOME": home,
        "PATH": f"/job/project/bin:/job/deps/bin:{SYSTEM_PATH}",
        "PYTHONPATH": ":".join([*own, "/job/deps"]),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CGMEM_IN_GUEST": cargo.guest.name,
        "CGMEM_GUEST_RESULTS": "/job/results",
    }
    if cargo.pytest_plugins:
        # Looking for plugins by itself, pytest rewrites and compiles all of hypothesis each time:
        # 12 of the 17 s that it takes to start under emulation.
        values["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        values["PYTEST_PLUGINS"] = ",".join(cargo.pytest_plugins)
    if cargo.user and cargo.guest.init == "systemd":
        values["XDG_RUNTIME_DIR"] = f"/run/user/{TESTER}"
    return values


def job_script(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return the script that becomes `command`; exec, so that no parent of ours remains."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines = [
        "#!/bin/sh",
        *exports,
        "cd /job/src || exit 125",
        "echo $$ > /job/pid",
        f"exec {shlex.join(command)}",
    ]
    return "\n".join(lines) + "\n"


def interrupt_at(timeout: float) -> float:
    """Return the guest's uptime in seconds at which its job gets SIGINT, to end by itself.

    A job that hangs then still tells where (pytest ends with its report), which it could not when
    the whole guest is stopped at `timeout`.
    """
    return timeout - min(90.0, timeout / 4)


def write_job_tar(target: Path, cargo: Cargo) -> None:
    """Write the tar that the guest unpacks in /job.

    guest/ (our scripts), src/ (the project's tree, the job's working directory), project/ (the
    project installed), shared/ (a folder beside the tree), results/, and marks for `prepare`.
    """
    owner = TESTER if cargo.user else 0
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for script in sorted(SCRIPTS.iterdir()):
            _add_text(tar, f"guest/{script.name}", script.read_text(), mode=0o755)
        _add_text(tar, "guest/job", job_script(cargo.command, environment(cargo)), mode=0o755)
        _add_text(tar, "as-tester" if cargo.user else "as-root", "")
        if cargo.guest.init == "container":
            _add_text(tar, "contained", "")
        _add_text(tar, "interrupt-at", f"{interrupt_at(cargo.timeout):.0f}")
        _add_text(tar, "pid", "", mode=0o666)
        if cargo.thp:
            _add_text(tar, "thp", cargo.thp)
        _add_folder(tar, "results", owner)
        _add_tree(tar, "src", cargo.src, owner)
        for name, folder in (("project", cargo.project), ("shared", cargo.shared)):
            if folder:
                _add_tree(tar, name, folder, owner=0)


def _add_text(tar: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str, owner: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, owner, owner
    tar.addfile(info)


def _add_tree(tar: tarfile.TarFile, prefix: str, root: Path, owner: int) -> None:
    """Add a folder and all in it under the name `prefix`, owned by `owner`."""
    for path in [root, *sorted(root.rglob("*"))]:
        info = tar.gettarinfo(path, str(Path(prefix) / path.relative_to(root)))
        info.uid = info.gid = owner
        info.uname = info.gname = ""
        if info.isreg():
            with path.open("rb") as content:
                tar.addfile(info, content)
        elif info.isdir() or info.issym():
            tar.addfile(info)
