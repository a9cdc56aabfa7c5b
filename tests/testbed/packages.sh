#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# packages.sh [LIST]: install what packages.list or LIST names and the machine lacks.
set -eu
. "$(dirname "$0")/lib.sh"
list=${1:-$TESTBED/packages.list}

missing=()
while read -r name; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || :)
	[ "$status" = installed ] || missing+=("$name")
done < <(list_lines "$list")

if [ ${#missing[@]} -eq 0 ]; then
	say "packages: all there"
	exit 0
fi
[ "$(id -u)" = 0 ] || die "packages: root is needed to install: ${missing[*]}"

say "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$EPK_CACHE/log/packages.log
mkdir -p "${log%/*}"
{
	apt-get update -q &&
	apt-get install -q -y --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 </dev/null || {
	tail -n 20 "$log" >&2
	die "packages: apt-get failed, see $log"
}
say "packages: installed ${#missing[@]}"
