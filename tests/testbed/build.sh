#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# build.sh KERNEL: build what a run needs, in the tree: library, module, tests, nginx case.
set -eu
. "$(dirname "$0")/lib.sh"
kernel=$1
log=$EPK_CACHE/log/build-$(content_key "$TOP" --).log

part() {
	local what=$1
	shift
	"$@" >"$log" 2>&1 </dev/null || {
		cat "$log" >&2
		die "build: $what failed"
	}
}

# The module is not rebuilt by itself when the kernel under it changes.
module() {
	local stamp=$TOP/guest-kmod/.kernel.cmd
	[ "$(cat "$stamp" 2>/dev/null)" = "$kernel" ] || make -C "$TOP/guest-kmod" clean
	[ "$(cat "$stamp" 2>/dev/null)" = "$kernel" ] || make -C "$TOP/tests/guest/raw" clean
	make -C "$TOP/guest-kmod" KDIR="$kernel/tree" all
	make -C "$TOP/tests/guest/raw" KDIR="$kernel/tree" all
	echo "$kernel" >"$stamp"
}

build() {
	part guest-lib make -C "$TOP/guest-lib" all
	part guest-kmod with_lock source module
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
