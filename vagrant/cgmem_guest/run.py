"""One job in one guest, from the options to the exit code."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import host
from .cache import cache_root, prune
from .deps import compile_site, ensure_deps, ensure_project, pytest_plugins, requirements
from .errors import GuestError, GuestStoppedError, KernelBrokeError
from .image import Image, ensure_image
from .jobtar import Cargo, write_job_tar
from .machine import Run, Sink
from .qemu import Accelerator, Disk, Machine, choose_accelerator
from .recipe import Guest
from .report import say
from .results import Results, read_results
from .tree import copy_tree, project_files

#: Sparse, so the size costs nothing; the guest's tar is cut off beyond it.
RESULTS_BYTES = 1 << 30
SIZE = re.compile(r"(\d+)([KMG]?)B?", re.IGNORECASE)
TROUBLE = re.compile(r"Kernel panic|BUG:|Oops:|Unable to mount root|emergency mode")
KEEP_LOGS_DAYS = 3.0


@dataclass(frozen=True)
class Job:
    """A command, and the guest and options to run it with."""

    guest: Guest
    command: Sequence[str]
    tree: Path
    smp: int = 2
    memory: str = "3G"
    cmdline: str = ""
    swap: str | None = None
    thp: str | None = None
    user: bool = False
    timeout: float = 1800.0
    results: Path | None = None
    from_source: bool = False
    accelerator: Accelerator | None = None


@dataclass(frozen=True)
class Finished:
    """How a job ended: its exit code, seconds until it began and until all was done, where."""

    exit_code: int
    boot_seconds: float
    total_seconds: float
    accelerator: Accelerator
    kernel: str
    python: str


def run_job(job: Job, sink: Sink, stop: threading.Event | None = None) -> Finished:
    """Run `job` and give its output to `sink` as it comes; b"" says that this was all.

    Raises GuestError, with the console's last lines and its path, when the guest fails to boot,
    runs out of time, oopses, returns no result, or when another thread sets `stop`. One whose
    kernel breaks before the job begins is booted once more: while an emulated kernel patches its
    own code, the other processor may meet the half of it (one boot in sixty, an "int3" oops).
    """
    try:
        return _run_once(job, sink, stop)
    except KernelBrokeError as err:
        say(f"{err}\n{job.guest.name}: booting once more")
        return _run_once(job, sink, stop)


def _run_once(job: Job, sink: Sink, stop: threading.Event | None) -> Finished:
    host.require_amd64()
    host.require(["qemu-system-x86_64", "setpriv"])
    began = time.monotonic()
    runs = cache_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    prune(runs, "*-*", keep=None, older_than_days=KEEP_LOGS_DAYS)
    folder = Path(tempfile.mkdtemp(prefix=f"{job.guest.name}-", dir=runs))
    try:
        machine = _prepare(job, folder)
        run = Run(machine, sink, job.timeout, stop or threading.Event())
        results = _carry_out(run, job, folder)
    finally:
        for disk in folder.glob("*.disk"):
            disk.unlink()
    shutil.rmtree(folder)
    return Finished(
        exit_code=results.exit_code,
        boot_seconds=run.boot_seconds or 0.0,
        total_seconds=time.monotonic() - began,
        accelerator=machine.accelerator,
        kernel=results.kernel,
        python=results.python,
    )


def _prepare(job: Job, folder: Path) -> Machine:
    """Have the image, and make the disks of this one run."""
    image = ensure_image(job.guest)
    disks = [
        Disk("job", folder / "job.disk"),
        Disk("results", _empty(folder / "results.disk", RESULTS_BYTES)),
    ]
    deps = ensure_deps(image, job.tree, job.guest.groups)
    if deps:
        disks.append(Disk("deps", deps, read_only=True))
    if job.swap:
        disks.append(Disk("swap", _empty(folder / "swap.disk", size_bytes(job.swap))))
    write_job_tar(folder / "job.disk", _cargo(job, image, folder / "stage"))
    shutil.rmtree(folder / "stage")
    return Machine(
        image=image,
        guest=job.guest,
        accelerator=job.accelerator or choose_accelerator(image),
        smp=job.smp,
        memory=job.memory,
        disks=disks,
        console=folder / "console.log",
        live=folder / "live.log",
        cmdline=job.cmdline,
    )


def _cargo(job: Job, image: Image, stage: Path) -> Cargo:
    """Copy the tree first: it may change under us, and it gets bytecode that must not stay."""
    copy_tree(job.tree, project_files(job.tree), stage)
    project = None if job.from_source else ensure_project(image, stage)
    compile_site(image, stage, "/job/src")
    shared = job.tree.parent / "shared"
    return Cargo(
        guest=job.guest,
        command=job.command,
        user=job.user,
        thp=job.thp,
        timeout=job.timeout,
        src=stage,
        project=project,
        pytest_plugins=pytest_plugins(requirements(job.tree / "pyproject.toml", job.guest.groups)),
        shared=shared if shared.is_dir() else None,
        from_source=job.from_source,
    )


def _carry_out(run: Run, job: Job, folder: Path) -> Results:
    console = folder / "console.log"
    try:
        run.to_the_end()
        results = read_results(folder / "results.disk", job.results)
    except GuestStoppedError:
        raise
    except GuestError as err:
        tail = host.last_lines(console, 30)
        trouble = first_trouble(console)
        raise (KernelBrokeError if trouble and run.boot_seconds is None else GuestError)(
            f"{job.guest.name}: {err}{trouble}\nlast lines of the console:\n{tail}\n"
            f"the whole console log: {console}"
        ) from err
    finally:
        _keep_logs(folder, job.results)
    run.sink(not_yet_shown(results.output, (folder / "live.log").read_bytes()))
    run.sink(b"")
    if job.results:
        (job.results / "output.log").write_bytes(results.output)
    return results


def _keep_logs(folder: Path, results: Path | None) -> None:
    """Copy what is known by now to the results, also when the guest failed."""
    for name, kept_as in (("console.log", "console.log"), ("live.log", "output.log")):
        if results and (folder / name).exists():
            shutil.copyfile(folder / name, results / kept_as)


def first_trouble(console: Path) -> str:
    """Return the console's first line that tells of a broken kernel, on a line of its own."""
    if console.exists():
        for line in console.read_text(errors="replace").splitlines():
            if TROUBLE.search(line):
                return f"\nfirst sign of trouble: {line.strip()}"
    return ""


def not_yet_shown(output: bytes, live: bytes) -> bytes:
    """Return what of the job's whole `output` the serial port has not shown in `live`.

    The port is a convenience; should it have lost a byte, the whole output is shown again.
    """
    if output.startswith(live):
        return output[len(live) :]
    return b"\ncgmem_guest: the serial port lost some output; here is all of it:\n" + output


def _empty(path: Path, size: int) -> Path:
    with path.open("wb") as handle:
        handle.truncate(size)
    return path


def size_bytes(text: str) -> int:
    """Return the bytes that `400M`, `2G` or a plain number stand for (powers of 1024).

    Raises GuestError for anything else and for zero.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise GuestError(f"{text!r} is no size; write it like 400M or 2G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
