#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# alone.sh [--plan] [DEFECTS [TEST]]: try the defects that show where the module is alone, on machines
# that start within seconds: all, or what a regular expression matches; by a test, if it is named,
# whatever theirs is.  With --plan only say how many there are at each level.
set -euo pipefail
plan=
[ "${1:-}" != --plan ] || { plan=1; shift; }
export DEFECTS="${1:-}" DEFECTS_TEST="${2:-}"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../testbed/lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 all=0
"$here/mutate.py" "$TOP/guest-kmod" "$work/sources" >"$work/all"

# How many of a level are wanted.  All are read: who stops at the first ends who writes, which fails.
wanted() {
	awk -v level="$1" '$2 == level' "$work/all" | cut -d ' ' -f 1,3- |
		grep -cE -- "${DEFECTS:-.}" || :
}

for name in alone two 6.12; do
	count=$(wanted $name)
	all=$((all + count))
	[ -z "$plan" ] || echo "$name $count"
done
[ "$all" -gt 0 ] || die "no defect that shows there is '$DEFECTS'"
[ -z "$plan" ] || exit 0
normal=$("$TESTBED/kernel.sh" normal)

# On one CPU, on two, on Debian's Linux 6.12: level LEVEL KERNEL CPUS
level() {
	local folder=$work/$1 kernel=$2 modules
	[ "$(wanted "$1")" != 0 ] || return 0
	modules=$("$TESTBED/build.sh" "$kernel" "$normal")
	mkdir -p "$folder/guest/epk"
	"$here/files.sh" "$1" "$folder/guest" "$kernel" "$folder"
	cp "$TESTBED/init/guest" "$folder/guest/init"
	cp "$modules/tests/guest/raw/epk_raw.ko" "$folder/guest/epk"
	: >"$folder/guest/epk/config"
	"$TESTBED/images.sh" "$folder" "$kernel"
	ln -s "$kernel/bzImage" "$TESTBED/build/tsc_khz" "$folder"
	# Seconds are real ones here.
	CPUS=$3 setpriv --pdeathsig KILL "$folder/mutate.sh" 40 || failed=1
}

level alone "$normal" 1
level two "$normal" 2
[ "$(wanted 6.12)" = 0 ] || level 6.12 "$("$TESTBED/debian-kernel.sh" backports)" 1
exit $failed
