#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# nginx-files.sh ROOT: put what examples/nginx/guest-files.list names below ROOT.
# Debian packages are unpacked into the cache, never installed: no service starts.
set -eu
. "$(dirname "$0")/lib.sh"
root=$1

make -s -C "$TOP/examples/nginx" install DESTDIR="$(realpath "$root")" PREFIX=/usr

while read -r from to; do
	case $from in
	deb:*)
		IFS=: read -r _ package path <<<"$from"
		from=$(with_lock debs deb_of_apt "$package")$path
		;;
	*) from=$TOP/$from ;;
	esac
	mkdir -p "$root${to%/*}"
	cp -rL "$from" "$root$to"
done < <(list_lines "$TOP/examples/nginx/guest-files.list")
