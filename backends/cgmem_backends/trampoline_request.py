"""What the trampoline is told, besides the command: identity, environ, signals."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from cgmem_backends.exec_request import ExecRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IDENTITY = ("user", "group", "extra_groups")
_SAME_IDENTITY = {"groups": None, "gid": None, "uid": None}
_NO_ID = 2**32 - 1
"""(uid_t) -1, which means "no change" to setreuid(2)."""


def take_identity(left: dict[str, Any]) -> dict[str, Any]:
    """Move user, group and extra_groups out of the options, as ids, into the request.

    So the interpreter itself starts as the caller, whose files it may be alone in reading. What
    Popen would refuse stays where it is, and Popen refuses it. With a preexec_fn, which runs
    after the change of identity, Popen does both.
    """
    if left.get("preexec_fn") is not None:
        return dict(_SAME_IDENTITY)
    groups = left.get("extra_groups")
    if groups is not None and not isinstance(groups, str):
        groups = left["extra_groups"] = [_group_id(group) for group in groups]
    gid, uid = _group_id(left.get("group")), _user_id(left.get("user"))
    if not all(_is_id(i) for i in (gid, uid, *(groups or ())) if i is not None):
        return dict(_SAME_IDENTITY)
    for name in _IDENTITY:
        left.pop(name, None)
    return {"groups": groups, "gid": gid, "uid": uid}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < _NO_ID


def _group_id(group: Any) -> Any:
    if isinstance(group, str):
        import grp

        return grp.getgrnam(group).gr_gid
    return group


def _user_id(user: Any) -> Any:
    if isinstance(user, str):
        import pwd

        return pwd.getpwnam(user).pw_uid
    return user


def split_environ(
    request: ExecRequest, env: Mapping[Any, Any] | None
) -> tuple[dict[bytes, bytes] | None, Mapping[Any, Any] | None]:
    """Split into (what the trampoline gives the command, what Popen gives the trampoline).

    The trampoline runs with our own environ, which is known to start a Python. execve in Python
    takes neither an empty name nor a name twice: with those, Popen says what is allowed, and the
    command's environ is the trampoline's own.
    """
    if request.env is None:
        return None, None
    entries = dict(entry.split(b"=", 1) for entry in request.env)
    if b"" in entries or len(entries) != len(request.env):
        return None, env
    return entries, None


def stay_ignored(restore_signals: bool) -> list[int]:
    """Name, of the signals that every Python ignores, those that the command goes on ignoring."""
    if restore_signals:
        return []
    mask = 0
    with Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith("SigIgn:"):
                mask = int(line.split()[1], 16)
    return [int(s) for s in (signal.SIGPIPE, signal.SIGXFSZ) if mask >> (s - 1) & 1]
