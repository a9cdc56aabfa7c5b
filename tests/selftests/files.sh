#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh ROOT KERNEL: put what the tests of ROOT/epk/tests.host need into the emulated
# host's image: compare.sh, the selftests of their sets and that of the series, stock modules
# and broken ones.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../testbed/lib.sh"
list=$1/epk/tests.host
root=$1/epk/selftests
kernel=$2
# What goes with a kernel is of its version.
LINUX=$(sed 's/^\([0-9]*\.[0-9]*\).*/\1/' "$kernel/tree/include/config/kernel.release")
export LINUX
mkdir -p "$root/bin"
cp "$here/compare.sh" "$here/selftests.list" "$here/cannot.list" "$root"

if grep -q /epk/selftests/bin/epk_test "$list"; then
	cp "$("$here/build.sh" series)/epk_test" "$root/bin"
fi
# The series' own needs nothing else.
grep -q -e compare.sh -e kvm_bench "$list" || exit 0

modules() {
	local variant=$1
	shift
	mkdir -p "$root/$variant"
	cp "$("$here/build.sh" modules "$kernel" "$@")"/*.ko "$root/$variant"
}

modules stock
# The costs of KVM need no selftests; nor are there lists of those of other versions.
grep -q compare.sh "$list" || exit 0

programs=$("$here/build.sh" tests)
for program in "$programs"/*; do
	list_lines "$here/selftests.list" | cat - "$here/cannot.list" | grep -q "^${program##*/}	" ||
		die "selftests: no list has ${program##*/}"
done
for set in $(sed -n 's|.*/epk/selftests/compare.sh \([a-z]*\).*|\1|p' "$list"); do
	list_lines "$here/selftests.list" | awk -v set="$set" 'index("," $2 ",", "," set ",") { print $1 }'
done | sort -u | while read -r name; do
	cp "$programs/$name" "$root/bin"
done
if grep -q 'compare.sh .*broken' "$list"; then
	mapfile -t patches < <(series_patches "$LINUX")
	modules broken "${patches[@]}" "$here/broken.patch"
fi
