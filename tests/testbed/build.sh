#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# build.sh GUEST-KERNEL HOST-KERNEL: build what a run needs: library, modules, tests, nginx
# case, all in the tree; but the guest's modules in the cache, if its kernel is not the host's.
# Print the directory below which those modules are.
set -eu
. "$(dirname "$0")/lib.sh"
guest_kernel=$1
host_kernel=$2
log=$EPK_CACHE/log/build-$(content_key "$TOP" --).log

part() {
	local what=$1
	shift
	"$@" >"$log" 2>&1 </dev/null || {
		cat "$log" >&2
		die "build: $what failed"
	}
}

modules=$TOP
if [ "$guest_kernel" != "$host_kernel" ]; then
	modules=$EPK_CACHE/modules/$(content_key "$TOP" "$guest_kernel/tree" --)
fi

# Another kernel's modules are built of a copy, so that runs do not get in each other's way.
# What differs is newer than all that was made of it before, whenever it was changed.
copy_sources() {
	local from=$TOP/$1 to=$modules/$1 file
	[ "$modules" != "$TOP" ] || return 0
	mkdir -p "$to"
	(cd "$from" && find . -type f \( -name '*.[ch]' -o -name '*.sh' -o -name Kbuild -o -name Makefile \) \
		! -name '*.mod.c' ! -path './packaging/*') >"$to/.sources"
	(cd "$to" && find . -name '*.[ch]' ! -name '*.mod.c' | grep -vxFf .sources | xargs -r rm)
	while read -r file; do
		cmp -s "$from/$file" "$to/$file" || {
			mkdir -p "$to/${file%/*}"
			cp "$from/$file" "$to/$file"
		}
	done <"$to/.sources"
}

# A module is not rebuilt by itself when the kernel under it changes.  (Under "part" no
# failure ends the script by itself.)
module() {
	local folder=$1 tree stamp=$1/.kernel.cmd
	tree=$(readlink -f "$2/tree")
	[ "$(cat "$stamp" 2>/dev/null)" = "$tree" ] || make -C "$tree" M="$folder" clean
	make -C "$tree" M="$folder" modules || return 1
	echo "$tree" >"$stamp"
}

build() {
	part guest-lib make -C "$TOP/guest-lib" all
	part guest-kmod copy_sources guest-kmod
	part guest-kmod with_lock source module "$modules/guest-kmod" "$guest_kernel"
	part tests/guest/raw copy_sources tests/guest/raw
	part tests/guest/raw with_lock source module "$modules/tests/guest/raw" "$guest_kernel"
	part tests/firmware/room copy_sources tests/firmware/room
	part tests/firmware/room with_lock source module "$modules/tests/firmware/room" "$guest_kernel"
	part tests/kvm/omit with_lock source module "$TOP/tests/kvm/omit" "$host_kernel"
	part tests/testbed make -C "$TESTBED" all
	part tests/guest make -C "$TOP/tests/guest" all
	part tests/unit make -C "$TOP/tests/unit" all
	part tests/docs make -C "$TOP/tests/docs" all
	part kvm-patches/host make -C "$TOP/kvm-patches/host" all
	part tests/kvm make -C "$TOP/tests/kvm" all
	part tests/firmware make -C "$TOP/tests/firmware" all
	part tests/debug make -C "$TOP/tests/debug" all
	part bench make -C "$TOP/bench" all
	part examples/nginx make -C "$TOP/examples/nginx" all
	say "build: done"
}

mkdir -p "${log%/*}"
with_lock "build-$(content_key "$TOP" --)" build
echo "$modules"
