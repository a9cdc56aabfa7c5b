#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kernel.sh [normal|debug|6.12]: build the test kernel: Debian's source, the quirks of
# the emulator, our series; of Linux 6.1, or of 6.12.  Print the directory that holds the result:
#   vmlinux bzImage System.map .config irqbypass.ko kvm.ko kvm-intel.ko tree
# where tree is what modules are built against, and tree/source the source.
# One source tree is kept for each version, and built incrementally in one directory for
# each flavour; results are keyed by contents.
set -eu
. "$(dirname "$0")/lib.sh"

flavour=${1:-normal}
linux=6.1
extra=
case $flavour in
normal) ;;
debug) extra=$TESTBED/kernel/debug.config ;;
6.12) linux=6.12 ;;
*) die "kernel: no such flavour: $flavour; there are normal, debug and 6.12" ;;
esac

tarball=/usr/src/linux-source-$linux.tar.xz
[ -f "$tarball" ] || die "kernel: $tarball is missing; run tests/testbed/packages.sh"
version=$(dpkg-query -W -f '${Version}' "linux-source-$linux")
tree=$EPK_CACHE/source-$version
out=$EPK_CACHE/build/$flavour
fragments=("$TESTBED/kernel/fragment.config" "$TESTBED/kernel/$linux.config" ${extra:+"$extra"})
mapfile -t quirks < <(quirk_patches "$linux")
mapfile -t series < <(series_patches "$linux")
key=$(content_key "$version" "$(gcc -dumpfullversion)" -- "${fragments[@]}" "${quirks[@]}" \
	"${series[@]}" "$TESTBED/kernel.sh")
result=$EPK_CACHE/kernel/$key
# That of 6.1 is also taken where modules are built against its tree.
lock=source
[ "$linux" = 6.1 ] || lock=source-$linux
log=$EPK_CACHE/log/kernel-$flavour.log

git_tree() {
	git -C "$tree" -c init.defaultBranch=main -c user.name=testbed -c user.email=testbed@localhost \
		-c commit.gpgsign=false -c gc.auto=0 "$@"
}

# The source as Debian ships it, as the commit "base".
unpack() {
	[ ! -f "$tree/.git/refs/tags/base" ] || return 0
	say "kernel: unpacking $tarball"
	rm -rf "$tree" "$tree.tmp"
	mkdir -p "$tree.tmp"
	tar -C "$tree.tmp" --strip-components=1 -xf "$tarball"
	mv "$tree.tmp" "$tree"
	git_tree init -q
	# Track what a KVM series can touch; all 80,000 files would take a minute.
	git_tree -c core.looseCompression=0 add -f \
		MAINTAINERS Documentation/virt Documentation/admin-guide arch/x86 \
		include virt kernel mm tools/arch/x86 tools/include \
		tools/testing/selftests/kvm
	git_tree commit -q -m "Debian linux-source-$linux $version"
	git_tree tag base
}

# Apply patches in a worktree without files, where git am checks out what it needs,
# so that the real tree's files change only where their contents do.
apply() {
	local scratch=$tree.am head
	say "kernel: ${#quirks[@]} quirks, ${#series[@]} patches"
	rm -rf "$scratch"
	git_tree worktree prune
	git_tree worktree add -q --no-checkout --detach "$scratch" base
	git -C "$scratch" read-tree base
	am "$scratch" "${quirks[@]}" || die "kernel: a quirk does not apply"
	git_tree tag -f quirks "$(git -C "$scratch" rev-parse HEAD)" >/dev/null
	am "$scratch" "${series[@]}" || die "kernel: the series does not apply"
	head=$(git -C "$scratch" rev-parse HEAD)
	rm -rf "$scratch"
	git_tree worktree prune
	git_tree checkout -q -f --detach "$head"
}

am() {
	local where=$1
	shift
	[ $# -eq 0 ] || git_tree -C "$where" am -q "$@" >&2
}

configure() {
	local line
	mkdir -p "$out"
	cat "${fragments[@]}" >"$out/fragment.config"
	kmake -s KCONFIG_ALLCONFIG="$out/fragment.config" allnoconfig >>"$log" 2>&1
	while read -r line; do
		grep -qxF "$line" "$out/.config" || die "kernel: the configuration lost $line"
	done < <(list_lines "$out/fragment.config")
}

kmake() { make -C "$tree" O="$out" -j"$(nproc)" ARCH=x86_64 KBUILD_BUILD_TIMESTAMP=0 "$@" </dev/null; }

# Count what make prints: one line for a file.
progress() {
	awk '{ print >> log_file; fflush(log_file) }
		/^  [A-Z]/ && ++n % 300 == 0 { print "         kernel: " n " steps" > "/dev/stderr" }' \
		log_file="$log"
}

# The tree is that of the last build, which may have been another kernel's.
is_built() {
	[ -f "$result/complete" ] && [ "$(cat "$out/key" 2>/dev/null)" = "$key" ]
}

build() {
	# Another run may have made it while this one waited.
	! is_built || return 0
	rm -f "$out/key"
	mkdir -p "${log%/*}" "${result%/*}"
	: >"$log"
	unpack
	apply
	configure
	say "kernel: building the $flavour flavour in $out, log in $log"
	kmake bzImage vmlinux modules 2>&1 | progress ||
		{ grep -B 3 -A 10 -m 3 'error:' "$log" >&2; die "kernel: the build failed, see $log"; }
	rm -rf "$result.tmp" "$result"
	mkdir "$result.tmp"
	cp "$out"/System.map "$out"/arch/x86/boot/bzImage "$out"/.config \
		"$out"/virt/lib/irqbypass.ko "$out"/arch/x86/kvm/kvm.ko \
		"$out"/arch/x86/kvm/kvm-intel.ko "$result.tmp"
	strip -s -o "$result.tmp/vmlinux" "$out/vmlinux"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	echo "$key" >"$out/key"
	say "kernel: done"
}

set -o pipefail
is_built || with_lock "$lock" build
ln -sfn "$out" "$result/tree"
echo "$result"
