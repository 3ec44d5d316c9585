"""A program that takes memory at a given speed and says when it had how much.

Usage: python3 -I -S hog.py FILE MEGABYTES BYTES_A_SECOND PROCESSES    (speed 0: as fast as it can)
FILE, made by `book`, is a row of numbers for each process: its pid, then the monotonic time at
which it had touched its first, second, … megabyte. Standard library only: it starts many times.
"""

import mmap
import os
import struct
import sys
import time

STEP = 1 << 20
NUMBER = 8


def book(path: str, megabytes: int, processes: int) -> None:
    """Make FILE, so that its pages are charged to the caller."""
    with open(path, "wb") as file:
        file.write(bytes(NUMBER * (1 + megabytes) * processes))


def read(path: str, megabytes: int, processes: int) -> "tuple[list[int], list[float]]":
    """Return the pids, and when each megabyte was touched, by whoever, sorted."""
    with open(path, "rb") as file:
        content = file.read()
    width = NUMBER * (1 + megabytes)
    pids, times = [], []
    for number in range(processes):
        pid, *row = struct.unpack_from(f"{1 + megabytes}d", content, number * width)
        pids.append(int(pid))
        times += [at for at in row if at]
    return [pid for pid in pids if pid], sorted(times)


def main() -> None:
    """Take the memory, then hold it for longer than anybody waits."""
    path, megabytes, speed, processes = sys.argv[1], *map(int, sys.argv[2:5])
    number = 0
    while number < processes - 1 and os.fork():
        number += 1
    with open(path, "r+b") as file:
        times = mmap.mmap(file.fileno(), 0)
    width = NUMBER * (1 + megabytes)
    row = number * width
    struct.pack_into("d", times, row, os.getpid())
    touch = b"x" * (STEP // mmap.PAGESIZE)
    began, held = time.monotonic(), []
    for step in range(megabytes):
        if speed:
            ahead = began + (step + 1) * STEP * processes / speed - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        held.append(mmap.mmap(-1, STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1][:: mmap.PAGESIZE] = touch
        struct.pack_into("d", times, row + (1 + step) * NUMBER, time.monotonic())
    time.sleep(60)


if __name__ == "__main__":
    main()
