#!/bin/bash
# Makes the guest's image in DIR: root.ext4, kernel, initrd. Everything is Debian's. `vm build` calls it, in a mount and a
# PID namespace of its own, so that nothing of it outlives it.
set -euo pipefail
dir=$1
here=$(dirname "$(readlink -f "$0")")
root=$dir/root
suite=bookworm
kernel=linux-image-cloud-amd64
packages=(
    systemd systemd-sysv dbus dbus-user-session libpam-systemd # PID 1, its bus, users' own managers
    apparmor criu runc crun                                    # what rrun works with, and its peers
    docker.io containerd podman                                # what calls it
    busybox-static strace procps kmod python3-minimal          # the tests, the agent
    attr libcap2-bin iproute2 jq uidmap util-linux
)

# The host's own mirrors, if they are those of the suite.
sources=/etc/apt/sources.list.d/debian.sources
grep -qs "^Suites:.*$suite" $sources || sources=
# The kernel is unpacked and not installed: no boot loader, no initramfs-tools.
fetch_kernel="mkdir /kernel; cd /kernel
    apt-get -qq -o APT::Sandbox::User=root download \$(apt-cache depends $kernel | grep -o \"linux-image-[0-9].*\")
    dpkg-deb -x linux-image-*.deb .; mv lib/modules /usr/lib; mv boot/vmlinuz-* /boot; rm -r /kernel"
mmdebstrap --quiet --variant=minbase --mode=root --include="$(IFS=,; echo "${packages[*]}")" \
    --aptopt='Apt::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/'{man,doc,locale,info}'/*' \
    --customize-hook="chroot \"\$1\" sh -euc '$fetch_kernel'" \
    $suite "$root" $sources >&2

cp -r --no-preserve=ownership "$here"/guest/. "$root"
rm -f "$root"/etc/resolv.conf
chroot "$root" sh -euc '
    useradd --create-home --uid 1000 --shell /bin/bash user
    usermod --add-subuids 100000-165535 --add-subgids 100000-165535 user
    mkdir -p /share /var/lib/systemd/linger
    touch /var/lib/systemd/linger/user      # its manager runs without a login
    systemctl -q enable agent.service
    # a daemon runs where a test starts it
    systemctl -q disable docker.service docker.socket containerd.service
    # no terminal to log in at, nothing that comes by itself
    systemctl -q mask getty.target timers.target e2scrub_reap.service systemd-pstore.service'
version=$(basename "$root"/lib/modules/*)
chroot "$root" depmod "$version"
cp "$root/boot/vmlinuz-$version" "$dir/kernel"

# An initrd that finds the disk and no more.
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console)
mkdir -p "$dir"/initrd.d/{bin,proc,sys,dev,root}
cp "$root/bin/busybox" "$dir/initrd.d/bin"
for module in "${modules[@]}"; do
    cp "$(find "$root/lib/modules" -name "$module.ko")" "$dir/initrd.d"
done
cat >"$dir/initrd.d/init" <<END
#!/bin/busybox sh
b=/bin/busybox
\$b mount -t devtmpfs dev /dev
for module in ${modules[*]}; do \$b insmod /\$module.ko; done
\$b mount -t ext4 -o noatime /dev/vda /root
\$b mount --move /dev /root/dev
exec \$b switch_root /root /sbin/init
END
chmod 755 "$dir/initrd.d/init"
(cd "$dir/initrd.d" && find . | ../root/bin/busybox cpio -o -H newc) >"$dir/initrd" 2>/dev/null

truncate -s 3G "$dir/root.ext4"
mke2fs -q -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1,nodiscard -d "$root" "$dir/root.ext4"
rm -rf "$root" "$dir/initrd.d"
