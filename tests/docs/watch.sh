#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# watch.sh: the lines of docs/operations.md by which root watches a running process say what it does, each; those of the module's
# tracepoints name events and fields that it has (tests/unit/trace_test.c has them told, in the guest).
# Exits 77 with the reason on the last line where the kernel has no uprobes.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
cd "$TOP"
work=$(mktemp -d)
trap 'kill $none $mpk 2>/dev/null || :; rm -rf "$work"' EXIT
none='' mpk=''
[ -w /sys/kernel/tracing/uprobe_events ] || mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || :
if [ ! -w /sys/kernel/tracing/uprobe_events ]; then
	echo "the kernel has no uprobes, or this is not root"
	exit 77
fi

make -s -C guest-lib
cat >"$work/busy.c" <<'END'
#include <epk.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;

static void on_fault(int signo)
{
	siglongjmp(back, signo);
}

/* With an argument it goes astray, too. */
int main(int argc, char **argv)
{
	volatile char *mem;
	int id;

	(void)argv;
	if (alloc_domains(1, &id) ||
	    (mem = domain_mmap(id, NULL, 4096, PROT_READ | PROT_WRITE, 0)) == MAP_FAILED)
		return 1;
	signal(SIGSEGV, on_fault);
	for (;;) {
		if (argc > 1 && !sigsetjmp(back, 1))
			mem[0] = 1;
		if (domain_begin(id, PROT_READ | PROT_WRITE) || domain_end(id) || domain_begin(id, PROT_READ) || domain_end(id))
			return 1;
		usleep(10000);
	}
}
END
library=$TOP/guest-lib/build/libepk.so.1
gcc -O2 -o "$work/busy" -Iguest-lib/include "$work/busy.c" "$library"
EPK_BACKEND=none LD_LIBRARY_PATH=guest-lib/build "$work/busy" 2>/dev/null &
none=$!
mpk=
if grep -qw ospke /proc/cpuinfo; then
	EPK_BACKEND=mpk LD_LIBRARY_PATH=guest-lib/build "$work/busy" astray 2>/dev/null &
	mpk=$!
fi

# Of the table: what stands between the second column's quotes.
mapfile -t lines < <(sed -n 's/^| .* | `\(\(bpftrace\|perf\) .*\)` |$/\1/p' docs/operations.md)
[ ${#lines[@]} -ge 6 ] || die "watch: where are the lines?"
ran=0
for line in "${lines[@]}"; do
	if [[ $line == *tracepoint:epk:* ]]; then
		event=$(sed 's/.*tracepoint:epk:\([a-z_]*\).*/\1/' <<<"$line")
		# From its name to the next one's.
		fields=$(sed -n "/^TRACE_EVENT($event,/,/^);/p" guest-kmod/trace.h)
		[ -n "$fields" ] || die "watch: the module has no tracepoint $event"
		for field in $(grep -o 'args->[a-z]*' <<<"$line" | cut -c 7-); do
			grep -q "__field(.*, $field)" <<<"$fields" || die "watch: $event has no $field"
		done
		continue
	fi
	pid=$none
	if [[ $line == *page_fault_user* ]]; then
		[ -n "$mpk" ] || continue
		pid=$mpk
	fi
	line=${line//PID/$pid}
	line=${line//LIB/$library}
	if [[ $line == perf* ]]; then
		# Its cache and what it records are the test's; and it leaves no probe.
		(cd "$work" && HOME=$work timeout 60 bash -c "$line") >"$work/said" 2>&1 || :
		kill -0 $pid || die "watch: the process has not gone on"
		counted=$(grep -cE ' sdt_epk:begin[_0-9]*: .* arg1=[1-9][0-9]*$' "$work/said" || :)
		[ "$counted" -gt 20 ] || { cat "$work/said" >&2; die "watch: nothing was told by $line"; }
		! grep sdt_epk /sys/kernel/tracing/uprobe_events >&2 || die "watch: perf's probes are there still"
		ran=$((ran + 1))
		continue
	fi
	timeout -s INT 20 bash -c "${line/-e \'/-e \'interval:s:2 { exit() \} }" >"$work/said" 2>&1 || :
	kill -0 $pid || die "watch: the process has not gone on"
	# Some tens of times; the last has a count for the domain.
	case $line in
	*'epk:begin { printf'*) kinds=('begins [0-9]+ for 3' 'begins [0-9]+ for 1') ;;
	*'epk:end { printf'*) kinds=('ends [0-9]+') ;;
	*page_fault_user*) kinds=('[0-9a-f]+000') ;;
	*) kinds=() counted=$(sed -n 's/^@begins\[[0-9]*\]: //p' "$work/said") ;;
	esac
	for kind in "${kinds[@]}"; do
		counted=$(grep -cE "^[0-9]+:? $kind\$" "$work/said" || :)
		[ "$counted" -gt 20 ] || break
	done
	[ "${counted:-0}" -gt 20 ] || { cat "$work/said" >&2; die "watch: nothing was told by $line"; }
	ran=$((ran + 1))
done
[ $ran -ge 4 ] || die "watch: only $ran lines ran"
echo "watch: $ran lines told what the process does"
