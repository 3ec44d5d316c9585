"""How this host reaches Debian: the mirror and the transport settings of its own apt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from .errors import GuestError

#: Transport only. Everything else of the host's apt configuration is not the guest's business.
TRANSPORT = re.compile(
    r'^(Acquire::(?:http|https|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date)\b\S*) "(.+)";$',
    re.IGNORECASE,
)

FORMAT = "$(LABEL)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"


def mirror() -> str:
    """Return the URI of the Debian mirror that the host's apt uses.

    Raises GuestError on a host whose apt knows none; CGMEM_GUEST_MIRROR names one there.
    """
    own = os.environ.get("CGMEM_GUEST_MIRROR")
    found = own or parse_mirror(
        _output(["apt-get", "indextargets", "--format", FORMAT, "Created-By: Packages"])
    )
    if not found:
        raise GuestError(
            "this host's apt names no Debian mirror (after apt-get update); set "
            "CGMEM_GUEST_MIRROR to the URI of one"
        )
    return found


def parse_mirror(index_targets: str) -> str | None:
    """Return the first plain Debian archive's URI in `index_targets` (lines of FORMAT)."""
    rows = (line.split("|") for line in index_targets.splitlines())
    for row in rows:
        if len(row) == 4 and row[0] == "Debian" and row[2] == "main" and "-" not in row[1]:
            return row[3].rstrip("/")
    return None


def transport_options() -> list[str]:
    """Return the host's proxy and retry settings as apt options (`Name "value"`)."""
    return parse_transport(_output(["apt-config", "dump"]))


def parse_transport(dump: str) -> list[str]:
    """Return the transport settings in the output of `apt-config dump`."""
    matches = (TRANSPORT.match(line) for line in dump.splitlines())
    return [f'{match[1]} "{match[2]}"' for match in matches if match]


def _output(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout
