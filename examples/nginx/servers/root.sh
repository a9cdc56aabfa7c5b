#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# root.sh: unpack what packages.list names, and what that needs, into a folder of the cache, and
# print which.  Nothing is installed: no service starts, and this machine stays as it is.
set -euo pipefail
. "$(dirname "$0")/../../../tests/testbed/lib.sh"
list=$(dirname "$0")/packages.list
mapfile -t names < <(list_lines "$list")

empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
mkdir "$empty/partial"

get() { # get ARCHIVES OPTION...
	local archives=$1
	shift
	apt-get install -q -y --no-install-recommends --reinstall --allow-downgrades \
		-o Dir::Cache::archives="$archives" -o APT::Sandbox::User=root "$@" "${names[@]}"
}

# What the packages are now.
uris() { get "$empty" --print-uris 2>/dev/null | sed -n "s/^'\([^']*\)'.*/\1/p"; }

found=$(uris) || {
	apt-get update -q >&2
	found=$(uris)
} || die "apt cannot have: ${names[*]}"
dir=$EPK_CACHE/debs/servers-$(content_key "$found" --)

unpack() {
	local deb top
	[ ! -d "$dir" ] || return 0
	say "unpacking Debian's ${names[*]}"
	rm -rf "$dir.tmp"
	mkdir -p "$dir.tmp/partial" "$dir.tmp/root"
	get "$dir.tmp" --download-only >&2 || die "cannot fetch them"
	for deb in "$dir.tmp"/*.deb; do
		dpkg -x "$deb" "$dir.tmp/root"
	done
	rm -rf "$dir.tmp"/*.deb "$dir.tmp/partial"
	# As where these are links: Debian since 12.
	for top in bin sbin lib; do
		[ ! -d "$dir.tmp/root/$top" ] || {
			mkdir -p "$dir.tmp/root/usr/$top"
			cp -a "$dir.tmp/root/$top/." "$dir.tmp/root/usr/$top/"
			rm -r "$dir.tmp/root/${top:?}"
		}
	done
	mv "$dir.tmp" "$dir"
}
with_lock debs unpack
echo "$dir/root"
