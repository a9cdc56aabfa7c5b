#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# debian-kernel.sh stock|cloud|backports: Debian's own kernel for the guest, of the package that
# belongs to the headers installed here.  It is unpacked into the cache, never installed.
# Print the directory that holds the result:
#   vmlinux bzImage modules/ tree
# where tree is what modules are built against and modules/ has what the tests need,
# numbered in the order of loading.
set -eu
. "$(dirname "$0")/lib.sh"

# For O_DIRECT: a RAM disk and a file system, which the test kernel has built in.
modules="brd ext4"

flavour=$1
case $flavour in
stock) pattern='6.1.0-*[0-9]-amd64' ;;
cloud) pattern='6.1.0-*-cloud-amd64' ;;
backports) pattern='6.12.*+deb12-amd64' ;;
*) die "kernel: no such kernel of Debian: $flavour" ;;
esac

# shellcheck disable=SC2086,SC2012
release=$(cd /usr/src && ls -d linux-headers-$pattern 2>/dev/null | sort -V | tail -n 1)
release=${release#linux-headers-}
[ -n "$release" ] || die "kernel: no headers for $flavour here; run tests/testbed/packages.sh"
version=$(dpkg-query -W -f '${Version}' "linux-headers-$release")
result=$EPK_CACHE/kernel/$(content_key "$release" "$version" -- "$0")

# A 32-bit number of the setup header.
word() { od -A n -t u4 -j "$2" -N 4 "$1" | tr -d ' '; }

# The ELF file inside a bzImage: decompressing it in the emulator takes a minute.
# Debian's kernels, like all with PVH, are started through its notes just as well.
extract() {
	local image=$1 out=$2 start bytes tool
	start=$((($(od -A n -t u1 -j 497 -N 1 "$image") + 1) * 512 + $(word "$image" 584)))
	# The last four bytes are the size of the result.
	bytes=$(($(word "$image" 588) - 4))
	case $(od -A n -t x1 -j "$start" -N 4 "$image" | tr -d ' ') in
	fd377a58) tool=xz ;;
	02214c18) tool=lz4 ;;
	28b52ffd) tool=zstd ;;
	*) die "kernel: $image is compressed in an unknown way" ;;
	esac
	dd if="$image" bs=1M iflag=skip_bytes,count_bytes skip="$start" count="$bytes" status=none |
		"$tool" -dc >"$out"
	readelf -n "$out" | grep Xen >/dev/null || die "kernel: $image has no ELF file with PVH notes"
}

# Copy the modules and what they depend on, not compressed: busybox has no xz to load them with.
copy_modules() {
	local deb=$1 out=$2 module file number=10
	depmod -b "$deb" "$release"
	mkdir "$out"
	for module in $modules; do
		modprobe -d "$deb" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' | while read -r file; do
		case $file in
		*.xz) xz -dc "$file" >"$out/$number-$(basename "$file" .xz)" ;;
		*) cp "$file" "$out/$number-${file##*/}" ;;
		esac
		number=$((number + 1))
	done
}

build() {
	local deb
	[ ! -f "$result/complete" ] || return 0
	deb=$(with_lock debs deb_unpacked "linux-image-$release" "$version")
	rm -rf "$result.tmp" "$result"
	mkdir -p "$result.tmp"
	cp "$deb/boot/vmlinuz-$release" "$result.tmp/bzImage"
	extract "$result.tmp/bzImage" "$result.tmp/vmlinux"
	copy_modules "$deb" "$result.tmp/modules"
	ln -s "/usr/src/linux-headers-$release" "$result.tmp/tree"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	say "kernel: Debian's $release, $version"
}

set -o pipefail
[ -f "$result/complete" ] || with_lock "debian-$flavour" build
echo "$result"
