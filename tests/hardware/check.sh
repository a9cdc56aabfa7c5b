#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh [FILE]: on an Intel host whose KVM has EPK, run the tests of KVM and of the guest and the
# benchmarks on the real thing, and write what came of it to FILE (epk-hardware.txt), to be sent in.
# Root only.  No VM may run: KVM's Intel module is loaded anew again and again.
# Exit status: 0 all passed; 1 something did not, or nothing could be run, with the reason; 2 usage.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
run=$top/tests/testbed/run.py
host=$top/kvm-patches/host/build/epk-host

case ${1-} in
--help | -*)
	sed -n '3,6s/^# //p' "$0"
	[ "$1" = --help ] && exit 0 || exit 2
	;;
esac
report=$(realpath "${1:-epk-hardware.txt}")

refuse() {
	echo "check-hw: $*" >&2
	echo "check-hw: nothing was run" >&2
	exit 1
}

make -s -C "$top/kvm-patches/host" || refuse "epk-host does not build"
[ "$(id -u)" = 0 ] || refuse "it loads kernel modules: run it as root"
"$host" check || refuse "this machine cannot run EPK, or not yet: see above, and docs/install.md for what to do"
vms=$("$host" status --json) || refuse "epk-host status fails"
[ "$(jq '.vms | length' <<<"$vms")" = 0 ] || refuse "VMs run: shut them down first (epk-host status)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# What the module was loaded with; tests load it with other parameters.
options=$(for path in /sys/module/kvm_intel/parameters/{epk,pml,eptad,nested}; do
	echo "${path##*/}=$(cat "$path")"
done)

section() { printf '\n== %s\n' "$*"; }

# tests NAME ARGUMENT...: as run.py has them
tests() {
	local name=$1
	shift
	section "$name: run.py $*"
	"$run" "$@" || failed=1
}

{
	section machine
	uname -srvm
	grep -m 1 'model name' /proc/cpuinfo
	grep -m 1 microcode /proc/cpuinfo
	modinfo -F filename kvm_intel
	git -C "$top" log -1 --format='EPK on KVM %H' 2>/dev/null
	"$host" check --json
	tests "KVM and guest, one CPU" --here --cpus 1
	tests "KVM and guest, two CPUs" --here --cpus 2
} 2>&1 | tee "$work/tests"
grep -q ' failed' "$work/tests" && ! grep ' failed' "$work/tests" | grep -v -q ' 0 failed' || failed=1

# The same programs: TSC ticks here, which are instructions in the emulator.
"$run" --here --cpus 1 --show bench-switch bench-flat >"$work/here" 2>&1 || failed=1
"$run" --emulated --cpus 1 --show bench-switch bench-flat >"$work/emulated" 2>&1 || failed=1
{
	section "TSC ticks of this machine, and instructions in the emulator"
	"$top/tests/hardware/beside.py" "$work/here" "$work/emulated" || failed=1
	section "TSC ticks without a guest"
	make -s -C "$top/bench" lib
} 2>&1 | tee "$work/figures"

rmmod kvm_intel && modprobe kvm_intel $options ||
	echo "check-hw: kvm_intel was not loaded again as it was; modprobe kvm_intel" >&2
cat "$work/tests" "$work/figures" "$work/here" "$work/emulated" >"$report"
echo "check-hw: $report"
exit $failed
