"""The command line: `run`, `test`, `build`, and for Vagrant `box` and `cycle`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .cache import cache_root
from .errors import GuestError
from .image import ensure_images
from .recipe import GUESTS
from .report import say
from .run import Job, run_job, size_bytes
from .suite import run_suite
from .vagrant import BOXES, ensure_stock, how_to_use, run_cycle

#: Also a job's own status may be 125; the message on stderr tells.
GUEST_FAILED = 125
#: How much longer --matrix's guests may take: the first runs the tests marked `long`, too.
LONG = 4
TREE = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: the job's, or 125 when the guest failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = ACTIONS[options.action](options)
    except GuestError as err:
        say(str(err))
        status = GUEST_FAILED
    except (KeyboardInterrupt, Terminated) as stopped:
        say("stopped")
        status = 128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)
    return status


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, not for `except Exception`."""


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; what follows `--` is `command`."""
    before, after = split(arguments)
    options = _parser().parse_args(before)
    options.command = after
    if options.action == "run" and not after:
        _parser().error("run: give a command after --")
    return options


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and after the first `--`."""
    words = list(arguments)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cgmem_guest", description="Throw-away guests with a real cgroup v2 kernel."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser(
        "run", help="run a command in a guest", usage="cgmem_guest run [options] -- CMD…"
    )
    run.add_argument("--guest", choices=GUESTS, default="debian13")
    run.add_argument("--cmdline", default="", metavar="TEXT", help="more kernel parameters")
    run.add_argument("--swap", metavar="SIZE", help="a swap disk, switched on before the job")
    run.add_argument("--thp", choices=("always", "never", "madvise"), help="transparent huge pages")
    run.add_argument(
        "--user",
        action="store_true",
        help="run the job as the ordinary user tester, in a login session",
    )
    run.add_argument(
        "--count",
        action="store_true",
        help="emulate, one processor: a nanosecond of the guest's clock is one instruction",
    )
    run.add_argument(
        "--no-install",
        action="store_true",
        help="don't install the project; PYTHONPATH holds its source folders",
    )
    _common(run, timeout=1800.0)
    test = actions.add_parser(
        "test",
        help="run tests/kernel and tests/contract in every guest",
        usage="cgmem_guest test [options] [-- PYTEST ARGS…]",
    )
    test.add_argument(
        "--matrix",
        action="store_true",
        help="kernels x swap x huge pages x PSI, and long tests; multiplies --timeout by 4",
    )
    test.add_argument("--parallel", type=int, default=2, metavar="N", help="guests at a time (2)")
    _common(test, timeout=1800.0)
    build = actions.add_parser("build", help="build missing images")
    build.add_argument("guests", nargs="*", metavar="GUEST", help=f"of {', '.join(GUESTS)}")
    box = actions.add_parser("box", help="build Vagrant's box and its wheels; say how to use them")
    cycle = actions.add_parser("cycle", help="run Vagrant's guest from `up` to `destroy`")
    for action in (box, cycle):
        action.add_argument("--guest", choices=BOXES, default=BOXES[0])
    return parser


def _common(parser: argparse.ArgumentParser, timeout: float) -> None:
    parser.add_argument("--smp", type=int, default=2, metavar="N", help="processors (2)")
    parser.add_argument("--memory", default="3G", metavar="SIZE", help="of a guest (3G)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=timeout,
        metavar="SECONDS",
        help="for a guest from power-on to power-off (%(default).0f)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where the job's /job/results and the console log go",
    )
    parser.add_argument(
        "--tree",
        type=Path,
        default=TREE,
        metavar="DIR",
        help="the project to take along (this one)",
    )


def _run(options: argparse.Namespace) -> int:
    size_bytes(options.memory)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
    job = Job(
        guest=GUESTS[options.guest],
        command=options.command,
        tree=options.tree.resolve(),
        smp=1 if options.count else options.smp,
        memory=options.memory,
        cmdline=options.cmdline,
        swap=options.swap,
        thp=options.thp,
        user=options.user,
        timeout=options.timeout,
        results=options.results,
        from_source=options.no_install,
        accelerator="count" if options.count else None,
    )
    done = run_job(job, write_out)
    say(
        f"{job.guest.name}: exit {done.exit_code}; {done.boot_seconds:.0f} s to the job, "
        f"{done.total_seconds:.0f} s in all ({done.accelerator})"
    )
    return done.exit_code


def _test(options: argparse.Namespace) -> int:
    """Return 0 only when every test in every guest ran and passed."""
    size_bytes(options.memory)
    results = options.results or Path(tempfile.mkdtemp(prefix="test-", dir=_runs()))
    template = Job(
        guest=GUESTS["debian13"],
        command=options.command,
        tree=options.tree.resolve(),
        smp=options.smp,
        memory=options.memory,
        timeout=options.timeout * (LONG if options.matrix else 1),
    )
    good = run_suite(template, options.matrix, options.parallel, results.resolve())
    return 0 if good else 1


def _runs() -> Path:
    runs = cache_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    return runs


def write_out(output: bytes) -> None:
    """Copy a piece of the job's output to stdout, as plain text lines."""
    sys.stdout.buffer.write(output.replace(b"\r", b""))
    sys.stdout.buffer.flush()


def _box(options: argparse.Namespace) -> int:
    stock = ensure_stock(GUESTS[options.guest], TREE)
    print(how_to_use(stock, TREE))
    return 0


def _cycle(options: argparse.Namespace) -> int:
    return run_cycle(GUESTS[options.guest], TREE)


def _build(options: argparse.Namespace) -> int:
    unknown = sorted(set(options.guests) - set(GUESTS))
    if unknown:
        raise GuestError(f"no such guest: {', '.join(unknown)}; there are {', '.join(GUESTS)}")
    for image in ensure_images(options.guests or GUESTS):
        print(image.folder)
    return 0


ACTIONS = {"run": _run, "build": _build, "test": _test, "box": _box, "cycle": _cycle}
