#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# abi.sh [DIRECTORY]: what guests, VMMs and administrators see of KVM is the same in the
# series for each Linux, byte for byte.  DIRECTORY has other series than kvm-patches/.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
top=${1:-$TOP/kvm-patches}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

patches() { find "$top/$1" -name '[0-9]*.patch' ! -name '0000-*' | sort; }

# Files that a series adds, as its last patch leaves them.
add_files() {
	local series=$1 dir=$work/$1
	mkdir -p "$dir"
	git -C "$dir" init -q
	# shellcheck disable=SC2046 # a list
	git -C "$dir" apply --include='arch/x86/include/uapi/*' --include='arch/x86/kvm/*/epk*' \
		$(patches "$series")
}

file() { cat "$work/$1/$2"; }

# The same code, but for how KVM calls its vendor's module and finds its headers.
code() {
	file "$1" "$2" | sed -E '/^#include/d; s/static_call\(kvm_x86_(\w+)\)/kvm_x86_call(\1)/' |
		cat -s
}

# What the patches of a series change in a file that there was before.
changes() {
	patches "$1" | xargs cat | awk -v path="b/$2" '
		/^diff --git / { mine = $4 == path; body = 0; next }
		/^@@ / { body = 1; next }
		mine && body && /^[-+]/'
}

# The document's sections have other numbers in each Linux.
sections() { changes "$1" "$2" | sed -E 's/^([-+])[0-9]+\.[0-9]+ /\1N /'; }

# Names and numbers of statistics, capabilities, ioctls, hypercalls.
names() { changes "$1" "$2" | grep -E 'STATS_DESC_|case (KVM|MSR)_' | sort; }

# Parameters of modules, with their values and what is said of them.
parameters() {
	cat "$work/$1"/arch/x86/kvm/*/epk*.c | grep -E '^(module_param|MODULE_PARM_DESC)|^	\[VMX_EPK_'
}

# same WHAT FUNCTION ARGUMENT...
same() {
	local what=$1 function=$2 series
	shift 2
	for series in "${all[@]}"; do
		"$function" "$series" "$@" >"$work/$series.out" || :
		[ -s "$work/$series.out" ] || { echo "abi: $series has no $what"; failed=1; }
		cmp -s "$work/${all[0]}.out" "$work/$series.out" || {
			echo "abi: $what differs between ${all[0]} and $series:"
			diff "$work/${all[0]}.out" "$work/$series.out" | head -n 10
			failed=1
		}
	done
}

mapfile -t all < <(cd "$top" && find . -maxdepth 1 -name 'linux-*' -printf '%f\n' | sort -V)
[ ${#all[@]} -gt 1 ] || die "abi: where are the series?"
for series in "${all[@]}"; do
	add_files "$series"
done

same "kvm_epk.h" file arch/x86/include/uapi/asm/kvm_epk.h
same "the hypercall's code" code arch/x86/kvm/mmu/epk_hypercall.c
same "the code of what is saved in guest memory" code arch/x86/kvm/mmu/epk_saved.c
same "a tracepoint" changes arch/x86/kvm/trace.h
same "a statistic or an ioctl" names arch/x86/kvm/x86.c
same "a parameter" parameters
same "a parameter's description" changes Documentation/admin-guide/kernel-parameters.txt
same "api.rst" sections Documentation/virt/kvm/api.rst
for document in hypercalls cpuid msr; do
	same "$document.rst" changes "Documentation/virt/kvm/x86/$document.rst"
done
[ "$failed" = 0 ] || exit 1
echo "abi: the same in ${all[*]}"
