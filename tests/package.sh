#!/bin/sh
# The package as a user gets it: sdist, wheel from the sdist, installed in an empty venv, run
# outside of the checkout. Usage: tests/package.sh PYTHON (one that has `build`)
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build -q --no-isolation --outdir "$work/dist" .
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip -q install "$work"/dist/*.whl
cd "$work"
"$work/venv/bin/cgmem" --version
grep -q 'memory budget' "$work/venv/share/man/man1/cgmem-run.1"
"$work/venv/bin/python" -c '
import cgmem, cgmem_backends.cgroup2, cgmem_backends.psutil_backend
import importlib.resources as resources
assert (resources.files("cgmem") / "py.typed").is_file()
assert (resources.files("cgmem_backends") / "py.typed").is_file()
'
"$work/venv/bin/cgmem" run --log-dir "$work/logs" -- "$work/venv/bin/python" -c 'print("ran under a budget")'
test -s "$work/logs/subprocess-stats.jsonl"
echo "package: the wheel built from the sdist works in an empty venv"
