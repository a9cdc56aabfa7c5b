#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# mutate.sh: on the emulated host, with KVM of kvm.patch, see that each defect of
# mutations.list makes the case fail that is named there, and that without it the case
# passes: of those that are for as many CPUs as there are.
here=/epk/mutations
switch=/sys/module/kvm/parameters/epk_mutation
failed=0

# The tests load KVM from there when they want it anew.
exchange() {
	for module in kvm kvm-intel; do
		mv /epk/$module.ko /epk/$module.other && mv $here/$module.ko /epk &&
			mv /epk/$module.other $here/$module.ko || return
	done
	rmmod kvm_intel && rmmod kvm && insmod /epk/kvm.ko epk_debug=1 &&
		insmod /epk/kvm-intel.ko $parameters
}

# run NUMBER TEST CASE: 137 if it hangs, which is a failure too.
run() {
	echo "$1" >$switch || exit 1
	timeout -s KILL 10 /epk/bin/"$2"_test "$3" >/tmp/out 2>&1 </dev/null
	rc=$?
	[ ! -e $switch ] || echo 0 >$switch
	return $rc
}

parameters="epk=$(cat /sys/module/kvm_intel/parameters/epk)"
exchange || { echo "KVM with the defects does not load"; exit 1; }
grep -v '^#' $here/mutations.list >/tmp/mutations
while read -r number cpus test case defect; do
	[ "$cpus" = "$(nproc)" ] || continue
	run 0 "$test" "$case" || { echo "FAIL $test $case: $rc without a defect"; cat /tmp/out; failed=1; }
	if run "$number" "$test" "$case"; then
		echo "FAIL $test $case does not notice that $defect"
		failed=1
	else
		echo "ok $test $case ($rc): $defect"
	fi
done </tmp/mutations
exchange || { echo "KVM does not come back"; exit 1; }
exit $failed
