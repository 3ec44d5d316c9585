"""What a command line means to exec."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem_backends.exec_request import exec_errno, exec_request


def test_a_name_is_looked_for_along_path() -> None:
    """A bare name has one candidate per PATH entry, in order, an empty entry being the cwd."""
    request = exec_request(["ls", "-l"], env={"PATH": "/a::b"})

    assert request.candidates == (b"/a/ls", b"ls", b"b/ls")
    assert request.argv == [b"ls", b"-l"]
    assert request.env == [b"PATH=/a::b"]


def test_a_path_is_not_looked_for() -> None:
    """A command with a slash, or an `executable` with one, is the only candidate."""
    assert exec_request(["./ls"]).candidates == (b"./ls",)
    assert exec_request(["name"], executable=Path("/bin/ls")).candidates == (b"/bin/ls",)


def test_a_shell_takes_the_line() -> None:
    """shell=True runs /bin/sh, or the `executable`, with -c and the line."""
    assert exec_request("a b", shell=True).argv == [b"/bin/sh", b"-c", b"a b"]
    other = exec_request("a", shell=True, executable="/bin/bash")
    assert other.argv == [b"/bin/bash", b"-c", b"a"]
    assert other.executable == "/bin/bash"


def test_without_env_nothing_is_copied() -> None:
    """env=None stays None: the child gets the process's own environ, whatever it is by then."""
    assert exec_request(["ls"]).env is None


@pytest.mark.parametrize(
    ("args", "env", "error"),
    [
        (["a\0b"], None, "embedded null byte"),
        (["a"], {"A": "\0"}, "embedded null byte"),
        (["a"], {"A=B": ""}, "illegal environment variable name"),
    ],
)
def test_what_c_cannot_hold(args: list[str], env: dict[str, str] | None, error: str) -> None:
    """A NUL, or an = in a name, is refused as by Popen."""
    with pytest.raises(ValueError, match=error):
        exec_request(args, env=env)


def test_the_start_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit event is Popen's, with the caller's command."""
    events: list[tuple[object, ...]] = []
    monkeypatch.setattr(sys, "audit", lambda *event: events.append(event))

    exec_request(["ls", "-l"], env={"A": "1"}, cwd="/")

    assert events == [("subprocess.Popen", "ls", ["ls", "-l"], "/", {"A": "1"})]


@given(st.lists(st.binary().map(lambda b: b.replace(b"\0", b"")), min_size=1))
def test_arguments_survive(args: list[bytes]) -> None:
    """Any bytes without NUL arrive as they were, given as bytes or as text."""
    assert exec_request(args).argv == args
    assert exec_request([os.fsdecode(argument) for argument in args]).argv == args


@pytest.mark.parametrize(
    ("errnos", "reported"),
    [
        ([errno.ENOENT, errno.ENOTDIR], errno.ENOTDIR),
        ([errno.ENOENT, errno.EACCES, errno.ENOENT], errno.EACCES),
        ([errno.EACCES, errno.ENOEXEC], errno.EACCES),
    ],
)
def test_which_error_a_search_reports(errnos: list[int], reported: int) -> None:
    """The first error that is more than "not there" wins; otherwise the last one."""
    assert exec_errno(errnos) == reported
