#!/bin/sh
# Check every shell script with shellcheck, and the Vagrantfile where there is a Vagrant.
# Usage, in the project's folder: tests/scripts.sh SHELLCHECK
set -eu
scripts=$(grep -rlIE '^#!/(usr/)?bin/(env )?(ba)?sh$' .ci examples tests vagrant)
initramfs=$(echo "$scripts" | grep /initramfs-tools/)
# shellcheck disable=SC2046  # no script's name has blanks
"$1" $(echo "$scripts" | grep -v /initramfs-tools/)
# These use what initramfs-tools defines; a comment in them would make new images.
# shellcheck disable=SC2086
"$1" --exclude=SC1091,SC2154 $initramfs
if ! command -v vagrant > /dev/null; then
    echo "vagrant validate: not run: there is no vagrant here"
    exit
fi
# Away from the user's boxes and machines.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export VAGRANT_HOME="$work/home" VAGRANT_DOTFILE_PATH="$work/machines" VAGRANT_CHECKPOINT_DISABLE=1
cd vagrant
# The provider need not be there, but where it is, its options are checked, too.
case $(vagrant plugin list 2> /dev/null) in
    *vagrant-libvirt*) vagrant validate ;;
    *) vagrant validate --ignore-provider ;;
esac
