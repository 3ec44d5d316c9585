"""Programs that try to get away from whoever started them, and what they do when they have.

Usage: python3 -I -S fugitive.py HOW FILE MEGABYTES
HOW is one of the names in `WAYS`. The one that got away appends "free" to FILE, takes MEGABYTES,
appends "held", and stays for LIFE seconds; the program itself ends after STAY. Standard library
only.
"""

import mmap
import os
import subprocess
import sys
import time

STAY, LIFE = 3.5, 12.0
BOMB = 6
"""Generations of a fork bomb: 2^6 processes, which is a bomb that nobody has to fear."""


def main() -> None:
    """Start the fugitive, wait, end."""
    how, file, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if how == "stay":  # the fugitive, after an exec
        _be_free(file, megabytes)
        return
    WAYS[how](file, megabytes)
    time.sleep(STAY)


def _be_free(file: str, megabytes: int, share: int = 1) -> None:
    _note(file, "free")
    time.sleep(0.5)
    held = []
    for _ in range(max(1, megabytes // share)):
        held.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1][:: mmap.PAGESIZE] = b"x" * ((1 << 20) // mmap.PAGESIZE)
    _note(file, "held")
    time.sleep(LIFE)


def _note(file: str, word: str) -> None:
    with open(file, "a") as opened:
        opened.write(word + "\n")


def _setsid(file: str, megabytes: int) -> None:
    if os.fork() == 0:
        os.setsid()
        _be_free(file, megabytes)
        os._exit(0)


def _double_fork(file: str, megabytes: int) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _be_free(file, megabytes)
        os._exit(0)
    os.wait()


def _nohup(file: str, megabytes: int) -> None:
    words = f"nohup env -i {sys.executable} -I -S {__file__} stay {file} {megabytes} &"
    subprocess.run(["sh", "-c", words], check=True, stdout=subprocess.DEVNULL)


def _reparenting(file: str, megabytes: int) -> None:
    """A child of a child whose parent ends: it belongs to process 1, in the same session."""
    if os.fork() == 0:
        if os.fork() == 0:
            _be_free(file, megabytes)
        os._exit(0)
    os.wait()


def _fork_bomb(file: str, megabytes: int) -> None:
    if os.fork():
        return
    for _ in range(BOMB):
        os.fork()
    if os.getpid() % 2:
        os.setsid()
    _be_free(file, megabytes, share=2**BOMB)
    os._exit(0)


WAYS = {
    "setsid": _setsid,
    "double fork": _double_fork,
    "nohup env -i": _nohup,
    "reparenting": _reparenting,
    "fork bomb": _fork_bomb,
}

if __name__ == "__main__":
    main()
