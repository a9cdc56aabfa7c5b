#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# nginx-files.sh ROOT: put what examples/nginx/guest-files.list names below ROOT.
# Debian packages are unpacked into the cache, never installed: no service starts.
set -eu
. "$(dirname "$0")/lib.sh"
root=$1

# The directory that holds the files of a Debian package.
unpacked() {
	local package=$1 version dir
	version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
	[ -n "$version" ] && [ "$version" != "(none)" ] || {
		apt-get update -q >&2
		version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
	}
	dir=$EPK_CACHE/debs/$package-$version
	if [ ! -d "$dir" ]; then
		say "images: unpacking Debian's $package $version"
		rm -rf "$dir.tmp"
		mkdir -p "$dir.tmp"
		(cd "$dir.tmp" && apt-get download -q -o APT::Sandbox::User=root "$package=$version" >&2 &&
			dpkg -x ./*.deb . && rm ./*.deb) || die "images: cannot fetch $package"
		mv "$dir.tmp" "$dir"
	fi
	echo "$dir"
}

while read -r from to; do
	case $from in
	deb:*)
		IFS=: read -r _ package path <<<"$from"
		from=$(with_lock debs unpacked "$package")$path
		;;
	*) from=$TOP/$from ;;
	esac
	mkdir -p "$root${to%/*}"
	cp -rL "$from" "$root$to"
done < <(list_lines "$TOP/examples/nginx/guest-files.list")
