"""Boot throw-away guests with a real cgroup v2 kernel and run a command or the tests in them.

Covers: building Debian guest images, booting them under QEMU, shipping the project in and the
results out, and judging the guests' test reports.
Does not cover: the Vagrant boxes (see the Vagrantfile beside this package).
See also: README.md in this folder.
"""
