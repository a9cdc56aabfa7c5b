#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# make-seed.sh DEBS OUT: a disk for a cloud image's cloud-init (NoCloud) to find: user-data, meta-data, setup.sh and the packages that
# `make deb` has put into the folder DEBS.  Needs dosfstools and mtools, and no root.
set -eu

die() {
	echo "make-seed: $*" >&2
	exit 1
}

if [ $# != 2 ]; then
	sed -n '3,4s/^# //p' "$0"
	exit 2
fi
debs=$1
out=$2
for tool in mkfs.fat:dosfstools mcopy:mtools; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null || die "there is no ${tool%:*}: apt install ${tool#*:}"
done
here=$(cd "$(dirname "$0")" && pwd)
files=()
for package in libepk1 libepk-dev epk-tools epk-dkms openssl-provider-epk; do
	found=("$debs/$package"_*.deb)
	[ ${#found[@]} = 1 ] && [ -f "${found[0]}" ] || die "not one $package in $debs: run make deb"
	files+=("${found[0]}")
done
rm -f "$out"
truncate -s 16M "$out"
PATH=$PATH:/usr/sbin:/sbin mkfs.fat -n CIDATA "$out" >/dev/null
mcopy -s -i "$out" "$here"/{user-data,meta-data,setup.sh} "${files[@]}" ::
