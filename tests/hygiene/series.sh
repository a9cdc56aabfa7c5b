#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# series.sh [6.1|6.12]: git am applies the series for this Linux to the named base without fuzz,
# each patch passes checkpatch, and each builds, with warnings as errors; and sparse has nothing
# to say of the files that the series adds to KVM.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
linux=${1:-6.1}
version=$(dpkg-query -W -f '${Version}' "linux-source-$linux")
mapfile -t patches < <(series_patches "$linux")
[ ${#patches[@]} -le 15 ] || die "series: more than 15 patches"
[ ${#patches[@]} -gt 0 ] || die "series: there is none"
key=$(content_key "$version" "$(gcc -dumpfullversion)" -- "${patches[@]}" "$0" \
	"$TESTBED/kernel/fragment.config" "$TESTBED/kernel/$linux.config")
passed=$EPK_CACHE/series/$key
case $linux in
6.1) suffix= ;;
*) suffix=-$linux ;;
esac
work=$EPK_CACHE/series/tree$suffix
out=$EPK_CACHE/series/out$suffix

commit() {
	GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z \
		git -C "$work" -c user.name=tests -c user.email=tests@localhost \
		-c commit.gpgsign=false -c core.autocrlf=false "$@"
}

# A tree of its own: the testbed's has quirks, and others build in it.  Git tracks
# what the series can touch.  Nothing in its first commit depends on when and where it
# is made: it is the base-commit that the cover letter names.
tracked="arch/x86 Documentation/virt Documentation/admin-guide include/linux include/uapi virt
	tools/testing/selftests/kvm"

unpack() {
	local stamp
	stamp=$work/.unpacked-$(content_key "$version" "$tracked" --)
	[ ! -f "$stamp" ] || return 0
	rm -rf "$work" "$out"
	mkdir -p "$work"
	# spdxcheck.py, which checkpatch calls, wants a Python module.
	tar -C "$work" --strip-components=1 --exclude='*/spdxcheck.py' \
		-xf "/usr/src/linux-source-$linux.tar.xz"
	git -C "$work" init -q
	# shellcheck disable=SC2086 # a list
	git -C "$work" add -f $tracked
	commit commit -q -m "Debian linux-source-$linux $version"
	git -C "$work" tag base
	touch "$stamp"
}

# Only for the version that the series was made for is there something to compare.
base_commit() {
	local cover=$TOP/kvm-patches/linux-$linux/0000-cover-letter.patch named made
	grep -qF "linux-source-$linux $version" "$cover" || return 0
	named=$(sed -n 's/^base-commit: //p' "$cover")
	made=$(git -C "$work" rev-parse base)
	[ "$named" = "$made" ] || die "series: base-commit is $named, $version gives $made"
}

# Tracepoints are written the way of the other tracepoints, which checkpatch rejects.
check_patch() {
	local trace='^arch/x86/kvm/trace.h:[0-9]+: (CHECK:(OPEN_ENDED_LINE|PARENTHESIS_ALIGNMENT)|ERROR:COMPLEX_MACRO)'
	[ -f "$work/scripts/checkpatch.pl" ] || die "series: no checkpatch.pl"
	perl "$work/scripts/checkpatch.pl" --root="$work" --strict --terse --no-summary \
		--showfile --show-types --ignore FILE_PATH_CHANGES "$1" | grep -vE "$trace"
}

make_kernel() {
	make -C "$work" O="$out" -j"$(nproc)" "$@" >"$out.log" 2>&1 </dev/null ||
		{ tail -n 30 "$out.log"; die "series: make $* failed"; }
}

configure() {
	mkdir -p "$out"
	cat "$TESTBED/kernel/fragment.config" "$TESTBED/kernel/$linux.config" >"$out/fragment"
	make_kernel KCONFIG_ALLCONFIG="$out/fragment" allnoconfig
	"$work/scripts/config" --file "$out/.config" -e KVM_WERROR -e WERROR -m KVM_AMD \
		-e CPU_SUP_AMD -d DEBUG_INFO_BTF
	make_kernel olddefconfig
	grep -q '^CONFIG_KVM_WERROR=y' "$out/.config" || die "series: KVM_WERROR is not on"
	make_kernel modules_prepare
}

one() {
	local patch=$1 name
	name=$(basename "$patch" .patch)
	! check_patch "$patch" || die "series: checkpatch: $name"
	commit am -q "$patch" || die "series: $name does not apply"
	make_kernel arch/x86/kvm/
	echo "series: $name applies, passes checkpatch and builds"
}

check_sparse() {
	local files
	files=$(git -C "$work" diff --name-only --diff-filter=A base -- 'arch/x86/kvm/*.c')
	[ -n "$files" ] || die "series: it adds no files"
	(cd "$out" && rm -f ${files//.c/.o})
	# shellcheck disable=SC2086 # a list
	make_kernel C=2 ${files//.c/.o}
	! grep -E '(warning|error):' "$out.log" || die "series: sparse has something to say"
	# It has run.
	[ "$(grep -c '^  CHECK .*/epk' "$out.log")" -gt 1 ] || die "series: where is sparse?"
	echo "series: sparse has nothing to say of $(wc -w <<<"$files") files"
}

run() {
	unpack
	base_commit
	git -C "$work" am --abort >/dev/null 2>&1 || :
	git -C "$work" checkout -q -f --detach base
	git -C "$work" clean -q -f -d arch/x86/kvm arch/x86/include Documentation \
		tools/testing/selftests/kvm
	configure
	make_kernel arch/x86/kvm/
	for patch in "${patches[@]}"; do
		one "$patch"
	done
	check_sparse
	touch "$passed"
}

mkdir -p "$EPK_CACHE/series"
if [ -f "$passed" ]; then
	echo "series: these patches passed before"
else
	with_lock "series$suffix" run
fi
echo "series: ${#patches[@]} patches for Linux $linux"
