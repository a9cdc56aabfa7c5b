#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check_test.sh: what check.sh does on a host that has EPK, with all that it calls made up; where it runs nothing; and that
# what it would run is there.
set -eu -o pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree="$work/a tree"
bin=$work/bin
report="$work/a report"
mkdir -p "$tree"/{tests/hardware,tests/testbed,bench,kvm-patches/host/build} "$bin"
cp "$top"/tests/hardware/{check.sh,beside.py} "$tree/tests/hardware/"
cp -r "$top"/bench/{figures.py,results} "$tree/bench/"
printf 'all:\n' >"$tree/kvm-patches/host/Makefile"
printf 'lib:\n\t@echo cycles without a guest\n' >"$tree/bench/Makefile"

fail() {
	echo "check_test: $*" >&2
	cat "$work/said" >&2
	exit 1
}

# made FILE: standard input is the script.
made() {
	cat >"$1"
	chmod 755 "$1"
}

made "$tree/kvm-patches/host/build/epk-host" <<-'EOF'
	#!/bin/sh
	case "$*" in
	check*) exit "${LACKS:-0}" ;;
	"status --json") echo "{\"vms\": [${VMS-}]}"; exit "${NO_STATUS:-0}" ;;
	esac
EOF
made "$tree/tests/testbed/run.py" <<-'EOF'
	#!/bin/bash
	echo "run.py $*" | tee -a "$CALLS"
	while [ $# -gt 0 ]; do
		[ "$1" != --figures ] || python3 -c 'import json, sys
	for figure in json.load(open(sys.argv[1]))["figures"]:
	    if figure["table"] not in ("KVM", sys.argv[2]):
	        print(json.dumps(figure))' "$(dirname "$0")/../../bench/results/emulated.json" "${WITHOUT-}" >"$2"
		shift
	done
	exit "${FAILS:-0}"
EOF
for program in modprobe rmmod; do
	made "$bin/$program" <<<$'#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"'
done
made "$bin/id" <<<$'#!/bin/sh\necho "${USER_ID:-0}"'
made "$bin/modinfo" <<<$'#!/bin/sh\necho /lib/modules/kvm-intel.ko'

# try [NAME=VALUE]... [-- FILE]: $status, what it says in said, what it calls in calls.
try() {
	local set=() file=$report
	rm -f "$report" "$work/calls"
	: >"$work/calls"
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		set+=("$1")
		shift
	done
	[ $# -lt 2 ] || file=$2
	status=0
	env "PATH=$bin:$PATH" "CALLS=$work/calls" "${set[@]}" "$tree/tests/hardware/check.sh" "$file" \
		>"$work/said" 2>&1 </dev/null || status=$?
}

says() { grep -qF -- "$1" "$work/said" || fail "it does not say: $1"; }

# refuses WORDS [NAME=VALUE]... [-- FILE]: nothing is run, loaded or left.
refuses() {
	local words=$1
	shift
	try "$@"
	[ $status = 1 ] || fail "status $status where it has to refuse: $words"
	says "$words"
	says "nothing was run"
	[ ! -s "$work/calls" ] || fail "it has called $(cat "$work/calls")"
	[ ! -e "$report" ] || fail "it has left a report"
}

refuses "this machine cannot run EPK" LACKS=1
refuses "run it as root" USER_ID=1000
refuses "VMs run" 'VMS={"pid": 1}'
refuses "epk-host status fails" NO_STATUS=1
refuses "the report cannot be written" -- "$work/none/report"
refuses "the report cannot be written" -- /proc/report

try
[ $status = 0 ] || fail "status $status where all is well"
says "check-hw: $report"
for words in "== KVM and guest, CPUs: 1" "== KVM and guest, CPUs: 2" "this machine" "domains: vmfunc (1024 domains" "cycles without a guest"; do
	grep -qF -- "$words" "$report" || fail "the report does not have: $words"
done
grep -qx "run.py --here --cpus 1" "$work/calls" && grep -qx "run.py --here --cpus 2" "$work/calls" || fail "tests are left out"
tail -n 1 "$work/calls" | grep -q "^modprobe kvm_intel" || fail "KVM is not loaded as it was, at the end"

try FAILS=1
[ $status = 1 ] || fail "status $status where tests fail"
grep -qF "cycles without a guest" "$report" || fail "the report ends where tests fail"
tail -n 1 "$work/calls" | grep -q "^modprobe kvm_intel" || fail "KVM is not loaded where tests fail"
try WITHOUT=sqlite
[ $status = 1 ] || fail "status $status without a benchmark"
says "not measured here: sqlite"

# All of the evaluation, and each is a test that can run there.
benchmarks=$(sed -n 's/.*--figures [^ ]* //p' "$work/calls")
wanted=$(cd "$top/bench" && python3 -c 'import evaluate; print(*(t for t in evaluate.TESTS if t != "bench-kvm"))')
[ "$benchmarks" = "$wanted" ] || fail "it measures $benchmarks, not $wanted"
for name in $benchmarks; do
	"$top/tests/testbed/run.py" --here --cpus 1 --plan "$name" >"$work/said" 2>&1 || fail "no such test: $name"
	grep -q ' [1-9][0-9]* tests\?: ' "$work/said" || fail "$name does not run on a real machine"
done
echo "check_test: all benchmarks, 6 refusals"
