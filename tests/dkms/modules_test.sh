#!/bin/sh
# SPDX-License-Identifier: MIT
# On the emulated host with Debian's kernel: host-modules puts the modules with EPK in the place of
# the kernel's own and back, and the host has a working KVM after whatever goes wrong.
export PATH="/epk/kmod:/epk/bin:$PATH"
updates=/lib/modules/$(uname -r)/updates/epk-kvm
kept=/tmp/kept
said=/tmp/said

fail() {
	echo "$*"
	cat $said
	dmesg | tail -n 5
	exit 1
}

# call STATUS TEXT ARG...: what it ends with, and says.
call() {
	local status=$1 text=$2 rc=0
	shift 2
	host-modules "$@" >$said 2>&1 || rc=$?
	[ $rc = "$status" ] || fail "$*: exit status $rc"
	grep -q "$text" $said || fail "$* does not say: $text"
	echo "$*: $(tail -n 1 $said)"
}

# With EPK, or without; and it works: there is a file behind the device.
ours() {
	[ "$(cat /sys/module/kvm_intel/parameters/epk)" = any ] || fail "no EPK"
	true </dev/kvm || fail "no KVM"
}
stock() {
	[ ! -e /sys/module/kvm_intel/parameters/epk ] || fail "not the kernel's own"
	true </dev/kvm || fail "no KVM"
}

again() {
	mkdir -p ${updates%/*}
	cp -r $kept $updates
	depmod
}

cp -r $updates $kept
call 0 'loaded already' load
ours
exec 8</dev/kvm
call 1 "shut down the VMs.*$$" restore
ours
exec 8<&-

call 0 'own KVM is loaded again' restore
stock
[ ! -e $updates ] || fail "the files are there"
call 0 'is installed and loaded' restore
stock
call 1 'call install' load
stock

again
exec 8</dev/kvm
call 1 "shut down the VMs.*$$" load
stock
exec 8<&-
call 0 'guests may use EPK' load
ours

# Another build than that which is installed.
cp /epk/kmod/other.ko $updates/kvm-intel.ko
call 0 'guests may use EPK' load
ours
call 0 'loaded already' load

# What the kernel does not take, half of it, and none of it.
rm -rf $updates
again
cp /epk/kmod/kvm-intel.ko $updates/
depmod
modprobe -r kvm_intel
call 1 'has changed: the kernel.s own' load
stock
rm $updates/kvm.ko
depmod
call 1 'call install' load
stock
rm -rf $updates
again

# A cut in between: nothing is loaded, or half.
modprobe -r kvm_intel
call 0 'guests may use EPK' load
ours
rmmod kvm_intel
call 0 'guests may use EPK' load
ours
rmmod kvm_intel
call 0 'own KVM is loaded again' restore
stock

again
call 0 'guests may use EPK' load
ours
[ "$(cat /sys/module/kvm/parameters/epk_debug)" = Y ] || fail "options are lost"
