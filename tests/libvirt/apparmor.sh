#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# apparmor.sh: Debian's AppArmor profile of libvirtd, in Debian's kernel, lets epk-host's hook have its answer where the
# package installs the tool; from /usr/local with the line that epk-host(8) names, and not without.  In QEMU's own emulation.
set -eu -o pipefail
. "$(dirname "$0")/../testbed/lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
kernel=$("$TESTBED/debian-kernel.sh" cloud)
apparmor=$(with_lock debs deb_of_apt apparmor)
libvirt=$(with_lock debs deb_of_apt libvirt-daemon-system)
host=$TOP/kvm-patches/host
line=$(sed -n 's/.*put "\(.*\)" into$/\1/p' "$host/epk-host.8")
[ -n "$line" ] || { echo "apparmor: the manual page names no line"; exit 1; }

# As Debian has its folders: a profile goes by where a file is.
mkdir -p "$root"/{dev,proc,sys,tmp,usr/{bin,sbin,lib,lib64},etc/apparmor.d/local}
for folder in bin sbin lib lib64; do
	ln -s "usr/$folder" "$root/$folder"
done
cp "$(command -v busybox)" "$root/usr/bin/"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/usr/bin/$applet"
done
cp -r "$apparmor"/etc/apparmor* "$libvirt/etc/apparmor.d" "$root/etc/"
install -D -t "$root/usr/share/apparmor-features" "$apparmor"/usr/share/apparmor-features/*
cp "$apparmor/sbin/apparmor_parser" "$apparmor/usr/bin/aa-exec" "$root/usr/bin/"
: >"$root/etc/apparmor.d/local/usr.sbin.libvirtd"
: >"$root/usr/sbin/libvirtd"
make -s -C "$host" install DESTDIR="$root" PREFIX=/usr SYSCONFDIR=/etc
mv "$root/etc/libvirt/hooks/qemu.d/epk" "$root/etc/libvirt/hooks/qemu.d/packaged"
make -s -C "$host" install DESTDIR="$root" PREFIX=/usr/local SYSCONFDIR=/etc
mv "$root/etc/libvirt/hooks/qemu.d/epk" "$root/etc/libvirt/hooks/qemu.d/local"
for file in $(libraries_of "$root/usr/sbin/epk-host" "$root"/usr/bin/{apparmor_parser,aa-exec}); do
	install -D "$file" "$root$file"
done
echo "$line" >"$root/line"
cp "$TOP/qemu-configs/epk-guest.xml" "$root/guest.xml"
cat >"$root/init" <<'END'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t securityfs security /sys/kernel/security
exec </dev/null >/dev/ttyS0 2>&1
load() { apparmor_parser -r /etc/apparmor.d/usr.sbin.libvirtd || echo "no profile"; }
# ask HOOK [COMMAND...]: its status, and what it says, on a line
ask() {
	local hook=$1 said
	shift
	said=$("$@" /etc/libvirt/hooks/qemu.d/$hook guest prepare begin - </guest.xml 2>&1)
	echo "$? $(echo "$said" | tr '\n' ' ')"
}
# The device, which nothing is behind.
mknod /dev/kvm c 10 232
load
echo "label: $(aa-exec -p libvirtd -- cat /proc/self/attr/current)"
echo "free: $(ask packaged)"
echo "packaged: $(ask packaged aa-exec -p libvirtd --)"
echo "local: $(ask local aa-exec -p libvirtd --)"
cat /line >>/etc/apparmor.d/local/usr.sbin.libvirtd
load
echo "local with the line: $(ask local aa-exec -p libvirtd --)"
echo end
poweroff -f
END
chmod 755 "$root/init"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"
timeout 200 qemu-system-x86_64 -machine pc,accel=tcg -cpu max -m 768 -nodefaults -display none -no-reboot -serial stdio \
	-kernel "$kernel/vmlinux" -initrd "$work/initrd" -append "console=ttyS0 quiet mitigations=off" </dev/null |
	tr -d '\r' >"$work/said" || { cat "$work/said"; echo "apparmor: the guest ends badly"; exit 1; }

fail() {
	echo "apparmor: $*"
	cat "$work/said"
	exit 1
}

said() { sed -n "s/^$1: //p" "$work/said"; }

answer='^1 .*/dev/kvm: mode .*: No such device .*: its guest uses EPK, which this host does not give $'
[ "$(said label)" = "libvirtd (enforce)" ] || fail "the profile is not in force"
said free | grep -q "$answer" || fail "the hook answers something else on this machine"
[ "$(said packaged)" = "$(said free)" ] || fail "the profile keeps the packaged hook from its answer"
said local | grep -q 'Permission denied guest: .* /usr/local/sbin/epk-host, .* does not answer' || fail "without the line /usr/local is not refused"
[ "$(said 'local with the line')" = "$(said free)" ] || fail "the line does not do: $line"
echo "apparmor: the hook has its answer from /usr, and from /usr/local with: $line"
