#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# mutate.sh SECONDS: see that each defect of "list", beside this file, makes the test fail
# that is named there within so many seconds, and that without it the test passes.  A defect
# may take the guest with it, or its only CPU: that is noticed, and another guest, which "boot"
# starts, goes on behind it.
here=${0%/*}
seconds=$1
log=$here/log
failed=0
tried=0

# The first of the list from a number on.
next_from() {
	awk -v from="$1" '$1 >= from { print $1; exit }' "$here/list"
}

# End a guest of which nothing has been heard for longer than a test may take.
watch() {
	quiet=0
	before=
	while [ $quiet -lt $((seconds * 2)) ]; do
		sleep 2
		now=$(stat -c %s "$log")
		if [ "$now" = "$before" ]; then quiet=$((quiet + 2)); else quiet=0; fi
		before=$now
	done
	kill -KILL "$1"
}

next=$(next_from 1)
while [ -n "$next" ]; do
	: >"$log"
	"$here/boot" "$log" "mutations=$next seconds=$seconds" </dev/null &
	guest=$!
	watch $guest 2>/dev/null &
	watcher=$!
	wait $guest
	kill $watcher 2>/dev/null
	tr -d '\r' <"$log" | grep -o 'mutations: .*' | sed 's/^mutations: //' >"$here/lines"
	begun=
	before=$next
	while read -r number test rc defect; do
		case $number in
		end | no) continue ;;
		esac
		case $test in
		:) echo "        $rc $defect"; continue ;;
		begins) begun=$number; continue ;;
		spoilt) continue ;;
		esac
		begun=
		next=$(next_from $((number + 1)))
		tried=$((tried + 1))
		if [ "$rc" = 0 ]; then
			echo "FAIL $number $test: $defect"
			failed=1
		else
			echo "ok $number $test ($rc): $defect"
		fi
	done <"$here/lines"
	grep -q '^end' "$here/lines" && break
	# It began and has no result: the guest died of it.
	if [ -n "$begun" ]; then
		echo "ok $begun (the guest died): $(grep -o 'Oops.*\|BUG.*\|Kernel panic.*' "$log" | head -n 1)"
		next=$(next_from $((begun + 1)))
		tried=$((tried + 1))
	elif [ "$next" = "$before" ]; then
		echo "FAIL the guest did not come to its first defect"
		tail -n 20 "$log"
		exit 1
	fi
done
count=$(wc -l <"$here/list")
[ "$tried" = "$count" ] || { echo "FAIL only $tried of $count were tried"; failed=1; }
echo "$count defects"
exit $failed
