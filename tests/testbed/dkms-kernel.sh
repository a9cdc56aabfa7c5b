#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# dkms-kernel.sh: Debian's stock kernel for the host, as debian-kernel.sh has it for the guest, and
# KVM's modules for it, built of what epk-kvm-dkms installs.  Print the directory:
#   vmlinux bzImage tree irqbypass.ko msr.ko kvm.ko kvm-intel.ko
set -eu
. "$(dirname "$0")/lib.sh"

guest=$("$TESTBED/debian-kernel.sh" stock)
tree=$(readlink -f "$guest/tree")
release=${tree##*/linux-headers-}
version=$(dpkg-query -W -f '${Version}' "linux-headers-$release")
mapfile -t sources < <(find "$TOP/kvm-patches/dkms" -maxdepth 1 -type f | sort; series_patches)
result=$EPK_CACHE/kernel/$(content_key "${guest##*/}" -- "$0" "${sources[@]}")
log=$EPK_CACHE/log/dkms-kernel.log

build() {
	local source deb
	[ ! -f "$result/complete" ] || return 0
	say "kernel: building KVM for Debian's $release, log in $log"
	rm -rf "$result.tmp" "$result"
	mkdir -p "$result.tmp" "${log%/*}"
	make -s -C "$TOP/kvm-patches/dkms" DESTDIR="$result.tmp" install-source
	source=$(echo "$result.tmp"/usr/src/epk-kvm-*)
	make -C "$source" -j"$(nproc)" KDIR="$tree" all >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		die "kernel: KVM for Debian's $release cannot be built"
	}
	deb=$(with_lock debs deb_unpacked "linux-image-$release" "$version")
	strip -g -o "$result.tmp/kvm.ko" "$source/build/tree/arch/x86/kvm/kvm.ko"
	strip -g -o "$result.tmp/kvm-intel.ko" "$source/build/tree/arch/x86/kvm/kvm-intel.ko"
	cp "$deb/lib/modules/$release/kernel"/{virt/lib/irqbypass,arch/x86/kernel/msr}.ko "$result.tmp"
	rm -rf "$result.tmp/usr"
	ln -s "$guest"/{vmlinux,bzImage,tree} "$result.tmp"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	say "kernel: done"
}

set -o pipefail
[ -f "$result/complete" ] || with_lock dkms-kernel build
echo "$result"
