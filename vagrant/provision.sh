#!/bin/sh
# Make a Debian guest fit for `make test-host` and the kernel tests, with cgmem on PATH. Runs as
# root, as often as one likes. With wheels in /wheelhouse nothing comes from the network, as long
# as the box has the packages (the one of `make vagrant-box` has).
set -eu
tree=/vagrant
wheelhouse=/wheelhouse
packages='attr make procps python3 python3-venv rsync strace util-linux'

missing=
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null |
        grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "provision: installing$missing"
    apt-get -q update
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $missing
fi

pip_conf=/etc/pip.conf
if [ -d "$wheelhouse" ]; then
    # Compiling what is never imported takes an emulated guest minutes.
    cat > "$pip_conf" << EOF
# cgmem
[global]
no-index = true
find-links = $wheelhouse
[install]
compile = false
EOF
elif grep -qsx '# cgmem' "$pip_conf"; then
    rm "$pip_conf"
fi

owner=$(stat --format=%U "$tree")
# As the test guests' user: its manager outlives a logout, and what cgmem runs there does.
loginctl enable-linger "$owner"
echo "provision: installing cgmem and its tools for $owner"
runuser --login "$owner" --command "make -s -C '$tree' .venv/.dev"
ln -sf "$tree/.venv/bin/cgmem" /usr/local/bin/cgmem
echo "provision: ready: $(uname -r), systemd $(systemctl --version | sed -n '1s/.*(\(.*\))/\1/p')," \
    "$(runuser --login "$owner" --command 'cgmem --version')"
