#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bochs.sh: build the emulator of Debian's source, once, and print the program.
#
# Not the one that Debian 12 has built: its debugger and its hooks for instrumentation, which look at each
# instruction, take more than half of its time.  Its source in Debian 13 is newer by some years.
set -eu
. "$(dirname "$0")/lib.sh"

VERSION=3.0
SOURCE=pool/main/b/bochs/bochs_$VERSION+dfsg.orig.tar.xz
SHA256=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
OPTIONS=(--with-nogui --disable-docbook --disable-debugger --disable-instrumentation
	--enable-cpu-level=6 --enable-x86-64 --enable-smp --enable-vmx=2 --enable-fpu --enable-avx --enable-evex
	--enable-protection-keys --enable-memtype --enable-monitor-mwait --enable-alignment-check --enable-pci
	--enable-all-optimizations --enable-repeat-speedups --enable-fast-function-calls
	# With these an instruction counter is read as it was some instructions before.
	--disable-handlers-chaining)
FLAGS="-O3 -D_FILE_OFFSET_BITS=64 -D_LARGE_FILES"

mapfile -t patches < <(find "$TESTBED/bochs" -name '*.patch' | sort)
result=$EPK_CACHE/bochs/$(content_key "$(gcc -dumpfullversion)" -- "$0" "${patches[@]}")
log=$EPK_CACHE/log/bochs.log

# From where this machine has its packages.
fetch() {
	local from
	while read -r from; do
		/usr/lib/apt/apt-helper -q download-file "${from%/}/$SOURCE" "$1" "SHA256:$SHA256" && return
	done < <(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | sort -u)
	return 1
}

make_it() {
	# A machine that has never looked for packages does not know from where.
	{ fetch "$result.tmp/source.tar.xz" || { apt-get update -q && fetch "$result.tmp/source.tar.xz"; }; } &&
		cd "$result.tmp" && tar -xf source.tar.xz && cd bochs-$VERSION &&
		for patch in "${patches[@]}"; do patch -p1 <"$patch" || return; done &&
		CFLAGS=$FLAGS CXXFLAGS=$FLAGS ./configure "${OPTIONS[@]}" && make -j"$(nproc)" bochs
}

build() {
	[ ! -f "$result/complete" ] || return 0
	say "bochs: building the emulator, about two minutes, log in $log"
	rm -rf "$result.tmp" "$result"
	mkdir -p "$result.tmp" "${log%/*}"
	(make_it) >"$log" 2>&1 </dev/null || {
		tail -n 20 "$log" >&2
		die "bochs: cannot fetch or build Debian's bochs $VERSION; it takes a mirror of Debian that has $SOURCE"
	}
	cp "$result.tmp/bochs-$VERSION/bochs" "$result.tmp"
	rm -rf "$result.tmp/bochs-$VERSION" "$result.tmp/source.tar.xz"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	say "bochs: done"
}

[ -f "$result/complete" ] || with_lock bochs build
echo "$result/bochs"
