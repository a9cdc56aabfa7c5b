#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# guest.sh FIRST: in the guest, whose kernel log is read outside: for each defect of the list
# from number FIRST on, run the test that is named there, and say what came of it; before that,
# run it without the defect.
here=/epk/mutations
switch=/sys/module/epk/parameters/mutation
first=$1
seconds=$(sed -n 's/.* seconds=\([0-9]*\).*/\1/p' /proc/cmdline)

say() { echo "mutations: $*" >/dev/kmsg; }

# run NUMBER TEST: 0, its exit status, or hang.  What hangs may never die; what goes round in user
# mode does, and need not be waited for so long.
run() {
	program=$(sed -n "s|^$2 |/epk/bin/|p" $here/tests)
	rm -f /tmp/rc
	echo "$1" >$switch
	[ "$(cat $switch)" = "$1" ] || { say "no effect: $switch does not take $1"; reboot -f; }
	# shellcheck disable=SC2086
	{ (ulimit -t $((seconds / 2)); exec $program); echo $? >/tmp/rc; } >/tmp/out 2>&1 </dev/null &
	child=$!
	i=0
	while [ ! -s /tmp/rc ] && [ $i -lt $((seconds * 10)) ]; do
		usleep 100000
		i=$((i + 1))
	done
	kill -KILL $child 2>/dev/null
	[ -s /tmp/rc ] || { rc=hang; return; }
	rc=$(cat /tmp/rc)
	[ "$rc" != 0 ] || [ "$(cat $switch)" = "$1" ] || say "$number : $2 has loaded the module without the defect"
	echo 0 >$switch
}

ip link set lo up
# Some tests load the module anew, from there.
cp $here/epk.ko /epk/epk.ko
insmod /epk/epk_raw.ko && insmod /epk/epk.ko || { say "no module"; exit 1; }
fresh=1
while read -r number test defect; do
	[ "$number" -ge "$first" ] || continue
	run 0 "$test"
	if [ "$rc" != 0 ]; then
		# What an earlier defect has left does not count.
		[ "$fresh" ] || { say "$number spoilt"; reboot -f; }
		{ grep ' failed: ' /tmp/out | head -n 5; tail -n 5 /tmp/out; } | while read -r line; do say "$number : $line"; done
		say "$number $test 0 without it, too: $rc"
		reboot -f
	fi
	fresh=
	say "$number begins"
	run "$number" "$test"
	say "$number $test $rc $defect"
	[ "$rc" != hang ] || reboot -f
done <$here/list
say "end"
