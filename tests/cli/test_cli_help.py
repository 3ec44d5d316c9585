"""Manual pages and shell completion, both from the commands themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from cgmem.cli.group import VERBS
from cgmem.cli.group import cgmem as group
from tests.cli.command import COMMAND, POLLED, cgmem, environment, start


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_every_command_has_a_manual_page(tmp_path: Path, verb: str | None) -> None:
    """It has the sections of man-pages(7), and groff has nothing to say about it."""
    done = cgmem("man", *([] if verb is None else [verb]), cwd=tmp_path)
    page = done.stdout

    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n.SH {section}\n" in page
    assert "\b" not in page
    if shutil.which("groff") is not None:
        words = ["groff", "-man", "-Tascii", "-ww", "-z"]
        read = subprocess.run(words, input=page, text=True, capture_output=True, check=False)
        assert read.stderr == ""


def test_no_page_for_what_there_is_not(tmp_path: Path) -> None:
    """The one that was meant is named."""
    done = cgmem("man", "frezze", cwd=tmp_path)

    assert done.returncode == 2
    assert "did you mean freeze?" in done.stderr


def completed(*words: str, cwd: Path) -> list[str]:
    """What bash is offered for the last word, as its script asks."""
    done = subprocess.run(
        COMMAND,
        cwd=cwd,
        env=environment(
            _CGMEM_COMPLETE="bash_complete",
            COMP_WORDS=" ".join(("cgmem", *words)),
            COMP_CWORD=str(len(words)),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_verbs_options_and_live_ids_are_completed(tmp_path: Path) -> None:
    """Verbs by their beginning, options of a verb, ids of what lives."""
    name = f"completed-{os.getpid()}"
    words = ("run", *POLLED, "-q", "--id", name, "--", "sh", "-c", "echo on; exec sleep 300")
    with start(*words, cwd=tmp_path) as run:
        assert run.stdout is not None
        run.stdout.readline()
        ids = completed("freeze", name[:5], cwd=tmp_path)
        run.terminate()

    assert completed("fre", cwd=tmp_path) == ["freeze"]
    assert "--since" in completed("alerts", "--s", cwd=tmp_path)
    assert "growth" in completed("ps", "--sort", "", cwd=tmp_path)
    assert ids == [name]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_ones_that_the_shell_reads(tmp_path: Path, shell: str) -> None:
    """Each shell's script names the command; where the shell is here, it takes it."""
    script = cgmem("completion", shell, cwd=tmp_path).stdout

    assert "_CGMEM_COMPLETE" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_json(verb: str) -> None:
    """Programs need no command but with --json."""
    context = click.Context(group)
    found = group.get_command(context, verb)

    assert found is not None
    assert "--json" in [flag for param in found.get_params(context) for flag in param.opts]


def test_pages_and_scripts_as_json(tmp_path: Path) -> None:
    """The text that is printed without it, and what it is of."""
    for words, key, named in (
        (("man", "freeze"), "page", {"verb": "freeze"}),
        (("man",), "page", {"verb": None}),
        (("completion", "bash"), "script", {"shell": "bash"}),
    ):
        plain = cgmem(*words, cwd=tmp_path).stdout
        answer = json.loads(cgmem(*words, "--json", cwd=tmp_path).stdout)

        assert answer.pop(key).rstrip("\n") == plain.rstrip("\n")
        assert answer == named


def test_an_option_without_its_value_names_its_verb(tmp_path: Path) -> None:
    """The help that is pointed to is that of the verb."""
    for verb, option in (("run", "--max"), ("ps", "--sort")):
        done = cgmem(verb, option, cwd=tmp_path)

        assert f"cgmem {verb} --help" in done.stderr


def test_a_missing_choice_is_told_on_one_line(tmp_path: Path) -> None:
    """What click would list one below the other stands in one readable line."""
    done = cgmem("completion", cwd=tmp_path)

    assert done.returncode == 2
    assert "Choose from: bash, zsh, fish\n" in done.stderr
