#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# build-deb.sh OUT: build libepk0, libepk-dev and epk-tools into the folder OUT, and
# have lintian look at them.  Needs debhelper, dpkg-dev, fakeroot, lintian.
set -eu
mkdir -p "${1:?where to put the packages}"
out=$(realpath "$1")
cd "$(dirname "$0")/../.."
version=$(dpkg-parsechangelog -l guest-lib/packaging/debian/changelog -S Version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/libepk-${version%-*}

mkdir "$source"
git ls-files -z guest-lib guest-kmod/include examples/library LICENSES |
	tar --null --files-from=- -c | tar -x -C "$source"
tar -C "$work" -czf "$work/libepk_${version%-*}.orig.tar.gz" "${source##*/}"
cp -r guest-lib/packaging/debian "$source/debian"
(cd "$source" && dpkg-buildpackage -us -uc -d >"$work/log" 2>&1) || {
	tail -30 "$work/log"
	echo "build-deb: dpkg-buildpackage failed"
	exit 1
}
lintian --fail-on error,warning --profile debian --suppress-tags \
	initial-upload-closes-no-bugs \
	"$work"/*.changes
cp "$work"/*.deb "$out/"
ls "$out"/*.deb
