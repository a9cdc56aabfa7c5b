#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# compare.sh SET [VARIANT...]: on the emulated host, run Linux's KVM selftests of a
# set with KVM as Debian ships it (stock) and with the series (off: epk=off, any:
# epk=any, its checks on).  Exit status, output and kernel log must be the same, and
# the result must be what selftests.list says.  The variant broken is the series with
# the bug of broken.patch, and it must differ.
here=/epk/selftests
out=/tmp/selftests
set=$1
shift
variants=${*:-stock off any}
failed=0
differing=0

fail() {
	echo "FAIL $*"
	failed=1
}

# The series' parameter was a switch once.
epk_parameter() {
	case $1-$(grep -a -c '^parmtype=epk:bool' /epk/kvm-intel.ko) in
	off-0) echo epk=off ;;
	off-*) echo epk=0 ;;
	any-0) echo epk=any ;;
	any-*) echo epk=1 ;;
	esac
}

# Of the list "module.parameter=value,..." those of one module.
parameters_of() { echo "$2" | tr , '\n' | sed -n "s/^$1\.//p"; }

# load VARIANT PARAMETERS: stock and broken have modules of their own.
load() {
	local modules=/epk checks=
	[ ! -d "$here/$1" ] || modules=$here/$1
	[ "$1" != any ] || ! grep -q -a '^parmtype=epk_debug:' /epk/kvm.ko || checks=epk_debug=1
	# shellcheck disable=SC2046 # lists
	insmod $modules/kvm.ko $checks $(parameters_of kvm "$2") &&
		insmod $modules/kvm-intel.ko $(epk_parameter "$1") $(parameters_of kvm_intel "$2")
}

unload() { rmmod kvm_intel && rmmod kvm; }

parameter() {
	local file=/sys/module/$1/parameters/$2
	[ ! -e "$file" ] || echo "$2=$(cat "$file")"
}

# What is different each time: process IDs, times; for some tests every number, or how
# often they say something.
normalised() {
	sed -e 's/pid=[0-9]* tid=[0-9]*/pid=P/' -e '/addr2line: not found/d' \
		-e 's/^\[ *[0-9.]*\] //' | case $1 in
	exact) cat ;;
	status) cat >/dev/null ;;
	text) sed -e 's/0x[0-9a-f]*/N/g' -e 's/[0-9][0-9.]*/N/g' ;;
	esac
}

# The outcome as selftests.list names it.
outcome() {
	case $1 in
	0) echo pass ;;
	4) echo skip ;;
	137) echo timeout ;;
	*) echo fail ;;
	esac
}

# one NUMBER TIMEOUT COMPARE NAME ARGUMENT...: leave status, output and log in $to;
# show what the first variant says.
one() {
	local number=$1 timeout=$2 compare=$3 name=$4 start end rc
	shift 4
	dmesg -c >/dev/null
	read -r start _ </proc/uptime
	timeout -s KILL "$timeout" "$here/bin/$name" "$@" >"$to/raw" 2>&1 </dev/null
	rc=$?
	read -r end _ </proc/uptime
	dmesg -c >"$to/log"
	{ echo "exit status $rc"; cat "$to/raw" "$to/log"; } >"$to/$number.raw"
	{ echo "exit status $rc"; normalised "$compare" <"$to/raw"; normalised exact <"$to/log"; } \
		>"$to/$number"
	outcome $rc >"$to/$number.outcome"
	echo "$start $end" | awk -v who="$variant $(outcome $rc) $name $*" \
		'{ printf "%s (%.2f s)\n", who, $2 - $1 }'
	[ "$variant" != "$first" ] || sed 's/^/    /' "$to/raw" | cut -c 1-100 | head -n 12
}

# as_expected NAME NUMBER OUTCOME: with the reason of cannot.list, unless it passed.
as_expected() {
	local reason
	[ "$(cat "$to/$2.outcome")" = "$3" ] || return 1
	[ "$3" != pass ] || return 0
	reason=$(sed -n "s/^$1	$3	//p" $here/cannot.list)
	[ -n "$reason" ] && grep -q -F "$reason" "$to/$2.raw"
}

chosen() { grep -v '^#' $here/selftests.list | grep -E "^[^	]+	[^	]*\<$set\>" | sort -s -k 5,5; }

# Run the chosen tests on one variant of KVM.
run() {
	local loaded=none number=0
	to=$out/$variant
	mkdir -p "$to"
	while read -r name _ timeout expected parameters compare arguments; do
		number=$((number + 1))
		if [ "$loaded" != "$parameters" ]; then
			unload && load "$variant" "$parameters" ||
				{ fail "$variant: cannot load KVM with $parameters"; return; }
			loaded=$parameters
		fi
		one $number "$timeout" "$compare" "$name" $arguments
		[ "$variant" = broken ] || as_expected "$name" $number "$expected" || {
			fail "$variant: $name $arguments: expected $expected"
			tail -n 20 "$to/$number.raw"
		}
	done <$out/chosen
}

# compare VARIANT: with the first one.
compare() {
	local number=0
	while read -r name _ _ _ _ _ arguments; do
		number=$((number + 1))
		cmp -s "$out/$first/$number" "$out/$1/$number" && continue
		differing=$((differing + 1))
		echo "$name $arguments: $1 differs from $first"
		diff "$out/$first/$number" "$out/$1/$number" | head -n 40
	done <$out/chosen
}

mkdir -p $out
# For named semaphores, and for nx_huge_pages_test.
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
echo 3 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
chosen >$out/chosen
[ -s $out/chosen ] || fail "no selftest is of the set $set"
kvm=$(parameter kvm epk_debug)
kvm_intel=$(parameter kvm_intel epk)
first=${variants%% *}
for variant in $variants; do
	run
	[ "$variant" = "$first" ] || compare "$variant"
done
unload && insmod /epk/kvm.ko $kvm && insmod /epk/kvm-intel.ko $kvm_intel || fail "KVM does not come back"
case $variants in
*broken*) [ $differing -ne 0 ] || fail "nothing notices the bug" ;;
*) [ $differing -eq 0 ] || fail "$differing selftests differ" ;;
esac
echo "$(wc -l <$out/chosen) selftests with $variants: $differing differ"
exit $failed
