#!/bin/sh
# The kernel and contract tests, or those named, on this machine's own cgroup v2.
# Usage: native.sh PYTHON [PATH OR OPTION OF PYTEST…]
# Under systemd they get a delegated scope of their own, from the user's manager or, for root, the
# system's: the one you are in also holds your shell.
set -eu
python=$1
shift
[ $# -gt 0 ] || set -- tests/kernel tests/contract
set -- "$python" -m pytest -q -rs -p no:cacheprovider -m "not long" "$@"
[ -d /run/systemd/system ] || exec "$@"

scope="systemd-run --scope --quiet --collect --property=Delegate=yes"
[ "$(id -u)" = 0 ] || scope="$scope --user"
# The tests run out of memory on purpose. Managers before version 253 end no scope for that, and
# don't know the property.
if $scope --property=OOMPolicy=continue true 2> /dev/null; then
    scope="$scope --property=OOMPolicy=continue"
fi
# A user's manager delegates the scope and does not mark it (seen with systemd 257). We asked for
# it, so we may.
mark='
import os, sys
own = open("/proc/self/cgroup").read().split("0::")[1].split("\n")[0]
os.setxattr("/sys/fs/cgroup" + own, "user.delegate", b"1")
os.execv(sys.argv[1], sys.argv[1:])
'
# shellcheck disable=SC2086  # a command of words without blanks
exec $scope -- "$python" -I -S -c "$mark" "$@"
