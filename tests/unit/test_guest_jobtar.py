"""What is shipped into a guest."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from cgmem_guest.jobtar import Cargo, environment, interrupt_at, job_script, write_job_tar
from cgmem_guest.recipe import GUESTS
from cgmem_guest.tree import copy_tree, project_files, wheel_key


@pytest.fixture
def cargo(tmp_path: Path) -> Cargo:
    """A job with a small tree, an installed project and a shared folder."""
    for name in ("src/pkg/mod.py", "project/bin/cgmem", "shared/facts.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (tmp_path / "src/link").symlink_to("pkg/mod.py")
    return Cargo(
        guest=GUESTS["debian13"],
        command=["sh", "-c", "echo 'it is'"],
        user=False,
        thp="never",
        timeout=600.0,
        src=tmp_path / "src",
        project=tmp_path / "project",
        shared=tmp_path / "shared",
    )


def members(cargo: Cargo, tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    """Write the tar and return its members by name."""
    target = tmp_path / "job.tar"
    write_job_tar(target, cargo)
    with tarfile.open(target) as tar:
        return {member.name: member for member in tar}


def test_tar_holds_every_part(cargo: Cargo, tmp_path: Path) -> None:
    """Tree, project, shared folder, scripts, an empty results folder and marks are all there."""
    found = members(cargo, tmp_path)

    assert {
        "src/pkg/mod.py",
        "src/link",
        "project/bin/cgmem",
        "shared/facts.md",
        "guest/job",
        "guest/prepare",
        "guest/finish",
        "guest/live",
        "guest/plain",
        "results",
        "as-root",
        "thp",
    } <= set(found)
    assert "as-tester" not in found
    assert "contained" not in found
    assert found["src/link"].issym()
    assert found["guest/job"].mode == 0o755


def test_owner_follows_the_user(cargo: Cargo, tmp_path: Path) -> None:
    """Tree and results belong to the job's user; the installed project is always root's."""
    as_root = members(cargo, tmp_path)
    as_tester = members(replace(cargo, user=True), tmp_path)

    assert {as_root[name].uid for name in ("src", "src/pkg/mod.py", "results")} == {0}
    assert {as_tester[name].uid for name in ("src", "src/pkg/mod.py", "results")} == {1000}
    assert as_tester["project/bin/cgmem"].uid == 0
    assert "as-tester" in as_tester


def test_container_is_marked(cargo: Cargo, tmp_path: Path) -> None:
    """The container guest's job brings the mark that has it put in a cgroup namespace."""
    assert "contained" in members(replace(cargo, guest=GUESTS["container"]), tmp_path)


def test_job_script_becomes_the_command(tmp_path: Path) -> None:
    """The script execs the command with its words and variables intact, spaces and quotes too."""
    script = job_script(["printf", "%s|", "a b", "it's", "$HOME", "VALUE"], {"X": "y z"})
    runnable = script.replace("cd /job/src", "cd /").replace("VALUE", "'\"$X\"'")

    done = subprocess.run(["sh", "-c", runnable], check=True, capture_output=True, text=True)

    assert done.stdout == 'a b|it\'s|$HOME|"$X"|'
    assert script.splitlines()[-1].startswith("exec printf ")


def test_environment(cargo: Cargo) -> None:
    """The job knows its guest and its results folder, and finds the project and its scripts."""
    root = environment(cargo)
    tester = environment(replace(cargo, user=True))

    assert root["CGMEM_IN_GUEST"] == "debian13"
    assert root["CGMEM_GUEST_RESULTS"] == "/job/results"
    assert root["PYTHONPATH"] == "/job/project:/job/deps"
    assert root["PATH"].startswith("/job/project/bin:/job/deps/bin:")
    assert root["HOME"] == "/root"
    assert "XDG_RUNTIME_DIR" not in root
    assert tester["HOME"] == "/home/tester"
    assert tester["XDG_RUNTIME_DIR"] == "/run/user/1000"


def test_environment_from_source(cargo: Cargo) -> None:
    """Not installed, the project's two source folders are on PYTHONPATH instead."""
    values = environment(replace(cargo, from_source=True))

    assert values["PYTHONPATH"] == "/job/src:/job/src/backends:/job/deps"


def test_pytest_plugins_are_named(cargo: Cargo) -> None:
    """Where the tests need plugins, pytest is told which, in place of searching for them."""
    values = environment(replace(cargo, pytest_plugins=["pytest_timeout", "pytest_x"]))

    assert values["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] == "1"
    assert values["PYTEST_PLUGINS"] == "pytest_timeout,pytest_x"


def test_tree_of_a_checkout(tmp_path: Path) -> None:
    """In a git checkout: tracked and new files, not the ignored and not the deleted ones."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("tracked", "gone", "new", "ignored"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("ignored\n")
    subprocess.run([*git, "add", "tracked", "gone"], check=True)
    (tmp_path / "gone").unlink()

    assert project_files(tmp_path) == [Path(".gitignore"), Path("new"), Path("tracked")]


def test_tree_without_git(tmp_path: Path) -> None:
    """Without git: everything but caches and virtual environments."""
    for name in ("a/b.py", ".venv/lib.py", "a/__pycache__/b.pyc", ".mypy_cache/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    assert project_files(tmp_path) == [Path("a/b.py")]


def test_copied_tree_keeps_times_and_links(tmp_path: Path) -> None:
    """The copy has the same modification times, which bytecode is checked by, and symlinks."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("")
    (tree / "link").symlink_to("a.py")
    copy_tree(tree, [Path("a.py"), Path("link")], tmp_path / "copy")

    assert (tmp_path / "copy/a.py").stat().st_mtime_ns == (tree / "a.py").stat().st_mtime_ns
    assert (tmp_path / "copy/link").is_symlink()


def test_wheel_key_ignores_what_no_wheel_holds(tmp_path: Path) -> None:
    """A changed test keeps the installed project; a changed module replaces it."""
    for name in ("cgmem/a.py", "tests/test_a.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    key = wheel_key(tmp_path)
    (tmp_path / "tests/test_a.py").write_text("changed")
    after_test = wheel_key(tmp_path)
    (tmp_path / "cgmem/a.py").write_text("changed")

    assert after_test == key
    assert wheel_key(tmp_path) != key


def test_job_is_interrupted_in_time() -> None:
    """The job gets its chance to end by itself before the guest is stopped, never at once."""
    assert interrupt_at(1800.0) == 1710.0
    assert interrupt_at(60.0) == 45.0
