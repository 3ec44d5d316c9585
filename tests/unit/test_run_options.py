"""The quick reader of `cgmem run` against click's: what it reads, click reads alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgmem.cli.run import command
from cgmem.cli.run_options import OPTIONS, quickly_read

FLAGS = [flag for option in OPTIONS for flag in option.flags]
WORDS = st.one_of(
    st.sampled_from([*FLAGS, *FLAGS, "--", "--", "true", "make", "-", "", "-qv", "--he", "--help"]),
    st.builds("{}={}".format, st.sampled_from(FLAGS), st.sampled_from(["", "5", "512M", "-"])),
    st.text(max_size=3),
)


def by_click(words: list[str]) -> dict[str, Any] | None:
    """What click makes of it; None where it refuses or prints help."""
    try:
        context = command.make_context("run", list(words))
    except (click.ClickException, click.exceptions.Exit):
        return None
    return context.params


@given(words=st.lists(WORDS, max_size=6))
@example(["-q", "--max", "512M", "--", "make", "-j8"])
@example(["--max", "--", "true", "x"])
@example(["--max=1G", "--keep", "make", "--keep"])
@example(["--keep=1", "true"])
@example(["--max", "1G"])
@example(["-q=1", "true"])
@example(["--", "--", "true"])
def test_what_is_read_quickly_is_what_click_reads(words: list[str]) -> None:
    """Whatever is read at all is read as click does; the rest is left to click."""
    found = quickly_read(words)

    assert found is None or found == by_click(words)


def test_json_is_short_for_a_report_to_stdout() -> None:
    """Read quickly and by click; with --report too, click refuses it and names both."""
    both = ["--json", "--report", "out.json", "true"]

    assert quickly_read(["--json", "true"]) == quickly_read(["--report", "-", "true"])
    assert by_click(["--json", "true"]) == by_click(["--report", "-", "true"])
    assert quickly_read(both) is None
    with pytest.raises(click.UsageError, match="--json and --report"):
        command.make_context("run", both)


def test_plain_command_lines_are_read_quickly() -> None:
    """What people and scripts write needs no click: every option, in both forms."""
    for option in OPTIONS:
        for flag in option.flags:
            forms = [[flag]] if option.metavar is None else [[flag, "1"], [f"{flag}=1"]]
            for form in forms if flag.startswith("--") else forms[:1]:
                assert quickly_read([*form, "--", "true"]) == by_click([*form, "--", "true"])
                assert quickly_read([*form, "true", "-x"]) is not None


def test_a_plain_run_imports_no_click(tmp_path: Path) -> None:
    """Nor anything else that only help, tables or a mistake need, nor what costs like typing."""
    code = (
        "import sys; bare = set(sys.modules); from cgmem.cli import main;"
        "status = main(['run', '--backend', 'psutil', '-q', '--log-dir', *sys.argv[1:]]);"
        "heavy = {'click', 'yaml', 'psutil', 'jeepney', 'asyncio', 'dataclasses', 'inspect',"
        " 'datetime', 'shutil', 'textwrap', 'logging', 'uuid', 'typing', 'tempfile', 'random',"
        " 'cgmem.supervising.remains', 'cgmem.supervising.unsupervised', 'cgmem.system_monitor'};"
        "print(status, *sorted(heavy & set(sys.modules) - bare))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "--", "true"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert done.stdout == "0\n"


def test_a_spawn_imports_nothing_heavy(tmp_path: Path) -> None:
    """What a program gets that spawns by `import cgmem` and nothing more, is what is needed."""
    code = (
        "import sys; bare = set(sys.modules); import cgmem;"
        "cgmem.run(['true'], backend='psutil', log_dir=sys.argv[1]);"
        "heavy = {'click', 'yaml', 'jeepney', 'asyncio', 'dataclasses', 'inspect', 'logging',"
        " 'typing', 'tempfile', 'random', 'cgmem.supervising.remains', 'cgmem.system_monitor'};"
        "print(*sorted(heavy & set(sys.modules) - bare))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout == "\n"


def test_the_mechanisms_import_nothing_heavy() -> None:
    """What a start in a cgroup loads, whoever gives it; D-Bus's library comes when it is spoken."""
    code = (
        "import sys; bare = set(sys.modules);"
        "import cgmem_backends.systemd_backend, cgmem_backends.placed_popen;"
        "heavy = {'typing', 'dataclasses', 'inspect', 'asyncio', 'logging', 'jeepney', 'psutil',"
        " 'cgmem_backends.remains', 'cgmem_backends.oom_policy'};"
        "print(*sorted(heavy & set(sys.modules) - bare))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout == "\n"
