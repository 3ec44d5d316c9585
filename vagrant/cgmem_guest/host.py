"""What this package needs from the host: commands, and the Debian packages that hold them."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import GuestError
from .report import say

PACKAGE_OF = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "tar": "tar",
    "fakeroot": "fakeroot",
    "newuidmap": "uidmap",
    "qemu-img": "qemu-utils",
}

#: An ordinary user's PATH lacks the folders where Debian keeps mke2fs.
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


def find(command: str) -> str | None:
    """Return the path of `command`, also from the administrator's folders."""
    return shutil.which(command, path=os.environ.get("PATH", "") + SBIN)


def require(commands: Iterable[str]) -> None:
    """Have every one of `commands`, installing Debian packages as root or with sudo.

    Raises GuestError with the command to run when they can't be installed from here.
    """
    missing = [command for command in commands if find(command) is None]
    if missing:
        install(sorted({PACKAGE_OF[command] for command in missing}))


def require_packages(packages: Sequence[str]) -> None:
    """Have every one of these Debian packages; as `require`, for what is more than a command."""
    form = "--showformat=${Package} ${db:Status-Status}\n"
    query = ["dpkg-query", "--show", form, *packages]
    if shutil.which(query[0]) is None:
        raise GuestError(f"this needs Debian's packages: {', '.join(packages)}")
    found = subprocess.run(query, check=False, capture_output=True, text=True).stdout.splitlines()
    missing = sorted(
        {*packages} - {line.split()[0] for line in found if line.endswith(" installed")}
    )
    if missing:
        install(missing)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages on the host, or raise GuestError that says how to."""
    by_hand = f"apt-get install --no-install-recommends {shlex.join(packages)}"
    prefix = _privilege()
    if prefix is None or shutil.which("apt-get") is None:
        raise GuestError(f"the host lacks {', '.join(packages)}; as root run:  {by_hand}")
    say(f"installing on this host: {', '.join(packages)}")
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        _quiet([*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *command])


def require_amd64() -> None:
    """Raise GuestError on a host that is not Linux on x86-64: the images are amd64."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "amd64"):
        raise GuestError(
            f"guests need a Linux host on x86-64, this is {platform.system()} on "
            f"{platform.machine()}; the Vagrantfile may serve instead"
        )


def _privilege() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


def _quiet(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = done.stdout.decode(errors="replace")[-2000:]
        raise GuestError(f"{shlex.join(command)} failed ({done.returncode}):\n{tail}")


def run_logged(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run `command` with its output appended to `log`; raise GuestError with the tail of it."""
    found = [find(command[0]) or command[0], *command[1:]]
    with log.open("ab") as sink:
        done = subprocess.run(
            found, check=False, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env
        )
    if done.returncode:
        raise GuestError(f"{command[0]} failed ({done.returncode}):\n{last_lines(log, 25)}")


def last_lines(log: Path, count: int) -> str:
    """Return the last `count` lines of a text file, "" when there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.replace("\r", "").splitlines()[-count:])
