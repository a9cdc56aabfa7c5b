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
touch "$report" 2>/dev/null || refuse "the report cannot be written"

work=$(mktemp -d)
failed=0

# What the module was loaded with; tests load it with other parameters.
options=$(for path in /sys/module/kvm_intel/parameters/{epk,pml,eptad,nested}; do
	echo "${path##*/}=$(cat "$path")"
done)

# However this ends.
restore() {
	rm -rf "$work"
	rmmod kvm_intel 2>/dev/null
	# Words that are to be split.
	# shellcheck disable=SC2086
	modprobe kvm_intel $options ||
		echo "check-hw: kvm_intel was not loaded again as it was; modprobe kvm_intel" >&2
}
trap restore EXIT
trap 'exit 1' INT TERM

section() { printf '\n== %s\n' "$*"; }

# into FILE COMMAND...: its output is seen, too; whatever fails, all fails.
into() {
	local file=$work/$1
	shift
	"$@" 2>&1 | tee -a "$file"
	[ "${PIPESTATUS[0]}" = 0 ] || failed=1
}

machine() {
	section machine
	uname -srvm
	grep -m 1 'model name' /proc/cpuinfo
	grep -m 1 microcode /proc/cpuinfo
	modinfo -F filename kvm_intel
	git -C "$top" log -1 --format='EPK on KVM %H' 2>/dev/null
	"$host" check --json
}

into tests machine
for cpus in 1 2; do
	into tests section "KVM and guest, CPUs: $cpus"
	into tests "$run" --here --cpus $cpus
done

# The whole evaluation, but for what compares with a stock KVM of the same kernel: TSC ticks here, instructions in the emulator.
benchmarks=(bench-switch bench-flat bench-micro bench-hash bench-ipc bench-sqlite bench-scale bench-nginx bench-peers bench-guest)
into here "$run" --here --cpus 1 --show --figures "$work/ticks" "${benchmarks[@]}"
into figures section "TSC ticks of this machine, and instructions in the emulator"
into figures "$top/tests/hardware/beside.py" "$work/ticks"
into figures section "TSC ticks without a guest"
into figures make -s -C "$top/bench" lib

cat "$work/tests" "$work/figures" "$work/here" >"$report" || failed=1
echo "check-hw: $report"
exit $failed
