#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kernel.sh: build the kernel of kernel.config from Debian's source as it is.  Print the
# directory that holds bzImage, vmlinux and tree, where tree is what modules are built against.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
here=$TOP/tests/firmware

tarball=/usr/src/linux-source-6.1.tar.xz
[ -f "$tarball" ] || die "kernel: $tarball is missing; run tests/testbed/packages.sh"
version=$(dpkg-query -W -f '${Version}' linux-source-6.1)
result=$EPK_CACHE/kernel/$(content_key "$version" "$(gcc -dumpfullversion)" -- "$here/kernel.config" "$0")
log=$EPK_CACHE/log/kernel-firmware.log

kmake() {
	make -C "$result.tmp/tree" -j"$(nproc)" ARCH=x86_64 KBUILD_BUILD_TIMESTAMP=0 "$@" \
		</dev/null >>"$log" 2>&1 || die "kernel: the build failed, see $log"
}

build() {
	local line
	[ ! -f "$result/complete" ] || return 0
	mkdir -p "${log%/*}"
	: >"$log"
	rm -rf "$result.tmp" "$result"
	mkdir -p "$result.tmp/tree"
	say "kernel: building one for layouts of firmware, log in $log"
	tar -C "$result.tmp/tree" --strip-components=1 -xf "$tarball"
	kmake -s KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
	while read -r line; do
		grep -qxF "$line" "$result.tmp/tree/.config" || die "kernel: the configuration lost $line"
	done < <(list_lines "$here/kernel.config")
	kmake bzImage vmlinux modules
	cp "$result.tmp/tree/arch/x86/boot/bzImage" "$result.tmp/tree/vmlinux" "$result.tmp"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	say "kernel: done"
}

set -o pipefail
[ -f "$result/complete" ] || with_lock firmware-kernel build
echo "$result"
