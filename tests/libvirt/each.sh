#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# each.sh [NAME...]: define, start, use by its console, shut down, destroy and undefine each domain of qemu-configs/, with
# Debian's libvirt and QEMU's own emulation, which has protection keys and no EPK: what differs from the file is
# adapt.py's.  The guest has Debian's kernel for clouds, our module and tests that need one EPT.  Without protection keys
# the guest says so; and a domain that asks for what the host lacks does not start.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
here=$TOP/tests/libvirt
seconds=200

if [ "${1-}" != --inside ]; then
	make -s -C "$here"
	kernel=$("$TESTBED/debian-kernel.sh" cloud)
	modules=$("$TESTBED/build.sh" "$kernel" "$("$TESTBED/kernel.sh")")
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	# What kvmclock would tell, and this emulation's microvm has nothing to measure by.
	arguments="console=ttyS0 quiet mitigations=off random.trust_cpu=on tsc_early_khz=$("$TESTBED/build/tsc_khz")"
	"$here/guest.sh" "$kernel" "$modules" "$work" "$arguments"
	"$here/daemon.sh" "$0" --inside "$work" "$kernel" "$arguments" "$@"
	exit
fi
work=$2
kernel=$3
arguments=$4
shift 4
export LIBVIRT_DEFAULT_URI=qemu:///system

fail() {
	echo "each: $*"
	tail -n 30 "$work/log" /var/log/libvirt/qemu/*.log 2>/dev/null || :
	exit 1
}

try() { virsh "$@" >>"$work/log" 2>&1 || fail "virsh $* failed"; }

# What it has to say on its console, in the words of the guest's log.
says() {
	local name=$1
	shift
	"$here/build/console" $seconds virsh console "$name" -- "$@" >>"$work/log" 2>&1 || fail "$name: its console"
}

until_off() {
	local name=$1 i
	for ((i = 0; i < 60; i++)); do
		[ "$(virsh domstate "$name")" != "shut off" ] || return 0
		sleep 1
	done
	fail "$name does not shut down"
}

adapted() {
	local file=$1
	shift
	"$here/adapt.py" --emulated --one-node --memory 1024 --disk "$work/disk.img" --seed "$work/initrd" --kernel "$kernel/bzImage" \
		--initrd "$work/initrd" --append "$arguments" "$@" \
		"$TOP/qemu-configs/$file.xml" >"$work/$file.xml"
	virt-xml-validate "$work/$file.xml" domain >>"$work/log" 2>&1 || fail "$file: as adapted it is not right"
	try define "$work/$file.xml"
}

huge_pages=/proc/sys/vm/nr_hugepages

# As many more as a guest of 512 MiB takes, for as long as this runs.
more_huge_pages() {
	local before
	before=$(cat $huge_pages)
	# shellcheck disable=SC2064 # what it is now
	trap "echo $before >$huge_pages" EXIT
	echo $((before + 256)) >$huge_pages
	[ "$(cat $huge_pages)" -ge $((before + 256)) ] || fail "this machine has no 512 MiB for huge pages"
}

domain() {
	local name=$1
	: >"$work/log"
	case $name in
	*-hugepages)
		more_huge_pages
		adapted "$name" --memory 512 ;;
	*) adapted "$name" ;;
	esac
	try start "$name"
	says "$name" '# ' 'ls /dev/vda; nproc; insmod /epk/epk.ko; dmesg | grep epk:' 'no EPTs from the host' \
		'kmod_signal_test; echo result $?' 'result 0'
	grep -q '^/dev/vda' "$work/log" || fail "$name has no disk"
	case $name in
	*-hugepages) grep -q '"prealloc":true' /var/log/libvirt/qemu/$name.log || fail "$name: without huge pages" ;;
	*-cloud) says "$name" '# ' 'ls /dev/vdb' '/dev/vdb' ;;
	*-numa)	says "$name" '# ' 'ls /sys/devices/system/node' 'node1' ;;
	esac
	try shutdown "$name"
	until_off "$name"
	try start --paused "$name"
	try destroy "$name"
	try undefine --nvram "$name"
	! virsh dominfo "$name" >/dev/null 2>&1 || fail "$name is there still"
	echo "$name: $(($(date +%s) - begin)) s"
}

without_keys() {
	: >"$work/log"
	adapted epk-guest --feature disable=pku
	try start epk-guest
	says epk-guest '# ' 'insmod /epk/epk.ko; echo result $?; dmesg | grep epk:' 'this CPU has no protection keys'
	! grep -q '^result 0' "$work/log" || fail "the module loads without protection keys"
	try destroy epk-guest
	try undefine epk-guest
	echo "without protection keys: refused by the module"
}

lacking() {
	: >"$work/log"
	adapted epk-guest --feature require=avx512f
	! virsh start epk-guest >>"$work/log" 2>&1 || fail "it starts without what it requires"
	grep -q 'missing features: avx512f' "$work/log" || fail "another refusal"
	try undefine epk-guest
	echo "a feature that is not there: refused by libvirt"
}

# shellcheck disable=SC2046 # a list
[ $# -gt 0 ] || set -- $(cd "$TOP/qemu-configs" && ls ./*.xml | sed 's/\.xml$//; s,^\./,,') without-keys lacking
for name; do
	begin=$(date +%s)
	case $name in
	without-keys) without_keys ;;
	lacking) lacking ;;
	*) domain "$name" ;;
	esac
done
