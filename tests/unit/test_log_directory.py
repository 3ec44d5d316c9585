"""Where the log files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgmem.errors import ConfigurationError
from cgmem.logs.directory import LogDirectory, resolve_log_dir

DEFAULT = Path(".claude-pm", "logs", "memory")


def test_default_is_below_the_working_directory(tmp_path: Path) -> None:
    """Without any project directory the logs go below the working directory, not made yet."""
    found = resolve_log_dir(None, environ={}, cwd=tmp_path)

    assert found == tmp_path / DEFAULT
    assert not (tmp_path / ".claude-pm").exists()


def test_default_is_the_nearest_project(tmp_path: Path) -> None:
    """The nearest directory upwards that holds .claude-pm/ is the project."""
    (tmp_path / ".claude-pm").mkdir()
    (tmp_path / "near" / ".claude-pm").mkdir(parents=True)
    deep = tmp_path / "near" / "a" / "b"
    deep.mkdir(parents=True)

    assert resolve_log_dir(None, environ={}, cwd=deep) == tmp_path / "near" / DEFAULT
    assert resolve_log_dir(None, environ={}, cwd=tmp_path / "near") == tmp_path / "near" / DEFAULT
    assert resolve_log_dir(None, environ={}, cwd=tmp_path) == tmp_path / DEFAULT


def test_a_file_of_the_projects_name_is_no_project(tmp_path: Path) -> None:
    """A plain file named .claude-pm makes no project of its directory."""
    (tmp_path / ".claude-pm").write_text("")
    below = tmp_path / "below"
    below.mkdir()

    assert resolve_log_dir(None, environ={}, cwd=below) == below / DEFAULT


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_somebody_elses_project_is_passed_over(tmp_path: Path) -> None:
    """A .claude-pm/ of another user, planted above, does not collect our logs."""
    (tmp_path / ".claude-pm").mkdir()
    os.chown(tmp_path / ".claude-pm", 54321, 54321)
    mine = tmp_path / "mine"
    mine.mkdir()

    assert resolve_log_dir(None, environ={}, cwd=mine) == mine / DEFAULT


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a link away needs root")
def test_somebody_elses_link_is_passed_over(tmp_path: Path) -> None:
    """Nor does a link of another user's lead our logs into a directory of our own."""
    own, mine, shared = tmp_path / "own", tmp_path / "shared" / "mine", tmp_path / "shared"
    for path in (own, mine):
        path.mkdir(parents=True)
    (shared / ".claude-pm").symlink_to(own)

    assert resolve_log_dir(None, environ={}, cwd=mine) == shared / DEFAULT
    os.lchown(shared / ".claude-pm", 54321, 54321)
    assert resolve_log_dir(None, environ={}, cwd=mine) == mine / DEFAULT


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_root_logs_to_the_project_of_its_owner(tmp_path: Path) -> None:
    """In a user's own project root uses the project's logs."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / ".claude-pm").mkdir()
    for path in (tmp_path / ".claude-pm", inside):
        os.chown(path, 54321, 54321)

    assert resolve_log_dir(None, environ={}, cwd=inside) == tmp_path / DEFAULT


def test_argument_goes_before_environment(tmp_path: Path) -> None:
    """log_dir, then CGMEM_LOG_DIR; each is the files' directory itself, made absolute."""
    environ = {"CGMEM_LOG_DIR": "from/../environ"}
    (tmp_path / ".claude-pm").mkdir()

    assert resolve_log_dir("given", environ=environ, cwd=tmp_path) == tmp_path / "given"
    assert resolve_log_dir(None, environ=environ, cwd=tmp_path) == tmp_path / "environ"
    assert resolve_log_dir(tmp_path / "abs", environ={}, cwd="/") == tmp_path / "abs"


def test_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    """CGMEM_LOG_DIR= means the default."""
    assert resolve_log_dir(None, environ={"CGMEM_LOG_DIR": ""}, cwd=tmp_path) == tmp_path / DEFAULT


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~ that no shell has expanded (YAML, a service file) means the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert resolve_log_dir("~/logs", environ={}, cwd=tmp_path) == tmp_path / "home" / "logs"


@pytest.mark.parametrize("value", ["", "a\0b", "~no-such-user-here/logs"])
def test_impossible_name_is_refused(value: str, tmp_path: Path) -> None:
    """What can't be a directory's name is refused; the error names value and source."""
    with pytest.raises(ConfigurationError, match="log_dir") as caught:
        resolve_log_dir(value, environ={}, cwd=tmp_path)

    assert repr(value) in str(caught.value)


def test_a_file_is_refused_with_its_source(tmp_path: Path) -> None:
    """A variable that names a file is refused, naming the variable and the value."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"CGMEM_LOG_DIR 'file': .* is not a directory"):
        resolve_log_dir(None, environ={"CGMEM_LOG_DIR": "file"}, cwd=tmp_path)


def test_directory_is_made_once_and_does_not_come_back(tmp_path: Path) -> None:
    """The directory is made with its parents, 0755, and not again after somebody removed it."""
    directory = LogDirectory(tmp_path / "a" / "b")
    old = os.umask(0o022)
    try:
        directory.make()
    finally:
        os.umask(old)
    assert directory.path.stat().st_mode & 0o777 == 0o755
    directory.path.rmdir()

    directory.make()

    assert not directory.path.exists()


def test_a_file_in_its_place_is_no_directory(tmp_path: Path) -> None:
    """What is there and is no directory is an error; a directory that is there is none."""
    (tmp_path / "file").write_text("")
    LogDirectory(tmp_path, ["x.log"]).make()

    with pytest.raises(FileExistsError):
        LogDirectory(tmp_path / "file").make()
    assert not (tmp_path / "x.log").exists()
