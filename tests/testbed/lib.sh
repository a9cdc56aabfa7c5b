# SPDX-License-Identifier: MIT
# What the testbed's scripts share.  To be sourced.
# shellcheck shell=bash

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TESTBED=$TOP/tests/testbed
EPK_CACHE=${EPK_CACHE:-$HOME/.cache/epk}

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# One of the things that a script looks at is wrong: it goes on, and ends by "exit $failed".
failed=0
fail() {
	echo "$(basename "$0" .sh): $*"
	# shellcheck disable=SC2034
	failed=1
}

# The lines of a list file, without comments.
list_lines() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1"; }

# A key for the contents of files and the strings given: content_key STRING... -- FILE...
content_key() {
	local strings=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		strings+=("$1")
		shift
	done
	shift
	{ printf '%s\n' "${strings[@]}"; [ $# -eq 0 ] || sha256sum <(cat -- "$@"); } |
		sha256sum | cut -c 1-20
}

# Hold the lock NAME while a command runs; concurrent runs wait for each other.
with_lock() {
	local name=$1
	shift
	mkdir -p "$EPK_CACHE/lock"
	(
		flock -n 8 || { say "waiting for another run: $name"; flock 8; }
		"$@" 8>&-
	) 8>"$EPK_CACHE/lock/$name"
}

# The directory that holds the files of a Debian package: deb_unpacked PACKAGE VERSION
deb_unpacked() {
	local package=$1 version=$2 dir=$EPK_CACHE/debs/$1-$2
	if [ ! -d "$dir" ]; then
		say "unpacking Debian's $package $version"
		rm -rf "$dir.tmp"
		mkdir -p "$dir.tmp"
		(cd "$dir.tmp" && apt-get download -q -o APT::Sandbox::User=root "$package=$version" >&2 &&
			dpkg -x ./*.deb . && rm ./*.deb) || die "cannot fetch $package $version"
		mv "$dir.tmp" "$dir"
	fi
	echo "$dir"
}

# The version of a Debian package that apt would install.
deb_candidate() { apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'; }

# The same of that version: deb_of_apt PACKAGE
deb_of_apt() {
	local version
	version=$(deb_candidate "$1")
	[ -n "$version" ] && [ "$version" != "(none)" ] || {
		apt-get update -q >&2
		version=$(deb_candidate "$1")
	}
	deb_unpacked "$1" "$version"
}

# The patches of the series for Linux VERSION, in order: series_patches [VERSION]
series_patches() {
	local series=$TOP/kvm-patches/linux-${1:-6.1}
	[ -d "$series" ] || return 0
	find "$series" -name '[0-9]*.patch' ! -name '0000-*' | sort
}

# What the testbed does to Linux VERSION because of the emulator.
quirk_patches() {
	find "$TESTBED/kernel/quirks" "$TESTBED/kernel/quirks/$1" -maxdepth 1 -name '*.patch' 2>/dev/null | sort
}

# The libraries that programs need, by their full paths.
libraries_of() {
	ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }
		$1 ~ /^\/.*ld-linux/ { print $1 }' | sort -u
}
