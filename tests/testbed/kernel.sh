#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Build the test kernel: Debian's source, the quirks of the emulator, our series.
# Print the directory that holds the result:
#   vmlinux bzImage System.map .config irqbypass.ko kvm.ko kvm-intel.ko tree
# One source tree is kept and built incrementally; results are keyed by contents.
set -eu
. "$(dirname "$0")/lib.sh"

tarball=/usr/src/linux-source-6.1.tar.xz
[ -f "$tarball" ] || die "kernel: $tarball is missing; run tests/testbed/packages.sh"
version=$(dpkg-query -W -f '${Version}' linux-source-6.1)
tree=$EPK_CACHE/linux-$version
fragment=$TESTBED/kernel/fragment.config
mapfile -t quirks < <(find "$TESTBED/kernel/quirks" -name '*.patch' | sort)
mapfile -t series < <(series_patches)
key=$(content_key "$version" "$(gcc -dumpfullversion)" -- "$fragment" "${quirks[@]}" \
	"${series[@]}" "$TESTBED/kernel.sh")
result=$EPK_CACHE/kernel/$key
log=$EPK_CACHE/log/kernel.log

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
	git_tree commit -q -m "Debian linux-source-6.1 $version"
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
	cp "$fragment" "$tree/.config.fragment"
	kmake -s KCONFIG_ALLCONFIG=.config.fragment allnoconfig >>"$log" 2>&1
	while read -r line; do
		grep -qxF "$line" "$tree/.config" || die "kernel: the configuration lost $line"
	done < <(list_lines "$fragment")
}

kmake() { make -C "$tree" -j"$(nproc)" ARCH=x86_64 KBUILD_BUILD_TIMESTAMP=0 "$@" </dev/null; }

# Count what make prints: one line for a file.
progress() {
	awk '{ print >> log_file; fflush(log_file) }
		/^  [A-Z]/ && ++n % 300 == 0 { print "         kernel: " n " steps" > "/dev/stderr" }' \
		log_file="$log"
}

build() {
	[ ! -f "$result/complete" ] || return 0
	mkdir -p "${log%/*}" "${result%/*}"
	: >"$log"
	unpack
	apply
	configure
	say "kernel: building in $tree, log in $log"
	kmake bzImage vmlinux modules 2>&1 | progress ||
		{ grep -B 3 -A 10 -m 3 'error:' "$log" >&2; die "kernel: the build failed, see $log"; }
	rm -rf "$result.tmp" "$result"
	mkdir "$result.tmp"
	cp "$tree"/System.map "$tree"/arch/x86/boot/bzImage "$tree"/.config \
		"$tree"/virt/lib/irqbypass.ko "$tree"/arch/x86/kvm/kvm.ko \
		"$tree"/arch/x86/kvm/kvm-intel.ko "$result.tmp"
	strip -s -o "$result.tmp/vmlinux" "$tree/vmlinux"
	touch "$result.tmp/complete"
	mv "$result.tmp" "$result"
	say "kernel: done"
}

set -o pipefail
with_lock kernel build
ln -sfn "$tree" "$result/tree"
echo "$result"
