#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# nginx-files.sh ROOT: put what examples/nginx/guest-files.list names below ROOT.
# Debian packages are unpacked into the cache, never installed: no service starts.
set -eu
. "$(dirname "$0")/lib.sh"
root=$1

# The libraries of a program that this machine may lack.
copy_libraries_below() { # copy_libraries_below FOLDER PROGRAM
	local file
	for file in $(LD_LIBRARY_PATH=$1/usr/lib/x86_64-linux-gnu libraries_of "$2"); do
		case $file in
		"$1"/*) install -D -m 755 "$file" "$root${file#"$1"}" ;;
		esac
	done
}

servers=
make -s -C "$TOP/examples/nginx" install DESTDIR="$(realpath "$root")" PREFIX=/usr

while read -r from to; do
	case $from in
	deb:*)
		IFS=: read -r _ package path <<<"$from"
		from=$(with_lock debs deb_of_apt "$package")$path
		;;
	servers:*)
		[ -n "$servers" ] || servers=$("$TOP/examples/nginx/servers/root.sh")
		from=$servers${from#servers:}
		copy_libraries_below "$servers" "$from"
		;;
	*) from=$TOP/$from ;;
	esac
	mkdir -p "$root${to%/*}"
	cp -rL "$from" "$root$to"
done < <(list_lines "$TOP/examples/nginx/guest-files.list")
