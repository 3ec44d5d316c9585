#!/bin/sh
# The life of a guest, as a developer would type it; `make vagrant-test` sets the stage.
# Usage: cycle.sh BOX-FILE, with CGMEM_BOX, the name to give it, in the environment.
set -eu
cd "$(dirname "$0")"

# Without progress bars.
vagrant() {
    command vagrant --no-tty "$@"
}

step() {
    echo
    echo "== $(date +%T) $*"
    "$@"
}

volumes() {
    virsh --quiet --connect qemu:///system vol-list default 2> /dev/null |
        sed -n 's/^ *\([^ ]*\).*/\1/p' | grep -e "^$(echo "$CGMEM_BOX" | sed 's,/,-VAGRANTSLASH-,')_" \
        -e "_$CGMEM_VM\\." || true
}

clean() {
    vagrant destroy --force
    vagrant box remove --force "$CGMEM_BOX"
    for volume in $(volumes); do
        virsh --connect qemu:///system vol-delete "$volume" default
    done
    [ -z "$(volumes)" ]
}

trap 'clean > /dev/null 2>&1' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

step vagrant validate
step vagrant box add --name "$CGMEM_BOX" "$1"
step vagrant up --provider libvirt
step vagrant ssh -c 'cgmem doctor'
step vagrant ssh -c 'cd /vagrant && sh tests/native.sh .venv/bin/python tests/kernel'
step vagrant provision --provision-with test
step vagrant halt
step vagrant up
step vagrant ssh -c 'cgmem doctor > /dev/null && cgmem run --max 64M -- true'
step clean
trap - EXIT
echo
echo "== $(date +%T) vagrant-test: all of it worked"
