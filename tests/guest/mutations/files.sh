#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh HOST-ROOT GUEST-ROOT KERNEL: put what mutate.sh and guest.sh need into the images.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../testbed/lib.sh"
host=$1/epk/kmod-mutations
guest=$2/epk/mutations
kernel=$3
work=$EPK_CACHE/kmod-mutations/$(content_key "$TOP" --)
log=$EPK_CACHE/log/kmod-mutations.log

mkdir -p "$host" "$guest" "${work%/*}"
cp "$here/mutate.sh" "$host"
cp "$here/guest.sh" "$guest"
"$here/mutate.py" "$TOP/guest-kmod" "$work" >"$guest/list"
make -C "$work" KDIR="$(readlink -f "$kernel/tree")" all >"$log" 2>&1 ||
	{ tail -n 30 "$log" >&2; die "mutations: the module with the defects does not build"; }
cp "$work/epk.ko" "$guest"
awk '{ print $2 }' "$guest/list" | sort -u | while read -r test; do
	cp -u "$TOP/tests/guest/build/$(echo "$test" | tr - _)_test" "$2/epk/bin"
done
wc -l <"$guest/list" >"$host/count"
