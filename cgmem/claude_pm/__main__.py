"""`python -m cgmem.claude_pm [-c CODE | -m MODULE | SCRIPT | -] args…`: as `python`, with the
spec's import names answered (`cgmem.claude_pm.install`)."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from cgmem.claude_pm import install

USAGE = "usage: python -m cgmem.claude_pm [-c CODE | -m MODULE | SCRIPT | -] [ARGUMENT ...]\n"


def main(words: list[str]) -> int:
    """Run what the words say, as the interpreter would; its status is the program's own."""
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if not words or (words[0] in ("-c", "-m") and len(words) == 1):
        sys.stderr.write(USAGE)
        return 2
    install()
    first, *rest = words
    if first == "-c":
        _run_code(rest[0], "<string>", ["-c", *rest[1:]])
    elif first == "-m":
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-":
        _run_code(sys.stdin.read(), "<stdin>", words)
    elif first.startswith("-"):
        sys.stderr.write(f"python -m cgmem.claude_pm: unknown option {first}\n{USAGE}")
        return 2
    else:
        sys.argv = words
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")
    return 0


def _run_code(code: str, filename: str, argv: list[str]) -> None:
    sys.argv = argv
    sys.path[0] = ""
    module = type(sys)("__main__")
    sys.modules["__main__"] = module  # pickle and dataclasses look a class's module up
    exec(compile(code, filename, "exec"), module.__dict__)  # noqa: S102  (what it is for)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
