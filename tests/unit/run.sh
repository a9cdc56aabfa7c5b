#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh BACKEND: build the unit tests, and run them for one backend, on this machine.
# Exits 77 with the reason on the last line if the machine lacks it.
set -u
cd "$(dirname "$0")" || exit 1
backend=${1-}
case $backend in
epk | mpk | vmfunc | mprotect | none) ;;
*)
	echo "usage: run.sh epk|mpk|vmfunc|mprotect|none" >&2
	exit 2
	;;
esac
make -s >&2 || exit 1
failed=0 skipped=0 ran=0
# Of those that failed, what they said last: see TELLING in tests/testbed/results.py.
why=
for source in *_test.c *_test.cc; do
	program=build/${source%.c*}
	out=$("$program" "$backend" 2>&1)
	rc=$?
	printf '%s\n' "$out"
	case $rc in
	0) ran=$((ran + 1)) ;;
	77) skipped=$((skipped + 1)) ;;
	*)
		failed=$((failed + 1))
		said=$(printf '%s\n' "$out" | grep -a 'ERROR\|FAILED  \]\|: 0x' | tail -n 6)
		[ -n "$said" ] || said=$(printf '%s\n' "$out" | tail -n 2)
		why="$why$(printf '%s\n' "$said" | sed "s/^/${source%.c*} failed ($rc): /")
"
		;;
	esac
done
if [ $failed -ne 0 ]; then
	printf '%s' "$why"
	exit 1
fi
if [ $ran -eq 0 ]; then
	echo "the CPU or the kernel has no $backend"
	exit 77
fi
echo "$ran programs, and $skipped that have no case for $backend"
