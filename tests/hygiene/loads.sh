#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# loads.sh [backports]: what loads PKRU or an EPT in the source of Linux 6.1 is in loads.list; or in
# that of the 6.12 whose headers are here, 150 MB to download.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
loads=$TOP/tests/hygiene/loads.py

if [ "${1:-}" != backports ]; then
	exec "$loads" 6.1 "$("$TESTBED/kernel.sh")/tree/source"
fi
version=$(dpkg-query -W -f '${Version}\n' 'linux-headers-6.12.*-amd64' | sort -V | tail -n 1)
deb=$(with_lock debs deb_unpacked linux-source-6.12 "$version")
work=$(mktemp -d -p "$EPK_CACHE")
trap 'rm -rf "$work"' EXIT
tar -C "$work" --strip-components=1 -xf "$deb/usr/src/linux-source-6.12.tar.xz" --wildcards '*.[chS]'
"$loads" 6.12 "$work"
