#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# daemon.sh COMMAND...: run a command beside a libvirtd of its own, which keeps its files where nobody else sees them,
# and ends with it.  Needs root.
set -eu

if [ "${1-}" != --inside ]; then
	[ $# -gt 0 ] || { echo "usage: daemon.sh COMMAND..." >&2; exit 2; }
	exec unshare --mount --pid --fork --mount-proc --kill-child "$0" --inside "$@"
fi
shift

for folder in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run; do
	mkdir -p "$folder"
	mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/lock /var/lib/libvirt/images
chmod 755 /run /var/lib/libvirt
mkdir -p /dev/hugepages
mount -t hugetlbfs hugetlbfs /dev/hugepages
# libvirt's own default, which it looks up whatever qemu.conf says; the package that makes it starts daemons, too.
if ! getent passwd libvirt-qemu >/dev/null; then
	{ cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/bin/false"; } >/run/passwd
	{ getent group kvm >/dev/null || echo "kvm:x:106:"; cat /etc/group; echo "libvirt-qemu:x:64055:"; } >/run/group
	mount --bind /run/passwd /etc/passwd
	mount --bind /run/group /etc/group
fi
# QEMU has no more rights than this script, and no groups to be accounted in.
printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'namespaces = []' \
	'cgroup_controllers = []' >/etc/libvirt/qemu.conf
printf '%s\n' 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' >/etc/libvirt/libvirtd.conf
virtlogd -d
libvirtd -d
"$@"
