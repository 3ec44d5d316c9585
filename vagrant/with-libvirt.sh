#!/bin/sh
# Run a command beside a libvirt daemon of its own, on a host where none runs (no systemd, say).
# Usage, as root: with-libvirt.sh STATE COMMAND…   (STATE: a folder for disks, settings and logs)
#
# Both are in process, mount and network namespaces of their own. The daemon finds no cgroups, can't
# write to /etc, its /etc/libvirt, /var/lib/libvirt and /run are not the host's, and its bridge, its
# firewall rules and every process of it end with the command. So the guests can't reach the
# Internet, either.
# vagrant halt first: what runs then is cut off.
set -eu
if [ "${1:-}" != --inside ]; then
    [ $# -ge 2 ] || { echo "usage: with-libvirt.sh STATE COMMAND…" >&2; exit 2; }
    exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc --net \
        sh "$0" --inside "$@"
fi

state=$2
shift 2
mkdir -p "$state/etc" "$state/lib" "$state/log"
echo 'auth_unix_rw = "none"' > "$state/etc/libvirtd.conf"
cat > "$state/etc/qemu.conf" << EOF
user = "root"
group = "root"
stdio_handler = "file"
cgroup_controllers = []
security_driver = "none"
EOF
state=$(cd "$state" && pwd)

# A new sysfs shows the new network's devices and has no cgroups in it.
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
if grep -q ' - cgroup' /proc/self/mountinfo; then
    echo "with-libvirt: cgroups are mounted elsewhere, too; libvirtd would use them" >&2
    exit 125
fi
mount -t tmpfs -o mode=755 tmpfs /run
mount --rbind /etc /etc
mount -o remount,bind,ro /etc
# libvirtd wants the user that Debian's libvirt-daemon-system makes, though it is told another one.
if ! id libvirt-qemu > /dev/null 2>&1; then
    { cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin"; } > "$state/passwd"
    { cat /etc/group; echo "libvirt-qemu:x:64055:"; } > "$state/group"
    mount --bind "$state/passwd" /etc/passwd
    mount --bind "$state/group" /etc/group
fi
mkdir -p /var/lib/libvirt /var/log/libvirt
mount --bind "$state/etc" /etc/libvirt
mount --bind "$state/lib" /var/lib/libvirt
mount --bind "$state/log" /var/log/libvirt
ip link set lo up

/usr/sbin/libvirtd > "$state/log/libvirtd.log" 2>&1 &
daemon=$!
tries=0
until virsh --quiet --connect qemu:///system list > /dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 120 ] || ! kill -0 "$daemon"; then
        echo "with-libvirt: libvirtd did not come up; its log:" >&2
        tail -n 25 "$state/log/libvirtd.log" >&2
        exit 125
    fi
    sleep 0.5
done
status=0
"$@" || status=$?
kill "$daemon"
wait "$daemon" || true
exit "$status"
