#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check-deb.sh: build the Debian packages, and install them in a fresh Debian 12 of their own,
# with its kernel and headers: the module is built, the group is there, the examples
# build and run with what the packages brought, and nothing is left when they are removed.
# Needs root; takes some minutes.
set -eu

fail() {
	echo "check-deb: $*" >&2
	exit 1
}

case ${1-} in
-h | --help)
	sed -n '3,6s/^# //p' "$0"
	exit
	;;
?*) fail "takes no arguments, not $1" ;;
esac
[ "$(id -u)" = 0 ] || fail "needs root, to install a Debian and to run in it"
here=$(cd "$(dirname "$0")" && pwd)
"$here/../../tests/testbed/packages.sh" "$here/check-deb.list"
root=$(mktemp -d)

clean_up() {
	umount "$root/proc" 2>/dev/null || :
	rm -rf --one-file-system "$root" "$root.log"
}
trap clean_up EXIT

# Where this machine's own packages come from.
mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
	awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || fail "no source of Debian 12 is set up here"
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 || {
	tail "$root.log" >&2
	fail "debootstrap failed"
}
cp -f /etc/resolv.conf "$root/etc/" 2>/dev/null || :
mount -t proc proc "$root/proc"
mkdir "$root/debs"
"$here/build-deb.sh" "$root/debs"

in_root() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C \
		chroot "$root" "$@" >"$root/log" 2>&1 </dev/null || {
		tail -40 "$root/log" >&2
		fail "$* failed"
	}
}

in_root sh -c 'apt-get -q install -y --no-install-recommends gcc libc6-dev make pkg-config \
	linux-image-amd64 linux-headers-amd64 /debs/libepk1_*.deb /debs/libepk-dev_*.deb /debs/python3-epk_*.deb /debs/epk-tools_*.deb \
	/debs/epk-host_*.deb /debs/epk-dkms_*.deb /debs/epk-kvm-dkms_*.deb'
in_root dkms status
grep 'epk/.*: installed' "$root/log" || fail "DKMS says: $(cat "$root/log")"
module=$(find "$root/lib/modules" -name 'epk.ko*')
[ -s "$module" ] || fail "no module is installed"
in_root modinfo -F license "/${module#"$root/"}"
grep -q GPL "$root/log" || fail "what is that module?"
in_root modinfo -F signer "/${module#"$root/"}"
grep -q DKMS "$root/log" || fail "DKMS has not signed the module: no Secure Boot would load it"

# KVM for hosts: all three, signed, for this kernel, found before its own; and with EPK.
in_root dkms status
grep -q 'epk-kvm/.*: installed' "$root/log" || fail "DKMS says: $(cat "$root/log")"
release=$(cd "$root/usr/src" && ls -d linux-headers-*-amd64)
release=${release#linux-headers-}
for name in kvm kvm-intel kvm-amd; do
	[ -s "$root/lib/modules/$release/updates/dkms/$name.ko" ] || fail "no $name is installed"
	in_root modinfo -k "$release" -F signer $name
	grep -q DKMS "$root/log" || fail "DKMS has not signed $name"
	in_root modinfo -k "$release" -F vermagic $name
	grep -q "^$release " "$root/log" || fail "$name is for another kernel"
done
in_root modinfo -k "$release" -F parm kvm-intel
grep -q '^epk:' "$root/log" || fail "that KVM has no EPK"
in_root /usr/lib/epk/host-modules --help
# A kernel of another version than the source keeps its own KVM, and nothing fails for it.
package=$root/usr/src/linux-headers-$release/include/generated/package.h
sed -i.kept 's/Debian 6\.1\.[0-9-]*/Debian 6.1.1-1/' "$package"
in_root dkms remove epk-kvm/1.0 --all
in_root dkms add epk-kvm/1.0
in_root /etc/kernel/header_postinst.d/dkms "$release"
grep -q 'apt install linux-source-6.1=6.1.1-1' "$root/log" || fail "nothing is said: $(cat "$root/log")"
[ ! -e "$root/lib/modules/$release/updates/dkms/kvm.ko" ] || fail "KVM was built of another source"
mv "$package.kept" "$package"
# Then the source comes.
in_root sh -c 'dpkg-trigger --by-package=linux-source-6.1 /usr/src/linux-source-6.1.tar.xz &&
	dpkg --configure --pending'
[ -s "$root/lib/modules/$release/updates/dkms/kvm.ko" ] || fail "DKMS does not build KVM anew"

grep -q '^epk:' "$root/etc/group" || fail "no group epk"
in_root sh -c 'cd /usr/share/doc/libepk-dev/examples && make B=/tmp/b CFLAGS="-O2 -Werror" && EPK_BACKEND=none make B=/tmp/b check'
# Without names of hidden functions it finds something, but it can look at all.
in_root sh -c 'epk-scan -a epk_begin_read -a epk_begin_write -a domain_end \
	-a pin_begin_read -a pin_begin_write -a epk_pin_end -a epk_pkru_set \
	-a epk_ept_enter /usr/lib/x86_64-linux-gnu/libepk.so.1 || [ $? = 1 ]'
in_root env EPK_BACKEND=mprotect python3 -c 'import epk
with epk.Domain() as domain:
    with domain.hold(): domain.buffer(10).write(b"secret")'
in_root sh -c 'epk-check --json || [ $? = 1 ]'
in_root sh -c 'epk-host check --json || [ $? = 1 ]'
in_root apt-get -q purge -y epk-dkms epk-kvm-dkms libepk-dev python3-epk libepk1 epk-tools epk-host
find "$root/lib/modules" "$root/usr" "$root/var/lib/dkms" -name '*epk*' | grep -v /share/doc/ |
	grep . && fail "this is left behind"
echo "check-deb: all passed"
