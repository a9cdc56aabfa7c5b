#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh LEVEL GUEST-ROOT KERNEL FOLDER: put what guest.sh needs into the guest's image, and
# into FOLDER what mutate.sh needs, for the defects of a LEVEL: see mutate.py.  With DEFECTS in the
# environment only those whose line, of number, test and defect, it matches; with DEFECTS_TEST
# by that test in place of their own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../testbed/lib.sh"
level=$1 guest=$2 kernel=$3 folder=$4
work=$EPK_CACHE/kmod-mutations/$(content_key "$TOP" "$kernel" --)
log=$EPK_CACHE/log/kmod-mutations.log

mkdir -p "$guest/epk/mutations" "$guest/epk/bin" "$folder" "${work%/*}"
"$here/mutate.py" "$TOP/guest-kmod" "$work" >"$folder/all"
make -j"$(nproc)" -C "$work" KDIR="$(readlink -f "$kernel/tree")" all >"$log" 2>&1 ||
	{ tail -n 30 "$log" >&2; die "mutations: the module with the defects does not build"; }
awk -v level="$level" '$2 == level' "$folder/all" | cut -d ' ' -f 1,3- |
	grep -E -- "${DEFECTS:-.}" |
	sed -E "s/^([0-9]+) ([^ ]+)/\\1 ${DEFECTS_TEST:-\\2}/" >"$folder/list"
rm "$folder/all"
cp "$here/mutate.sh" "$folder"
case $level in
epts) cp "$here/boot-epts.sh" "$folder/boot" ;;
*) cp "$here/boot-alone.sh" "$folder/boot" ;;
esac
cp "$here/guest.sh" "$folder/list" "$work/epk.ko" "$guest/epk/mutations"
awk '{ print $2 }' "$folder/list" | sort -u | while read -r test; do
	read -r program arguments < <(list_lines "$TOP/tests/tests.list" |
		awk -v test="$test" '$1 == test' | cut -f 6-)
	for build in guest unit; do
		[ ! -e "$TOP/tests/$build/build/$program" ] || cp -u "$TOP/tests/$build/build/$program" "$guest/epk/bin"
	done
	echo "$test $program $arguments"
done >"$guest/epk/mutations/tests"
