#!/bin/sh
# What `make demo` runs: a program that leaks, under a budget of 64 MB.
set -u
logs=$(mktemp -d "${TMPDIR:-/tmp}/cgmem-demo.XXXXXX") || exit 1
here=$(dirname "$0")

set -- cgmem run --id demo --max 64M --stall-after 4 -v --log-dir "$logs" -- python3 "$here/leak.py"
echo "\$ $*"
"$@"
status=$?
echo "\$ echo \$?"
echo "$status"
echo
echo "\$ cat $logs/memory-alerts.log"
cat "$logs/memory-alerts.log"
echo
echo "\$ cat $logs/subprocess-stats.jsonl"
cat "$logs/subprocess-stats.jsonl"

# 137 = 128 + SIGKILL: the hard limit ended it, which is what the demo is there to show.
if [ "$status" -eq 137 ] && grep -q '"cause": "hard_limit"' "$logs/subprocess-stats.jsonl"; then
    rm -rf "$logs"
    exit 0
fi
echo "demo: expected the hard limit to end the program (status 137); see $logs" >&2
exit 1
