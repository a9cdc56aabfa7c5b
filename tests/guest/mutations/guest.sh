#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# guest.sh FIRST: in the guest, whose kernel log the host reads: for each defect of the list
# from number FIRST on, run the test that is named there, and say what came of it.  Before the
# first, run each of these tests without a defect.
here=/epk/mutations
switch=/sys/module/epk/parameters/mutation
first=$1
seconds=8

say() { echo "mutations: $*" >/dev/kmsg; }

# file_test.h's disk and the rest of the tests find their way about as in any run.
arguments() {
	case $1 in
	kmod-file) echo memfd ;;
	kmod-fuzz) echo 600 1 ;;
	kmod-neighbour) echo bounds ;;
	esac
}

# run NUMBER TEST: 0, its exit status, or hang.  What hangs may never die.
run() {
	program=/epk/bin/$(echo "$2" | tr - _)_test
	rm -f /tmp/rc
	echo "$1" >$switch
	[ "$(cat $switch)" = "$1" ] || { say "no effect: $switch does not take $1"; reboot -f; }
	# shellcheck disable=SC2046
	{ "$program" $(arguments "$2"); echo $? >/tmp/rc; } >/tmp/out 2>&1 </dev/null &
	child=$!
	i=0
	while [ ! -s /tmp/rc ] && [ $i -lt $((seconds * 10)) ]; do
		usleep 100000
		i=$((i + 1))
	done
	kill -KILL $child 2>/dev/null
	[ -s /tmp/rc ] || { rc=hang; return; }
	rc=$(cat /tmp/rc)
	echo 0 >$switch
}

ip link set lo up
# Some tests load the module anew, from there.
cp $here/epk.ko /epk/epk.ko
insmod /epk/epk_raw.ko && insmod /epk/epk.ko || { say "no module"; exit 1; }
if [ "$first" = 1 ]; then
	for test in $(awk '{ print $2 }' $here/list | sort -u); do
		run 0 "$test"
		say "0 $test $rc"
		[ "$rc" = 0 ] || tail -n 5 /tmp/out | while read -r line; do say "0 : $line"; done
	done
fi
while read -r number test defect; do
	[ "$number" -ge "$first" ] || continue
	say "$number begins"
	run "$number" "$test"
	say "$number $test $rc $defect"
	[ "$rc" != hang ] || reboot -f
done <$here/list
say "end"
