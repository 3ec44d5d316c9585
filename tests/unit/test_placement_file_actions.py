"""The order in which a posix_spawn child arranges its descriptors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem_backends.execute_child import (
    MAX_GAPS,
    ExecuteChild,
    NotHonoured,
    file_actions,
    signature_matches,
)
from cgmem_backends.spawn_attr import Chdir, Close, CloseFrom, Dup2, FileAction


def _call(**changes: Any) -> ExecuteChild:
    plain = ExecuteChild(
        args=["true"], executable=None, preexec_fn=None, close_fds=True, pass_fds=(), cwd=None,
        env=None, startupinfo=None, creationflags=0, shell=False, p2cread=-1, p2cwrite=-1,
        c2pread=-1, c2pwrite=-1, errread=-1, errwrite=-1, restore_signals=True, gid=None,
        gids=None, uid=None, umask=-1, start_new_session=False, process_group=-1,
    )  # fmt: skip
    return plain._replace(**changes)


def _performed(actions: list[FileAction], open_files: dict[int, str]) -> dict[int, str]:
    """Return what the child holds after exec: descriptor to file, those not CLOEXEC.

    In the parent everything above 2 is CLOEXEC, as Python opens it.
    """
    files = dict(open_files)
    inheritable = {fd for fd in files if fd <= 2}
    for action in actions:
        match action:
            case Dup2(fd, new_fd):
                files[new_fd] = files[fd]
                inheritable.add(new_fd)
            case Close(fd):
                files.pop(fd, None)
            case CloseFrom(lowest):
                files = {fd: file for fd, file in files.items() if fd < lowest}
            case Chdir():
                pass
    return {fd: file for fd, file in files.items() if fd in inheritable}


def test_this_python_has_the_method_that_we_replace() -> None:
    """Popen._execute_child has the parameters of CPython 3.11-3.14."""
    assert signature_matches()


def test_a_changed_method_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another order or number of parameters is no match."""
    import subprocess

    def _execute_child(self: object, args: object) -> None:
        """Stand for a later Popen's."""

    monkeypatch.setattr(subprocess.Popen, "_execute_child", _execute_child)

    assert not signature_matches()


def test_pipes_become_the_standard_streams() -> None:
    """The parent's ends are closed, ours become 0, 1 and 2, and nothing else stays open."""
    pipes = {"p2cread": 3, "p2cwrite": 4, "c2pread": 5, "c2pwrite": 6, "errread": 7, "errwrite": 8}

    assert file_actions(_call(**pipes, cwd="/tmp")) == [
        Close(4), Close(5), Close(7), Dup2(3, 0), Dup2(6, 1), Dup2(8, 2), Chdir(b"/tmp"),
        CloseFrom(3),
    ]  # fmt: skip


@given(
    streams=st.tuples(*[st.sampled_from([-1, 0, 1, 2, 5, 6, 9])] * 3),
    passed=st.sets(st.sampled_from([0, 1, 2, 5, 6, 9, 12])),
    close_fds=st.booleans(),
)
def test_the_child_holds_what_popen_would_give_it(
    streams: tuple[int, int, int], passed: set[int], close_fds: bool
) -> None:
    """Whatever is honoured ends with each stream's own file, the passed descriptors and no more."""
    open_files = {fd: f"file {fd}" for fd in range(14)}
    given_streams = dict(zip(("p2cread", "c2pwrite", "errwrite"), streams, strict=True))
    call = _call(**given_streams, pass_fds=passed, close_fds=close_fds or bool(passed))

    try:
        actions = file_actions(call)
    except NotHonoured:
        assert any(fd in (0, 1) for fd in streams)
        return

    expected = {fd: f"file {fd}" for fd in {0, 1, 2} | passed}
    for fd, source in enumerate(streams):
        if source != -1:
            expected[fd] = f"file {source}"
    assert _performed(actions, open_files) == expected


def test_a_stream_that_would_be_overwritten_is_left_to_the_trampoline() -> None:
    """With stdout=2 and stderr=1 the first dup2 would destroy the second's source."""
    with pytest.raises(NotHonoured):
        file_actions(_call(c2pwrite=2, errwrite=1))


def test_gaps_are_bounded() -> None:
    """Between passed descriptors at most MAX_GAPS are closed one by one."""
    file_actions(_call(pass_fds=[3 + MAX_GAPS]))
    with pytest.raises(NotHonoured):
        file_actions(_call(pass_fds=[4 + MAX_GAPS]))


def test_a_null_byte_in_the_cwd() -> None:
    """It is refused as by Popen."""
    with pytest.raises(ValueError, match="embedded null byte"):
        file_actions(_call(cwd="a\0b"))
