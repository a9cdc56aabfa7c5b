#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# headers.sh: build the guest module as DKMS does, against the headers of each of Debian's
# kernels that is installed here: 6.1, its cloud flavour, and 6.12.  No warning is allowed.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$top/guest-kmod/packaging/dkms.conf")
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
	echo "headers: $*"
	failed=1
}

build() {
	local name=$1 log=$work/log
	rm -rf "$work/dkms" "$work/modules"
	mkdir "$work/dkms" "$work/modules"
	# The trees are our own, so that nothing is installed on this machine.
	if ! dkms build "epk/$version" -k "$name" --sourcetree "$work/usr/src" --dkmstree "$work/dkms" \
		--installtree "$work/modules" --kernelsourcedir "/usr/src/linux-headers-$name" \
		>"$log" 2>&1; then
		cat "$log" "$work/dkms/epk/$version/build/make.log" 2>/dev/null || :
		fail "$name: the build failed"
		return
	fi
	find "$work/dkms" -name make.log -exec cat {} + >"$log"
	if grep -i 'warning' "$log"; then
		fail "$name: the build warns"
	fi
	if [ "$(find "$work/dkms" -name 'epk.ko*' | wc -l)" -lt 1 ]; then
		fail "$name: no module"
	fi
	echo "headers: $name: built"
}

[ -x "$(command -v dkms)" ] || { echo "headers: dkms is missing"; exit 1; }
make -s -C "$top/guest-kmod" DESTDIR="$work" install-source install-config
for file in udev/rules.d/70-epk.rules sysusers.d/epk.conf modules-load.d/epk.conf \
	modprobe.d/epk.conf; do
	[ -s "$work/usr/lib/$file" ] || fail "$file is not installed"
done

count=0
for dir in /usr/src/linux-headers-*amd64; do
	[ -e "$dir/Makefile" ] || continue
	build "${dir#/usr/src/linux-headers-}"
	count=$((count + 1))
done
for want in 6.1.0-[0-9]*-amd64 6.1.0-*-cloud-amd64 '6.12.*-amd64'; do
	# shellcheck disable=SC2086
	ls -d /usr/src/linux-headers-$want >/dev/null 2>&1 || fail "no headers of $want here"
done
[ "$count" -gt 0 ] || fail "no kernel headers here"
[ $failed = 0 ] && echo "headers: $count kernels, all built"
exit $failed
