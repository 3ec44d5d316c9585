"""A program that takes a known amount of memory: `python hog.py --mb 64 --hold 5`.

Takes the memory in steps, touches every page, prints `ready PID` once all of it (the children's
too) is resident, holds it, and ends with the asked-for status. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MB = 1 << 20


def steps(total: int, step: int) -> Iterator[int]:
    """Cut `total` into pieces of at most `step`."""
    while total > 0:
        yield min(step, total)
        total -= step


def touched(size: int, *, shared: bool) -> mmap.mmap:
    """Map `size` anonymous bytes and write one byte to each page."""
    kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    memory = mmap.mmap(-1, size, flags=kind | mmap.MAP_ANONYMOUS)
    memory[:: mmap.PAGESIZE] = b"x" * len(range(0, size, mmap.PAGESIZE))
    return memory


def allocate(options: argparse.Namespace, *, shared: bool) -> list[mmap.mmap]:
    """Take all memory in anonymous maps, step by step."""
    taken = []
    for size in steps(options.mb * MB, options.step_mb * MB):
        taken.append(touched(size, shared=shared))
        time.sleep(options.pause)
    return taken


def fill_file(options: argparse.Namespace) -> None:
    """Write the bytes to a file instead: on tmpfs they stay charged after this process."""
    with Path(options.file).open("wb") as file:
        for size in steps(options.mb * MB, options.step_mb * MB):
            file.write(b"x" * size)
            file.flush()
            time.sleep(options.pause)


def take(options: argparse.Namespace) -> list[mmap.mmap]:
    """Take the memory in the way that the options ask for."""
    if options.file is not None:
        fill_file(options)
        return []
    return allocate(options, shared=options.shared)


def touch_all(memory: list[mmap.mmap]) -> None:
    """Read every page, so that a forked child maps the pages that it shares."""
    for piece in memory:
        piece[:: mmap.PAGESIZE]


def start_child(options: argparse.Namespace, inherited: list[mmap.mmap]) -> tuple[int, int]:
    """Fork one child; returns its pid and a descriptor that gives a byte once it is ready."""
    ready, say_ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(say_ready)
        return pid, ready
    status = 1
    with contextlib.suppress(BaseException):
        held = inherited if options.shared else take(options)
        touch_all(held)
        os.write(say_ready, b"r")
        time.sleep(options.hold)
        status = 0
    os._exit(status)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, required=True, help="memory to take, in 2**20 bytes")
    parser.add_argument("--step-mb", type=int, default=8, help="take it in steps of this size")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two steps")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds to keep it")
    parser.add_argument(
        "--shared", action="store_true", help="MAP_SHARED, and children share it across fork"
    )
    parser.add_argument("--file", help="fill this file (tmpfs) instead of mapping memory")
    parser.add_argument(
        "--children", type=int, default=0, help="children that each take --mb too, or share it"
    )
    parser.add_argument("--then-exit", type=int, default=0, help="exit status")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Take the memory, say so, hold it, end."""
    options = parse(arguments)
    memory = take(options)
    children = [start_child(options, memory) for _ in range(options.children)]
    for _, ready in children:
        os.read(ready, 1)
    sys.stdout.write(f"ready {os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(options.hold)
    for pid, _ in children:
        os.waitpid(pid, 0)
    return int(options.then_exit)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
