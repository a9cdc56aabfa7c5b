#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# build-deb.sh OUT: build libepk1, libepk-dev, python3-epk, epk-tools, epk-dkms, openssl-provider-epk and, for hosts,
# epk-host and epk-kvm-dkms into the folder OUT, and have lintian look at them.  Installs what that needs.
set -eu -o pipefail

fail() {
	echo "build-deb: $*" >&2
	exit 1
}

case ${1-} in
-h | --help)
	sed -n '3,4s/^# //p' "$0"
	exit
	;;
-*) fail "unknown option: $1" ;;
esac
if [ $# != 1 ] || [ -z "$1" ]; then
	fail "say where to put the packages: build-deb.sh OUT"
fi
mkdir -p "$1"
out=$(realpath "$1")
cd "$(dirname "$0")/../.."
tests/testbed/packages.sh guest-lib/packaging/packages.list
git rev-parse --is-inside-work-tree >/dev/null ||
	fail "git has to tell which files belong to the sources"
version=$(dpkg-parsechangelog -l guest-lib/packaging/debian/changelog -S Version)
release=${version%-*}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/libepk-$release

# One number for the library, the module and the packages.
for part in "$(make -s -C guest-lib version)" "$(make -s -C guest-kmod version)" \
	"$(make -s -C kvm-patches/dkms version)"; do
	[ "$part" = "$release" ] || fail "the changelog says $release, the sources $part"
done

mkdir "$source"
git ls-files -z guest-lib guest-kmod kvm-patches qemu-configs examples/library examples/template examples/nginx LICENSES |
	tar --null --files-from=- -c | tar -x -C "$source"
tar -C "$work" -czf "$work/libepk_$release.orig.tar.gz" "${source##*/}"
cp -r guest-lib/packaging/debian "$source/debian"
(cd "$source" && dpkg-buildpackage -us -uc >"$work/log" 2>&1) || {
	tail -30 "$work/log" >&2
	fail "dpkg-buildpackage failed"
}
lintian --fail-on error,warning --profile debian --suppress-tags \
	initial-upload-closes-no-bugs \
	"$work"/*.changes
for package in libepk1 libepk-dev python3-epk epk-tools openssl-provider-epk epk-host epk-dkms epk-kvm-dkms; do
	ls "$work/${package}_${version}"_*.deb >/dev/null || fail "no $package"
done
contents=$(dpkg-deb -c "$work"/libepk-dev_*.deb)
for example in examples/library/*.[ch] examples/library/Makefile; do
	grep -q " ./usr/share/doc/libepk-dev/examples/${example##*/}\$" <<<"$contents" ||
		fail "$example is in no package"
done
grep -q ' ./usr/share/doc/libepk-dev/examples/template/meson.build$' <<<"$contents" || fail "the template is in no package"
rm -f "$out"/libepk*_*.deb "$out"/python3-epk_*.deb "$out"/epk-*_*.deb "$out"/openssl-provider-epk_*.deb
cp -v "$work"/*.deb "$out/"
