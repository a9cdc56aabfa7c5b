#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# template.sh: examples/template, elsewhere and with the library as it is installed, builds by make and by meson, and passes
# its test; which sees a program that leaks.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	echo "template: $*"
	[ ! -f "$work/said" ] || cat "$work/said"
	exit 1
}

# well WHAT COMMAND...
well() {
	local what=$1
	shift
	"$@" >"$work/said" 2>&1 || fail "$what"
}

make -s -C "$top/guest-lib" install PREFIX="$work/usr" >/dev/null
cp -r "$top/examples/template" "$work/own"
cd "$work/own"
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig LD_LIBRARY_PATH=$work/usr/lib
unset EPK_BACKEND EPK_STRICT EPK_DEBUG
well "make" make B="$work/made" check CFLAGS="-O2 -Werror"
well "meson setup" meson setup --werror "$work/meson"
well "meson test" meson test -C "$work/meson"
grep -q '^Ok: *1 *$' "$work/said" || fail "meson runs no test"
for program in "$work/made/app" "$work/meson/app"; do
	readelf -d "$program" | grep -q 'NEEDED.*libepk.so.1' || fail "$program is not linked to the library"
done
grep -qw pku /proc/cpuinfo && well "under mpk" ./app_test.sh "$work/made/app" mpk
# Where nothing is protected it leaks, and the test says so.
rc=0
./app_test.sh "$work/made/app" none >"$work/said" 2>&1 || rc=$?
{ [ $rc = 1 ] && grep -q 'read from outside' "$work/said"; } || fail "the test does not see a leak"
# Where the clone is, it cannot know.
rc=0
make -s B="$work/made" run >"$work/said" 2>&1 || rc=$?
{ [ $rc != 0 ] && grep -q '^make run EPK_SOURCE=.*a clone of EPK on KVM, which ../.. is not' "$work/said"; } || fail "make run without a clone"
[ "$(wc -l <"$work/said")" -le 2 ] || fail "make run without a clone says too much"
# What goes to the guest, and how.
clone="$work/a clone"
mkdir -p "$clone/tests/testbed"
touch "$clone/tests/testbed/program.py" && chmod +x "$clone/tests/testbed/program.py"
printf 'run:\n\t@printf "%%s, " "$$PROGRAM" "$(BACKEND)" "$$FILES" "$$ARGS" "$(ALONE)" "$(CPUS)" "$(B)"\n' >"$clone/Makefile"

# takes BACKEND FILES ARGS WORD...
takes() {
	local words="$work/made/app, $1, $2, $3, 1, 2, , "
	shift 3
	well "make run $*" make -s B="$work/made" run EPK_SOURCE="$clone" ALONE=1 CPUS=2 "$@"
	[ "$(cat "$work/said")" = "$words" ] || fail "make run $*"
}
takes epk "'$work/own/app.c'" app.c
takes mpk "'$work/own/app.c'" app.c BACKEND=mpk
takes epk '"a b" c$d' "1 '2 3' \"4\"" FILES='"a b" c$$d' ARGS="1 '2 3' \"4\""
echo "template: all passed"
