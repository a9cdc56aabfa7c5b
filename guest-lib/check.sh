#!/bin/sh
# SPDX-License-Identifier: MIT
# check.sh: what an installed libepk looks like from outside.  B is the build folder.
set -eu
cd "$(dirname "$0")"
B=${B:-build}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

fail() {
	echo "check: $*"
	exit 1
}

# C++ takes the header.
echo '#include <epk.h>' | g++ -x c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -Iinclude - ||
	fail "epk.h is not C++"

# The library exports what the header declares, and nothing else.
declared=$(gcc -E -Iinclude include/epk.h | tr '\n' ' ' |
	grep -oE '\b(alloc_domains|free_domains|domain_[a-z_]+|epk_[a-z_]+) ?\(' | tr -d ' (' | sort -u)
exported=$(nm -D --defined-only "$B/libepk.so.0" | awk '$2 == "T" { print $3 }' |
	sed 's/@.*//' | sort -u)
[ -n "$exported" ] || fail "nothing is exported"
[ "$declared" = "$exported" ] || {
	echo "declared:" $declared
	echo "exported:" $exported
	fail "header and library differ"
}

# WRPKRU and VMFUNC stand in the gates alone.  After WRPKRU comes a check at once;
# after VMFUNC comes WRPKRU, or a look at PKRU, before any way out.
objdump -d --no-show-raw-insn "$B/libepk.so.0" | awk '
	function bad(what) { print where, what; wrong = 1 }
	/^[0-9a-f]+ </ { where = $2 }
	$2 == "wrpkru" || $2 == "vmfunc" {
		if (where !~ /<(epk_begin_(read|write)|domain_end|epk_pkru_set|epk_ept_enter)>/)
			bad("a stray " $2)
		count[$2]++
	}
	wrpkru && $2 !~ /^(andn|not|cmp|sub)$/ { bad("no check after wrpkru") }
	{ wrpkru = $2 == "wrpkru" }
	vmfunc && $2 ~ /^(ret|call|jmp|vmfunc)/ { bad("a way out after vmfunc") }
	$2 ~ /^(rd|wr)pkru$/ { vmfunc = 0 }
	$2 == "vmfunc" { vmfunc = 1 }
	END { exit wrong || count["wrpkru"] < 6 || count["vmfunc"] < 3 }' ||
	fail "wrpkru or vmfunc is not where it should be"

# Each call has a man page.
for call in $exported; do
	[ -f "man/$call.3" ] || fail "man/$call.3 is missing"
done

# A program builds against the installed library alone, and runs.
make -s install DESTDIR="$stage" PREFIX=/usr >/dev/null
cat >"$stage/use.c" <<'EOF'
#include <epk.h>
int main(void)
{
	int id;

	if (alloc_domains(1, &id) || domain_begin(id, PROT_READ) || domain_end(id))
		return 1;
	return free_domains(1, &id) != 0;
}
EOF
PKG_CONFIG_SYSROOT_DIR=$stage PKG_CONFIG_PATH=$stage/usr/lib/pkgconfig \
	pkg-config --cflags --libs libepk >"$stage/flags" || fail "pkg-config does not find libepk"
# shellcheck disable=SC2046
gcc -o "$stage/use" "$stage/use.c" -I"$stage/usr/include" -L"$stage/usr/lib" $(cat "$stage/flags")
EPK_BACKEND=none LD_LIBRARY_PATH=$stage/usr/lib "$stage/use" || fail "the program failed"
echo "check: all passed"
