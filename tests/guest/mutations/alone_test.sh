#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# alone_test.sh: alone.sh takes all defects that are wanted, and success is not that there were none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
	echo "alone: $*"
	failed=1
}

listed() {
	awk -v level="$1" '$2 == level' "$work/list" | wc -l
}

"$here/mutate.py" "$here/../../../guest-kmod" "$work/sources" >"$work/list"
"$here/alone.sh" --plan >"$work/plan"
for level in alone two 6.12; do
	grep -qx "$level $(listed $level)" "$work/plan" ||
		fail "of level $level there are $(listed $level): $(tr '\n' ' ' <"$work/plan")"
done
[ "$(listed alone)" -gt 100 ] || fail "only $(listed alone) show on one CPU"
"$here/alone.sh" --plan 'private domain' >"$work/some"
cmp -s "$work/some" "$work/plan" && fail "a part is all"
"$here/alone.sh" 'no such defect' >"$work/log" 2>&1 && fail "none is a success"
grep -q "no defect that shows there is 'no such defect'" "$work/log" || fail "$(cat "$work/log")"
exit $failed
