#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# root.sh: run the commands of qemu-configs/cloud-init/, off its seed, in a fresh Debian 12 of their own: the module is built,
# library and provider are there, and nginx serves TLS with the backend "none", and not without the device where it is to have domains.
# What it does not have is a boot: no cloud-init, no systemd, no kernel of that Debian's.  Needs root; takes some minutes.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"

fail() {
	echo "root: $*"
	exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root, to install a Debian and to run in it"
"$TESTBED/packages.sh" "$TOP/guest-lib/packaging/check-deb.list"
work=$(mktemp -d)
root=$work/root

clean_up() {
	# A daemon of a package's may have it open still.
	umount -l "$root/proc" 2>/dev/null || :
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT

in_root() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C chroot "$root" "$@" >"$work/log" 2>&1 </dev/null
}

mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
	awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || fail "no source of Debian 12 is set up here"
debootstrap --variant=minbase --include=udev,kmod bookworm "$root" "$mirror" >"$work/log" 2>&1 ||
	fail "debootstrap: $(tail "$work/log")"
cp -f /etc/resolv.conf "$root/etc/" 2>/dev/null || :
mount -t proc proc "$root/proc"
make -s -C "$TOP" deb OUT="$work/debs" >"$work/log" 2>&1 || fail "no packages: $(tail "$work/log")"
"$TOP/qemu-configs/cloud-init/make-seed.sh" "$work/debs" "$work/seed"
mkdir "$root/seed"
mcopy -s -i "$work/seed" "::*" "$root/seed/"

# There is no kernel of this machine's version in Debian, which is an old image's case.
in_root sh /seed/setup.sh || fail "setup.sh: $(tail -n 40 "$work/log")"
[ -e "$root/run/epk-reboot" ] || fail "it does not want the kernel booted that it has built for"
in_root sh /seed/setup.sh || fail "setup.sh, once more: $(tail -n 40 "$work/log")"
in_root dkms status && grep -q '^epk/.*: installed' "$work/log" || fail "DKMS: $(cat "$work/log")"
in_root id www-data && grep -q '(epk)' "$work/log" || fail "nginx's worker may not open the device"

# A handshake with that nginx, on a network of its own, with a backend.
shakes_hands() {
	sed "s/^backend = .*/backend = $1/" "$root/etc/ssl/openssl-epk.cnf" >"$root/etc/ssl/tried.cnf"
	unshare --net --pid --fork --kill-child sh -c 'ip link set lo up && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		chroot "$0" sh -c "OPENSSL_CONF=/etc/ssl/tried.cnf nginx || exit 9
			echo Q | openssl s_client -connect 127.0.0.1:443"' "$root" >"$work/log" 2>&1
}

shakes_hands none && grep -q 'TLSv1.3, Cipher is TLS_AES' "$work/log" || fail "nginx: $(cat "$work/log")"
# The device is not there; nobody is served without domains.
[ ! -e "$root/dev/epk" ] || fail "there is a device"
! shakes_hands auto || fail "nginx goes on without domains"
grep -q 'backend auto: there is no /dev/epk' "$work/log" || fail "nginx does not say why: $(cat "$work/log")"
echo "root: all passed"
