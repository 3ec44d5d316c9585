"""The guest command's arguments, QEMU's command line, and what is read from host and guest."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from cgmem_guest import apt, deps, run
from cgmem_guest.cli import parse, split
from cgmem_guest.errors import GuestError, KernelBrokeError
from cgmem_guest.image import Image
from cgmem_guest.qemu import Disk, Machine, kernel_cmdline, qemu_argv
from cgmem_guest.recipe import GUESTS, TRIXIE
from cgmem_guest.results import read_results
from cgmem_guest.run import first_trouble, not_yet_shown, size_bytes
from cgmem_guest.suite import LinePrinter

MACHINE = Machine(
    image=Image(Path("/cache/trixie-1"), TRIXIE),
    guest=GUESTS["debian13"],
    accelerator="tcg",
    smp=2,
    memory="3G",
    disks=[Disk("job", Path("/run/a,b.disk")), Disk("deps", Path("/deps.img"), read_only=True)],
    console=Path("/run/console.log"),
    live=Path("/run/live.log"),
    cmdline="psi=0",
)


def test_arguments_of_run() -> None:
    """Options stand before `--`, the job's command after it, untouched."""
    options = parse(["run", "--guest", "plain", "--swap", "400M", "--", "sh", "-c", "--", "--user"])

    assert (options.guest, options.swap, options.user) == ("plain", "400M", False)
    assert options.command == ["sh", "-c", "--", "--user"]


def test_run_needs_a_command() -> None:
    """`run` without a command is an error in the arguments, with exit status 2."""
    with pytest.raises(SystemExit) as ended:
        parse(["run", "--guest", "plain"])

    assert ended.value.code == 2


def test_split_without_separator() -> None:
    """Without `--` everything is ours."""
    assert split(["test", "--matrix"]) == (["test", "--matrix"], [])


def test_qemu_argv() -> None:
    """The root disk comes first and is not written to; emulation runs without cx16 and erms."""
    argv = qemu_argv(MACHINE)
    drives = [argv[at + 1] for at, word in enumerate(argv) if word == "-drive"]

    assert "max,-cx16,-erms" in argv
    assert "-no-reboot" in argv
    assert drives[0].startswith("file=/cache/trixie-1/disk.img,")
    assert "snapshot=on" in drives[0]
    assert "readonly=on" in drives[2]
    assert drives[1].startswith("file=/run/a,,b.disk,")
    assert "snapshot" not in drives[1]


def test_qemu_argv_with_kvm() -> None:
    """With KVM the guest has the host's processor."""
    argv = qemu_argv(replace(MACHINE, accelerator="kvm"))

    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-cpu") + 1] == "host"


def test_counting_instructions_takes_one_processor() -> None:
    """--count is emulation on one thread, with a clock that is the number of instructions."""
    argv = qemu_argv(replace(MACHINE, accelerator="count", smp=1))

    assert argv[argv.index("-icount") + 1] == "shift=0"
    assert "tcg,thread=single" in argv
    assert parse(["run", "--count", "--", "true"]).count


def test_kernel_cmdline() -> None:
    """Only guests without systemd name their init; the caller's parameters come last."""
    assert "init=" not in kernel_cmdline(GUESTS["debian13"], "")
    assert "init=/usr/lib/cgmem-guest/plain-init" in kernel_cmdline(GUESTS["plain"], "")
    assert kernel_cmdline(GUESTS["plain"], " psi=0 ").endswith(" psi=0")


@pytest.mark.parametrize(
    ("text", "expected"), [("400M", 400 << 20), ("2G", 2 << 30), ("3gb", 3 << 30), ("7", 7)]
)
def test_sizes(text: str, expected: int) -> None:
    """Sizes are powers of 1024."""
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0M", "-1M", "12X", "1.5G", "M"])
def test_bad_sizes(text: str) -> None:
    """Anything else is refused with the text in the message."""
    with pytest.raises(GuestError, match="is no size"):
        size_bytes(text)


def test_mirror_is_the_plain_archive() -> None:
    """Of the host's sources the Debian archive counts, not updates, security or strangers."""
    targets = "\n".join(
        [
            "Vendor|stable|main|http://vendor.invalid/apt/",
            "Debian-Security|bookworm-security|main|http://mirror.invalid/debian-security/",
            "Debian|bookworm-updates|main|http://mirror.invalid/debian/",
            "Debian|bookworm|main|http://mirror.invalid/debian/",
        ]
    )

    assert apt.parse_mirror(targets) == "http://mirror.invalid/debian"
    assert apt.parse_mirror("Ubuntu|noble|main|http://ubuntu.invalid/\nnonsense") is None


def test_transport_settings() -> None:
    """The host's proxy and validity settings are taken over, nothing else."""
    dump = "\n".join(
        [
            'APT::Architecture "amd64";',
            'Acquire::http::Proxy "http://proxy.invalid:3128";',
            'Acquire::http "";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::Languages "none";',
            'Dir::Cache "var/cache";',
        ]
    )

    assert apt.parse_transport(dump) == [
        'Acquire::http::Proxy "http://proxy.invalid:3128"',
        'Acquire::Check-Valid-Until "false"',
    ]


def test_requirements(tmp_path: Path) -> None:
    """Runtime and test requirements count, included groups too; other groups don't."""
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        '[project]\ndependencies = ["click>=8"]\n[dependency-groups]\n'
        'base = ["pytest>=8"]\ntest = ["pytest-timeout>=2", {include-group = "base"}]\n'
        'lint = ["ruff"]\n'
    )
    wanted = deps.requirements(pyproject)

    assert wanted == ["click>=8", "pytest-timeout>=2", "pytest>=8"]
    assert deps.pytest_plugins(wanted) == ["pytest_timeout"]
    assert deps.requirements(tmp_path / "none.toml") == []


def test_bad_requirements(tmp_path: Path) -> None:
    """A file that is no TOML is an error that names it."""
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text("[project")

    with pytest.raises(GuestError, match="pyproject"):
        deps.requirements(pyproject)


def test_deps_key() -> None:
    """The dependencies' key depends on the Python and the requirements, not on their order."""
    assert deps.deps_key("3.13", ["a", "b"]) == deps.deps_key("3.13", ["b", "a"])
    assert deps.deps_key("3.13", ["a"]) != deps.deps_key("3.11", ["a"])
    assert deps.deps_key("3.13", ["a"]) != deps.deps_key("3.13", ["b"])


def test_shebang() -> None:
    """Python scripts get the guest's interpreter; other files stay as they are."""
    assert deps.with_shebang(b"#!/home/x/bin/python3\nrest\n") == b"#!/usr/bin/python3\nrest\n"
    assert deps.with_shebang(b"#!/bin/sh\n") == b"#!/bin/sh\n"
    assert deps.with_shebang(b"\x7fELF") == b"\x7fELF"


def results_disk(path: Path, content: dict[str, bytes]) -> Path:
    """Write a results disk as the guest does: a tar, and zeros after it."""
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with path.open("ab") as handle:
        handle.truncate(1 << 20)
    return path


def test_results_are_read(tmp_path: Path) -> None:
    """Exit code, versions, output and the results folder come back."""
    disk = results_disk(
        tmp_path / "disk",
        {"exit": b"7\n", "versions": b"6.12\nPython 3.13\n", "output": b"hi", "results/a/b": b"c"},
    )
    results = read_results(disk, tmp_path / "out")

    assert (results.exit_code, results.output) == (7, b"hi")
    assert (results.kernel, results.python) == ("6.12", "Python 3.13")
    assert (tmp_path / "out/a/b").read_bytes() == b"c"


def test_no_results_is_an_error(tmp_path: Path) -> None:
    """A disk that the guest has not written to is an error, not a success."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))

    with pytest.raises(GuestError, match="no result"):
        read_results(disk, None)


def test_results_stay_in_their_folder(tmp_path: Path) -> None:
    """A path that leads out of the results folder is refused."""
    disk = results_disk(tmp_path / "disk", {"exit": b"0", "results/../../evil": b"x"})

    with pytest.raises(GuestError, match="outside"):
        read_results(disk, tmp_path / "out")


def test_output_is_shown_once() -> None:
    """What the serial port has shown is not shown again, unless it lost something."""
    assert not_yet_shown(b"one\ntwo\n", b"one\n") == b"two\n"
    assert not_yet_shown(b"one\n", b"one\n") == b""
    assert not_yet_shown(b"one\ntwo\n", b"on\ntwo\n").endswith(b":\none\ntwo\n")


def test_lines_carry_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Output comes as whole lines under the guest's name; the end completes the last one."""
    printer = LinePrinter("plain")
    printer(b"one\r\ntw")
    printer(b"o\nrest")
    printer(b"")
    printer(b"")

    assert capsys.readouterr().out == "plain | one\nplain | two\nplain | rest\n"


def test_first_trouble(tmp_path: Path) -> None:
    """The first line of a kernel's trouble is picked out of the console log."""
    console = tmp_path / "console.log"
    console.write_text("[1.0] fine\n[2.0] BUG: unable to handle\n[3.0] Kernel panic\n")

    assert first_trouble(console).endswith("[2.0] BUG: unable to handle")
    assert first_trouble(tmp_path / "none") == ""


@pytest.mark.parametrize("breaks", [1, 2])
def test_a_kernel_that_breaks_at_boot(
    breaks: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is booted once more, and that is said; a second time it is an error."""
    done = run.Finished(0, 1.0, 2.0, "tcg", "6.12", "3.13")
    boots = iter([KernelBrokeError("debian13: int3")] * breaks + [done])

    def boot(*_: object) -> run.Finished:
        found = next(boots)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(run, "_run_once", boot)
    job = run.Job(GUESTS["debian13"], ["true"], Path("/tree"))
    if breaks == 1:
        assert run.run_job(job, lambda output: None) == done
    else:
        with pytest.raises(KernelBrokeError):
            run.run_job(job, lambda output: None)

    assert "int3\ndebian13: booting once more" in capsys.readouterr().err
