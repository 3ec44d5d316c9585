"""What systemd does to our own unit when a subprocess in its cgroup hits its limit.

systemd counts the OOM kills of a unit's whole subtree: with OOMPolicy=stop or kill the first hard
limit ends the supervisor too. The policy shows in no cgroup file, so systemctl is asked, once a
process; a D-Bus library would stay in memory for it.
Source: systemd.service(5) OOMPolicy=. Delegate=yes makes `continue` the default.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import cache

from cgmem.contract import Usability
from cgmem_backends.placement_rule import innermost_unit

_SECONDS = 5.0
_FATAL = frozenset({"stop", "kill"})


def with_oom_policy(
    found: Usability, own_cgroup: str, policy_of: Callable[[str, bool], str] | None = None
) -> Usability:
    """Add to what was found that the own unit would not survive, if that is so."""
    unit = innermost_unit(own_cgroup)
    if unit is None:
        return found
    user = f"/user@{os.geteuid()}.service/" in own_cgroup
    policy = (policy_of or _policy)(unit, user)
    if policy not in _FATAL:
        return found
    return found._replace(
        note=f"{unit} has OOMPolicy={policy}: the first subprocess at its hard limit ends the"
        " whole unit, this process too",
        fix=f"set OOMPolicy=continue: systemctl {'--user ' if user else ''}edit {unit}",
    )


@cache
def _policy(unit: str, user: bool) -> str:
    """`continue`, `stop` or `kill`; empty where nobody tells."""
    command = ["systemctl", *(["--user"] if user else []), "show", "-P", "OOMPolicy", "--", unit]
    environment = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
