#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh ROOT KERNEL: put what mutate.sh needs into the emulated host's image.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../testbed/lib.sh"
root=$1/epk/mutations
kernel=$2
mapfile -t patches < <(series_patches)
mkdir -p "$root"
cp "$here/mutate.sh" "$here/mutations.list" "$root"
modules=$("$TOP/tests/selftests/build.sh" modules "$kernel" "${patches[@]}" "$here/kvm.patch")
cp "$modules"/*.ko "$root"
list_lines "$here/mutations.list" | while read -r _ _ test _; do
	cp -u "$TOP/tests/kvm/build/${test}_test" "$1/epk/bin"
done
