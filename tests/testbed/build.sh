#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# build.sh GUEST-KERNEL HOST-KERNEL: build what a run needs, in the tree: library, modules,
# tests, nginx case.
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

# A module is not rebuilt by itself when the kernel under it changes.
module() {
	local folder=$TOP/$1 tree=$2/tree stamp=$TOP/$1/.kernel.cmd
	[ "$(cat "$stamp" 2>/dev/null)" = "$tree" ] || make -C "$folder" clean
	make -C "$folder" KDIR="$tree" all
	echo "$tree" >"$stamp"
}

build() {
	part guest-lib make -C "$TOP/guest-lib" all
	part guest-kmod with_lock source module guest-kmod "$guest_kernel"
	part tests/guest/raw with_lock source module tests/guest/raw "$guest_kernel"
	part tests/kvm/omit with_lock source module tests/kvm/omit "$host_kernel"
	part tests/testbed make -C "$TESTBED" all
	part tests/guest make -C "$TOP/tests/guest" all
	part tests/unit make -C "$TOP/tests/unit" all
	part tests/kvm make -C "$TOP/tests/kvm" all
	part tests/debug make -C "$TOP/tests/debug" all
	part bench make -C "$TOP/bench" all
	part examples/nginx make -C "$TOP/examples/nginx" all
	say "build: done"
}

mkdir -p "${log%/*}"
with_lock "build-$(content_key "$TOP" --)" build
