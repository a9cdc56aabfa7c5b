#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Build Linux's own KVM selftests, and KVM as Debian ships it, for the test kernel.
# build.sh tests: print the directory with the programs, static and stripped
# build.sh series: likewise, those of the series
# build.sh modules KERNEL [PATCH...]: print the directory with kvm.ko and kvm-intel.ko
#	for the kernel in this directory, with the quirks of the emulator and these patches
# Both come from a tree of their own and are keyed by contents: that of Linux 6.1, or of LINUX.
set -eu
set -o pipefail
. "$(dirname "$0")/../testbed/lib.sh"
me=$TOP/tests/selftests/build.sh
smaller=$TOP/tests/selftests/smaller.list
linux=${LINUX:-6.1}
tarball=/usr/src/linux-source-$linux.tar.xz
[ -f "$tarball" ] || die "selftests: $tarball is missing; run tests/testbed/packages.sh"
version=$(dpkg-query -W -f '${Version}' "linux-source-$linux")
compiler=$(gcc -dumpfullversion)
cache=$EPK_CACHE/selftests
tree=$cache/linux-$version
selftests=$tree/tools/testing/selftests/kvm
# What a patch of KVM, or shrink(), can change.
tracked=(arch/x86 include virt kernel mm tools/testing/selftests/kvm)
log=$EPK_CACHE/log/selftests.log
mapfile -t quirks < <(quirk_patches "$linux")

# The build's output goes to the log; an error shows its end.
quietly() {
	"$@" >>"$log" 2>&1 </dev/null || { tail -n 20 "$log" | cut -c 1-160 >&2; die "selftests: $1 failed, see $log"; }
}

kmake() { make -C "$tree" -j"$(nproc)" ARCH=x86_64 KBUILD_BUILD_TIMESTAMP=0 "$@"; }

# All that building modules and selftests takes; the rest is 1 GB.
unpack() {
	local top
	[ ! -f "$tree/.git/refs/tags/base" ] || return 0
	say "selftests: unpacking $tarball"
	top=$(basename "$tarball" .tar.xz)
	rm -rf "$tree" "$tree.tmp"
	mkdir -p "$tree.tmp"
	tar -C "$tree.tmp" --strip-components=1 -xf "$tarball" \
		--exclude="$top/Documentation/[a-z]*" --exclude="$top/tools/perf" \
		--exclude="$top/arch/[a-w]*.[chS]" --exclude="$top/arch/[a-w]*.dts*" \
		--exclude="$top/drivers/*.[chS]" --exclude="$top/fs/*.[chS]" \
		--exclude="$top/net/*.[chS]" --exclude="$top/sound/*.[chS]"
	mv "$tree.tmp" "$tree"
	git -C "$tree" -c init.defaultBranch=main init -q
	git -C "$tree" add -f "${tracked[@]}"
	git -C "$tree" -c user.name=tests -c user.email=tests@localhost -c commit.gpgsign=false \
		commit -q -m "Debian linux-source-$linux $version"
	git -C "$tree" tag base
}

# Only files whose contents differ get a new date.
clean_sources() { git -C "$tree" reset -q --hard base; }

# Replace the sizes of smaller.list.
shrink() {
	local file from to
	while IFS='|' read -r file from to; do
		grep -qF "$from" "$selftests/$file" || die "selftests: $file lacks $from"
		FROM=$from TO=$to perl -pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "$selftests/$file"
	done < <(list_lines "$smaller")
}

# Put FILE... into the directory RESULT, which appears when it is complete.
keep() {
	local result=$1
	shift
	rm -rf "$result" "$result.tmp"
	mkdir -p "$result.tmp"
	cp "$@" "$result.tmp"
	mv "$result.tmp" "$result"
}

build_tests() {
	local out=$cache/out programs
	[ ! -d "$result" ] || return 0
	unpack
	clean_sources
	say "selftests: building the programs, log in $log"
	shrink
	rm -rf "$out"
	make_programs
	mapfile -t programs < <(find "$out" -type f -perm -1)
	strip -s "${programs[@]}"
	keep "$result" "${programs[@]}"
}

# make_programs [NAME...]: of all, or of these
make_programs() {
	local renamed=
	# 6.1.192 uses a macro by its newer name, and one test misses a header.
	[ "$linux" != 6.1 ] || renamed=-DTEST_ASSERT_EQ=ASSERT_EQ
	quietly kmake headers
	quietly make -s -C "$selftests" -j"$(nproc)" ARCH=x86_64 OUTPUT="$out" \
		KHDR_INCLUDES="-isystem $tree/usr/include" LDFLAGS="-static -pthread -no-pie" \
		EXTRA_CFLAGS="$renamed -include linux/stddef.h" "${@/#/$out/}"
}

build_series() {
	local out=$cache/out-series
	[ ! -d "$result" ] || return 0
	unpack
	clean_sources
	say "selftests: building those of the series, log in $log"
	apply "$@"
	rm -rf "$out"
	mkdir -p "$out/x86_64"
	make_programs x86_64/epk_test
	strip -s "$out/x86_64/epk_test"
	keep "$result" "$out/x86_64/epk_test"
}

apply() {
	local patch
	for patch in "$@"; do
		git -C "$tree" apply --index --unidiff-zero --exclude='Documentation/*' --exclude=MAINTAINERS \
			"$(realpath "$patch")" || die "selftests: $patch does not apply"
	done
}

# There is no vmlinux here to check symbols against: insmod does that.
build_modules() {
	[ ! -d "$result" ] || return 0
	unpack
	clean_sources
	say "selftests: building KVM with $# patches"
	apply "${quirks[@]}" "$@"
	cp "$kernel/.config" "$tree/.config"
	quietly kmake olddefconfig
	quietly kmake modules_prepare
	quietly kmake KBUILD_MODPOST_WARN=1 arch/x86/kvm/kvm.ko arch/x86/kvm/kvm-intel.ko
	keep "$result" "$tree/arch/x86/kvm/kvm.ko" "$tree/arch/x86/kvm/kvm-intel.ko"
}

what=${1:-}
[ $# -eq 0 ] || shift
mkdir -p "$cache" "${log%/*}"
case $what in
tests)
	result=$cache/tests-$(content_key "$version" "$compiler" -- "$me" "$smaller")
	with_lock selftests build_tests
	;;
series)
	mapfile -t patches < <(series_patches "$linux")
	result=$cache/series-$(content_key "$version" "$compiler" -- "$me" "${patches[@]}")
	with_lock selftests build_series "${patches[@]}"
	;;
modules)
	kernel=$1
	shift
	result=$cache/modules-$(content_key "$version" "$compiler" -- "$kernel/.config" \
		"${quirks[@]}" "$@" "$me")
	with_lock selftests build_modules "$@"
	;;
*) die "selftests: build.sh tests | series | modules KERNEL [PATCH...]" ;;
esac
echo "$result"
