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

libvirt() {
    virsh --quiet --connect qemu:///system "$@"
}

# The machines, networks and pools that libvirt has.
kept() {
    for what in list net-list pool-list; do
        libvirt "$what" --all --name | sed "/./!d; s/^/$what: /"
    done
}

volumes() {
    libvirt vol-list default 2> /dev/null |
        sed -n 's/^ *\([^ ]*\).*/\1/p' | grep -e "^$(echo "$CGMEM_BOX" | sed 's,/,-VAGRANTSLASH-,')_" \
        -e "_$CGMEM_VM\." || true
}

clean() {
    vagrant destroy --force
    vagrant box remove --force "$CGMEM_BOX"
    for volume in $(volumes); do
        libvirt vol-delete "$volume" default
    done
    [ -z "$(volumes)" ]
    # vagrant-libvirt makes this pool where there is none, and leaves it.
    case $before in
        *"pool-list: default"*) ;;
        *) libvirt pool-destroy default && libvirt pool-undefine default ;;
    esac
    after=$(kept)
    echo "machines, networks and pools: ${after:-none}; before: ${before:-none}"
    [ "$after" = "$before" ]
}

before=$(kept)
trap 'set +e; clean > /dev/null 2>&1' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

step vagrant validate
step vagrant box add --name "$CGMEM_BOX" "$1"
step vagrant up --provider libvirt
step vagrant ssh -c 'cgmem doctor'
# Once more changes nothing.
step vagrant provision
step vagrant ssh -c 'cd /vagrant && sh tests/native.sh .venv/bin/python tests/kernel'
step vagrant provision --provision-with test
step vagrant halt
step vagrant up
step vagrant ssh -c 'cgmem doctor > /dev/null && cgmem run --max 64M -- true'
step clean
trap - EXIT
echo
echo "== $(date +%T) vagrant-test: all of it worked"
