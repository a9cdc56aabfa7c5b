#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# mutate.sh: on the emulated host: see that each defect that mutations.list has for the module
# makes the test fail that is named there, and that without it the test passes.  A
# defect may take the guest with it, or its only CPU: that is noticed, and another guest goes on
# behind it.
. /epk/config
export OPENSSL_ia32cap=:~0x80000
here=/epk/kmod-mutations
log=/tmp/mutations.log
next=1
count=$(cat $here/count)
failed=0

# End a guest of which nothing has been heard for longer than a test may take.
watch() {
	quiet=0
	before=
	while [ $quiet -lt 8 ]; do
		sleep 2
		now=$(stat -c %s $log)
		if [ "$now" = "$before" ]; then quiet=$((quiet + 1)); else quiet=0; fi
		before=$now
	done
	killall -KILL qemu-system-x86_64
}

while :; do
	: >$log
	watch &
	watcher=$!
	sh /epk/microvm.sh --kernel /epk/kernel --initrd /epk/guest.cpio --cpus "$CPUS" \
		--append "$GUEST_ARGS loglevel=7 printk.devkmsg=on mutations=$next" --cpu host,-adx --machine acpi=off \
		--serial "file:$log" -- -bios /epk/qboot.rom
	kill $watcher 2>/dev/null
	tr -d '\r' <$log | grep -o 'mutations: .*' | sed 's/^mutations: //' >/tmp/lines
	while read -r number test rc defect; do
		case $number in
		end | no) continue ;;
		esac
		[ "$test" != : ] || { echo "        $rc $defect"; continue; }
		if [ "$test" = begins ]; then
			next=$number
		elif [ "$number" = 0 ]; then
			[ "$rc" = 0 ] || { echo "FAIL $test: $rc without a defect"; failed=1; }
		elif [ "$rc" = 0 ]; then
			echo "FAIL $number: $test does not notice that $defect"
			failed=1
		else
			echo "ok $number $test ($rc): $defect"
		fi
		[ "$number" = 0 ] || [ "$test" = begins ] || next=$((number + 1))
	done </tmp/lines
	grep -q '^end' /tmp/lines && break
	if ! grep -q '^[1-9][0-9]* begins' /tmp/lines; then
		echo "FAIL the guest did not come to its first defect"
		tail -n 20 $log
		exit 1
	fi
	# It began and has no result: the guest died of it.
	if grep -q "^$next begins" /tmp/lines; then
		echo "ok $next (the guest died): $(grep -o 'Oops.*\|BUG.*\|Kernel panic.*' $log | head -n 1)"
		next=$((next + 1))
	fi
	[ "$next" -le "$count" ] || break
done
[ "$next" -gt "$count" ] || { echo "FAIL only $((next - 1)) of $count were tried"; failed=1; }
echo "$count defects"
exit $failed
