#!/usr/bin/env bash
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

# C++ takes the headers.
for standard in 11 17 20; do
	echo '#include <epk.hpp>' | g++ -x c++ -std=c++$standard -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude - ||
		fail "epk.hpp is not C++$standard"
done
echo '#include <epk.h>' | g++ -x c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -Iinclude - ||
	fail "epk.h is not C++"
# What can return nothing says so in words.
printf '#include <epk.hpp>\nlong call() { return epk::call(1, [] { return %s; }); }\n' 7 | g++ -x c++ -std=c++11 -fsyntax-only -Iinclude - ||
	fail "epk::call() takes no function"
printf '#include <epk.hpp>\nlong call() { return epk::call(1, [] { return %s; }); }\n' '' | g++ -x c++ -std=c++11 -fsyntax-only -Iinclude - \
	2>"$stage/said" && fail "epk::call() takes a function that returns nothing"
grep -q 'epk::call: the function returns what fits' "$stage/said" || fail "g++ says of that: $(cat "$stage/said")"

exported=$(./names.sh "$B/libepk.so.1" "$B/libepk.a") || fail "header and library differ"

# Shadow stacks are fine but for where faults are caught, so that the whole does not say so; stacks are not code.
for object in gate gate_pin call_stack call call_caught component_gate libepk; do
	readelf -n "$B/$object.o" 2>/dev/null | sed -n 's/.*x86 feature: //p'
done | tr '\n' ' ' | grep -qx 'SHSTK SHSTK SHSTK SHSTK ' || fail "what objects say of shadow stacks"
# What docs/operations.md watches: each kind of begin, and the end.
for probe in 'begin -4@%edi -4@$3' 'begin -4@%edi -4@$1' 'end -4@%edi'; do
	readelf -n "$B/libepk.so.1" | awk '$1 == "Name:" { name = $2 } $1 == "Arguments:" { $1 = name; print }' | grep -qxF -e "$probe" ||
		fail "no probe $probe"
done
readelf -Wl "$B/libepk.so.1" | grep -q 'GNU_STACK.* RW ' || fail "stacks are executable"

# WRPKRU and VMFUNC stand in the gates alone.  After WRPKRU comes a check at once;
# after VMFUNC comes WRPKRU, or a look at PKRU, before any way out.  What comes after XRSTOR finds PKRU
# among what was asked for.
objdump -d --no-show-raw-insn "$B/libepk.so.1" | awk '
	function bad(what) { print where, what; wrong = 1 }
	# What the table says of the index in EDI; nothing else is read before it is compared.
	BEGIN {
		nr = split("mov .*<epk_state_page>;mov 0x100000\\(%r14,%rbx,8\\),%r10;pext .*,%r10,%r11 .*;" \
			   "cmp -0x1e80\\(%r14,%r11,4\\),%eax;jne .*", chain, ";")
	}
	/^[0-9a-f]+ </ { where = $2 }
	$2 == "xrstor" {
		if (where !~ /<(epk_call_on_stack|epk_call_fault|epk_registers_clear|epk_gate_call|confined_gate)>/)
			bad("a stray " $2)
		count[$2]++
	}
	restored && ($2 != "test" || $3 != "$0x200,%eax") { bad("no check after xrstor") }
	{ restored = $2 == "xrstor" }
	$2 == "wrpkru" || $2 == "vmfunc" {
		if (where !~ /<(epk_begin_(read|write)|domain_end|epk_close|pin_begin_(read|write)|epk_pin_end|epk_pkru_set|epk_ept_enter|epk_gate_call|epk_gate_release|epk_call_on_stack|epk_call_fault|confined_gate|epk_gate_release_confined)>/)
			bad("a stray " $2)
		count[$2]++
	}
	# With what was noted of it before: lea and sub.
	noted && $2 != "sub" { bad("no check after wrpkru") }
	{ noted = wrpkru && $2 == "lea" }
	# Or with what the table says of a domain, which nobody can write, before anything else is read.
	alone {
		text = $0
		sub(/^[^\t]*\t/, "", text)
		gsub(/ +/, " ", text)
		if (text !~ "^" chain[alone++] "$")
			bad("no check after wrpkru: " text)
		if (alone > nr)
			alone = 0
	}
	wrpkru && $2 == "pext" {
		alone = 1
		if (where != "<epk_gate_call>:" || $0 !~ /,%edi,%ebx .*<epk_state_page/)
			bad("no check after wrpkru")
	}
	wrpkru && $2 !~ /^(andn|not|cmp|sub|lea|pext)$/ { bad("no check after wrpkru") }
	{ wrpkru = $2 == "wrpkru" }
	vmfunc && $2 ~ /^(ret|call|jmp|vmfunc)/ { bad("a way out after vmfunc") }
	$2 ~ /^(rd|wr)pkru$/ { vmfunc = 0 }
	$2 == "vmfunc" { vmfunc = 1 }
	END { exit wrong || count["wrpkru"] < 6 || count["vmfunc"] < 3 || count["xrstor"] < 4 }' ||
	fail "wrpkru or vmfunc is not where it should be"

# epk-scan finds what is there, wherever an instruction begins, and no more.
cat >"$stage/strays.c" <<'EOT'
long in_immediate(void) { return 0x1122ef010f33; }
void plain(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xd4"); }
void restore(void *area) { __asm__ volatile("xrstor (%0)" : : "r"(area)); }
void across(void) { __asm__ volatile("mov $0x0f, %al\n\t.byte 0x01, 0xef"); }
void rexed(void) { __asm__ volatile(".byte 0xd5, 0x80, 0x01, 0xef\n\tnop\n\t.byte 0xd5, 0x7f, 0x01, 0xef"); }
void more(void) { __asm__ volatile(".byte 0xd5, 0xff, 0x01, 0xd4\n\tnop\n\t.byte 0xd5, 0x88, 0xae, 0x2f"); }
void fence(void) { __asm__ volatile("lfence"); }
EOT
gcc -O1 -shared -fPIC -nostdlib -o "$stage/strays.so" "$stage/strays.c"
"$B/epk-scan" "$stage/strays.so" >"$stage/found" && fail "epk-scan finds nothing"
sed 's/.*: \([a-z]*\) at .* (\([a-z_]*\)+.*/\1 \2/' "$stage/found" | sort >"$stage/names"
printf '%s\n' 'vmfunc more' 'vmfunc plain' 'wrpkru across' 'wrpkru in_immediate' 'wrpkru rexed' 'xrstor more' 'xrstor restore' |
	cmp - "$stage/names" || fail "epk-scan finds: $(cat "$stage/found")"
# The rest of a segment's last page is mapped with it.
python3 - "$stage/strays.so" "$stage/short.so" <<'EOT'
import struct, sys
elf = bytearray(open(sys.argv[1], "rb").read())
table, number = struct.unpack_from("<Q", elf, 32)[0], struct.unpack_from("<H", elf, 56)[0]
for header in range(table, table + 56 * number, 56):
    kind, flags = struct.unpack_from("<II", elf, header)
    if kind == 1 and flags & 1:
        struct.pack_into("<QQ", elf, header + 32, 1, 1)
open(sys.argv[2], "wb").write(elf)
EOT
"$B/epk-scan" "$stage/short.so" >"$stage/margin" || :
sed s/short/strays/ "$stage/margin" | cmp - "$stage/found" ||
	fail "epk-scan finds in the margins: $(cat "$stage/margin")"
"$B/epk-scan" -a plain -a across -a in_immediate -a restore -a rexed -a more "$stage/strays.so" ||
	fail "epk-scan -a"
"$B/epk-scan" "$B/libepk.so.1" -q && fail "epk-scan misses the gates"
"$B/epk-scan" -a epk_begin_read -a epk_begin_write -a domain_end -a epk_close \
	-a confined_gate -a epk_gate_release_confined -a epk_gate_call -a epk_gate_release -a epk_call_on_stack -a epk_call_fault -a epk_registers_clear \
	-a pin_begin_read -a pin_begin_write -a epk_pin_end -a epk_pkru_set -a epk_ept_enter \
	"$B/libepk.so.1" || fail "epk-scan: strays in the library"
# What it cannot parse it refuses, and says why.
refuses() {
	local rc=0
	"$B/epk-scan" "$1" >"$stage/found" 2>"$stage/said" || rc=$?
	if [ $rc != 2 ] || [ -s "$stage/found" ] || ! grep -q "$2" "$stage/said"; then
		fail "epk-scan $1: exit status $rc: $(cat "$stage/found" "$stage/said")"
	fi
}
python3 - "$B/libepk.so.1" "$stage" <<'EOT'
import struct, sys
good = bytearray(open(sys.argv[1], "rb").read())
table, sections = struct.unpack_from("<QQ", good, 32)
number, _, nr_sections = struct.unpack_from("<HHH", good, 56)
def write(name, form, *changes, size=len(good)):
    elf = bytearray(good)
    for at, value in changes:
        struct.pack_into(form, elf, at, value)
    open(f"{sys.argv[2]}/{name}", "wb").write(elf[:size])
load = next(at for at in range(table, table + 56 * number, 56)
            if struct.unpack_from("<II", good, at)[1] & 1)
section = next(at for at in range(sections, sections + 64 * nr_sections, 64)
               if struct.unpack_from("<I", good, at + 4)[0] == 2)
write("header", "<B", size=40)
write("half", "<B", size=len(good) // 2)
write("end", "<B", size=len(good) - 1)
write("class", "<B", (4, 1))
write("order", "<B", (5, 2))
write("machine", "<H", (18, 183))
write("object", "<H", (16, 1))
write("core", "<H", (16, 4))
write("none", "<H", (56, 0))
write("many", "<H", (56, 0xffff))
write("form", "<H", (54, 32))
write("loads", "<I", *((at, 4) for at in range(table, table + 56 * number, 56)))
write("table", "<Q", (32, len(good) - 8 & ~7))
write("segment", "<Q", (load + 32, len(good)))
write("beyond", "<Q", (load + 8, 1 << 63))
write("crooked", "<Q", (load + 16, 1))
write("larger", "<Q", (load + 40, 1))
write("section", "<Q", (section + 32, len(good)))
write("sections", "<Q", (40, len(good) & ~7))
write("count", "<H", (60, 0))
write("bare", "<Q", (40, 0), (56, number | 64 << 16))
EOT
cat >"$stage/wrong" <<'EOT'
header cut off
half cut off
end cut off
class x86-64
order x86-64
machine x86-64
object object file
core neither
none no segments
many another form
form another form
loads no segment
table cut off
segment cut off
beyond cut off
crooked cannot be mapped
larger cannot be mapped
section cut off
sections cut off
count another form
strays.c not an ELF file
empty empty
script script
missing No such file
EOT
: >"$stage/empty"
echo '#!/bin/sh' >"$stage/script"
while read -r file what; do
	refuses "$stage/$file" "$what"
done <"$stage/wrong"
refuses "$B/libepk.a" "archive"
refuses "$B/gate.o" "object file"
refuses "$stage" "no regular file"
# Without sections, but with segments.
rc=0
"$B/epk-scan" "$stage/bare" >"$stage/found" || rc=$?
{ [ $rc = 1 ] && [ -s "$stage/found" ] && ! grep -q '(' "$stage/found"; } ||
	fail "epk-scan does not scan what has no sections"
for wrong in -x "-p 1x" "-p" "$stage/strays.so -p 1" ""; do
	rc=0
	# shellcheck disable=SC2086
	"$B/epk-scan" $wrong >/dev/null 2>&1 || rc=$?
	[ $rc = 2 ] || fail "epk-scan $wrong: exit status $rc"
done
"$B/epk-scan" --help | grep -q '^usage: ' || fail "epk-scan --help"
LD_PRELOAD=$stage/strays.so sleep 60 &
sleeper=$!
until grep -q strays.so /proc/$sleeper/maps; do
	kill -0 $sleeper || fail "sleep does not run with LD_PRELOAD"
done
"$B/epk-scan" -p $sleeper >"$stage/found" || :
kill $sleeper
grep -q "strays.so: vmfunc at 0x[0-9a-f]* (plain+" "$stage/found" || fail "epk-scan -p"

# What answers before the C library has these names alone, no way to open a key of its own, and what it needs installed.
nm -D --defined-only "$B/libepk-pkeys.so" | awk '{ print $3 }' | sort | tr '\n' ' ' | grep -qx 'mmap mmap64 mprotect mremap munmap pkey_alloc pkey_free pkey_get pkey_mprotect pkey_set pthread_create sigaction syscall ' ||
	fail "libepk-pkeys.so has other names"
"$B/epk-scan" -q "$B/libepk-pkeys.so" || fail "libepk-pkeys.so opens keys by itself"
cat >"$stage/keys.c" <<'EOF'
#define _GNU_SOURCE
#include <sys/mman.h>
int main(void) { return pkey_alloc(0, PKEY_DISABLE_ACCESS) > 15 ? 0 : 3; }
#ifdef OWN
void own(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xef"); }
#endif
EOF
gcc -o "$stage/keys" "$stage/keys.c"
gcc -DOWN -o "$stage/own" "$stage/keys.c"
# keys STATUS PROGRAM SETTING...
keys() {
	local expected=$1 program=$2 rc=0
	shift 2
	env LD_LIBRARY_PATH="$B" LD_PRELOAD="$(realpath "$B")/libepk-pkeys.so" EPK_BACKEND=none "$@" "$program" >"$stage/said" 2>&1 || rc=$?
	[ $rc = "$expected" ] || fail "$program $*: exit status $rc, not $expected: $(cat "$stage/said")"
}
keys 0 "$stage/keys"
keys 126 "$stage/own"
grep -q 'has a wrpkru of its own, at 0x[0-9a-f]* as it is linked: ' "$stage/said" || fail "it says: $(cat "$stage/said")"
keys 0 "$stage/own" EPK_PKEYS_SCAN=no
# What opens too little is no key.
keys 3 "$stage/keys" EPK_BACKEND=vmfunc
keys 3 "$stage/keys" EPK_BACKEND=such

nm -D --defined-only "$B/libepk-gc.so" | awk '{ print $3 }' | LC_ALL=C sort | tr '\n' ' ' | grep -qx '__open64_2 __open_2 mmap open open64 read write ' ||
	fail "libepk-gc.so has other names"
# Who is no collector has what there is.
LD_LIBRARY_PATH=$B LD_PRELOAD=$(realpath "$B")/libepk-gc.so sh -c 'cat <"/proc/self/maps" | head -n 1 >&2; echo >"$0" said && cat "$0"' "$stage/said" 2>"$stage/found" | grep -qx said ||
	fail "a program with libepk-gc.so: $(cat "$stage/found")"

# epk-check says on any machine what there is, and the same to programs.
check() {
	LD_LIBRARY_PATH=$B "$B/epk-check" "$@"
}
expected=0
check >"$stage/said" || expected=$?
[ $expected -le 1 ] || fail "epk-check: exit status $expected"
rc=0
check --json >"$stage/json" || rc=$?
python3 - "$stage/said" "$stage/json" $expected $rc <<'EOF' || fail "epk-check --json says something else"
import json, sys
said = [line for line in open(sys.argv[1]) if not line.startswith(" ")]
told = json.load(open(sys.argv[2]))
facts = [f'{fact["state"]:8} {fact["fact"]:14} {fact["value"]}\n' for fact in told["facts"]]
assert facts == said, (facts, said)
misses = any(fact["state"] == "missing" for fact in told["facts"])
assert told["works"] == (not misses) and sys.argv[3] == sys.argv[4] == str(int(misses))
assert all("advice" in fact for fact in told["facts"] if fact["state"] != "ok")
EOF
# Whose word it is, and that "none" is no protection; as epk-info it does not judge.
EPK_BACKEND=mprotect check | grep -q '^less     program        takes the backend mprotect: EPK_BACKEND says so$' ||
	fail "epk-check does not say what a program takes"
EPK_BACKEND=wrong check | grep -q '^less     program        gets no domain: the backends are' ||
	fail "epk-check does not say that a program gets none"
EPK_BACKEND=none check | grep -A 1 '^less     program' | grep -q 'nothing is protected' ||
	fail "epk-check takes none for something"
ln -s "$(realpath "$B/epk-check")" "$stage/epk-info"
LD_LIBRARY_PATH=$B "$stage/epk-info" >"$stage/told" || fail "epk-info: exit status $?"
cmp "$stage/said" "$stage/told" || fail "epk-info says something else"
rc=0
LD_LIBRARY_PATH=$B "$stage/epk-info" -x 2>"$stage/told" || rc=$?
{ [ $rc = 2 ] && grep -q '^usage: epk-info' "$stage/told"; } || fail "epk-info -x: exit status $rc"
grep -q '^[^ ]*epk-info: invalid option' "$stage/told" || fail "epk-info -x calls itself something else"
rc=0
LD_LIBRARY_PATH=$B "$stage/epk-info" 2>"$stage/told" >/dev/full || rc=$?
{ [ $rc = 2 ] && grep -q '^epk-info: standard output: ' "$stage/told"; } || fail "epk-info >/dev/full: exit status $rc"
grep -q '^[a-z]* *backend vmfunc' "$stage/said" || fail "epk-check does not tell of vmfunc"
check --help | grep -q '^usage: ' || fail "epk-check --help"
for wrong in -x --jsom file; do
	rc=0
	check $wrong >"$stage/said" 2>&1 || rc=$?
	{ [ $rc = 2 ] && grep -q '^usage: ' "$stage/said"; } || fail "epk-check $wrong: exit status $rc"
done
rc=0
check >/dev/full 2>/dev/null || rc=$?
[ $rc = 2 ] || fail "epk-check: exit status $rc where nothing can be written"

# Root of a user namespace has the limit of who made it, whatever capabilities it has there.
if unshare -Ur true 2>/dev/null; then
	(ulimit -l 64 && LD_LIBRARY_PATH=$B unshare -Ur "$B/epk-check") >"$stage/said" || :
	grep -q '^less     locked memory  64 KiB, which is 16 domains' "$stage/said" || fail "epk-check takes a namespace's root for the machine's"
fi
# Where no child can be made, it says so, and not that one has died.  Root has no such limit.
if setpriv --reuid 65534 --clear-groups true 2>/dev/null; then
	rc=0
	cp "$B/epk-check" "$B/libepk.so.1" "$stage"
	chmod 755 "$stage"
	(ulimit -u 1 && exec setpriv --reuid 65534 --clear-groups env LD_LIBRARY_PATH="$stage" "$stage/epk-check") >"$stage/said" || rc=$?
	grep -q '^missing  backend epk    no child to try it in$' "$stage/said" || fail "epk-check without children: exit status $rc: $(cat "$stage/said")"
fi

# Whatever a name is made of, its line stays one, and JSON is JSON.
cat >"$stage/odd.c" <<'EOF'
#include "facts.h"
int main(int argc, char **argv)
{
	(void)argc;
	facts_json = argv[1][0] == 'j';
	say(OK, "odd", argv[2], "%s", argv[2]);
	return 0;
}
EOF
gcc -o "$stage/odd" -Itools "$stage/odd.c" tools/facts.c
python3 - "$stage/odd" <<'EOF' || fail "odd strings are not told as they are"
import json, re, subprocess, sys
odd = [b'"', b"\\", b"a\nb\rc", b"\x1b[2J\x07\x7f", b"%s%n", "\u00e4\u20ac\U0001f511\U0010ffff".encode(),
       b"\xff\xfe", b"\xc0\x80\xe0\x80\x80\xf0\x80\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"cut\xe2\x82", b"\xe2\x82", b" "]
for text in odd:
    def said(form):
        return subprocess.run([sys.argv[1], form, text], check=True, stdout=subprocess.PIPE).stdout
    fact = json.loads(said("j"))
    assert fact["value"] == fact["advice"], (text, fact)
    assert fact["value"].replace("\ufffd", "") == text.decode(errors="replace").replace("\ufffd", ""), (text, fact)
    lines = said("t")
    assert re.fullmatch(rb"[ -~]+\n[ -~]+\n", lines), (text, lines)
EOF

# A program builds against the installed library alone, and runs.
make -s install DESTDIR="$stage" PREFIX=/usr >/dev/null
for page in man7/epk.7 man1/epk-check.1 man1/epk-info.1 man1/epk-scan.1 $(printf 'man3/%s.3 ' $exported EPK_WITH EPK_WITH_ERROR); do
	[ -s "$stage/usr/share/man/$page" ] || fail "$page is not installed"
done
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
EPK_BACKEND=none LD_LIBRARY_PATH=$stage/usr/lib "$stage/use" 2>"$stage/said" || fail "the program failed"
[ ! -s "$stage/said" ] || fail "who asks for none is told of it: $(cat "$stage/said")"
# valgrind's CPU has no protection keys: who has not asked for none is warned, once.
if command -v valgrind >/dev/null; then
	env -u EPK_BACKEND LD_LIBRARY_PATH="$stage/usr/lib" valgrind -q "$stage/use" 2>"$stage/said" || fail "the program failed under valgrind"
	[ "$(grep -c ': nothing is protected: ' "$stage/said")" = 1 ] || fail "none is not told of: $(cat "$stage/said")"
fi

# So does one that is written to libmpk's calls: the example of its page.
[ -s "$stage/usr/share/man/man7/libepk-mpk.7" ] || fail "libepk-mpk.7 is not installed"
PYTHONPATH=../tests/docs python3 -B -c '
import extract
print(extract.page_program(extract.PAGES / "libepk-mpk.7"))' >"$stage/mpk.c" || fail "libepk-mpk(7) has no example"
gcc -Wall -Wextra -Werror -o "$stage/mpk" "$stage/mpk.c" -I"$stage/usr/include" -L"$stage/usr/lib" -lepk-mpk -lepk
for backend in none mprotect; do
	EPK_BACKEND=$backend LD_LIBRARY_PATH=$stage/usr/lib "$stage/mpk" || fail "libmpk's calls failed with the backend $backend"
done
echo '#include <libmpk.h>' | g++ -x c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -Impk - ||
	fail "libmpk.h is not C++"
[ "$(nm -g --defined-only "$B/libepk-mpk.a" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort | tr '\n' ' ')" = \
	"mpk_begin mpk_end mpk_free mpk_init mpk_malloc mpk_mmap mpk_mmap_code mpk_mprotect mpk_munmap " ] || fail "names of libepk-mpk.a"
! nm "$B/libepk-mpk.a" | grep -q ' U .*pkey' || fail "libepk-mpk.a opens keys by itself"

# Another language binds to it.
backends='none mprotect'
if grep -qw ospke /proc/cpuinfo; then
	backends="$backends mpk"
fi
for backend in $backends; do
	EPK_BACKEND=$backend python3 bind.py "$stage/usr/lib/libepk.so" ||
		fail "Python cannot use the library with the backend $backend"
	EPK_BACKEND=$backend EPK_PYTHON=$stage/usr/lib/python3/dist-packages LD_LIBRARY_PATH=$stage/usr/lib \
		python3 -B python/epk_test.py 2>"$stage/ran" || fail "Python's package with the backend $backend: $(cat "$stage/ran")"
	grep -q '^Ran [1-9][0-9] tests' "$stage/ran" || fail "Python's package: $(cat "$stage/ran")"
done

# The examples build so too, and are short.
for backend in $backends; do
	PKG_CONFIG_SYSROOT_DIR=$stage PKG_CONFIG_PATH=$stage/usr/lib/pkgconfig:/usr/lib/x86_64-linux-gnu/pkgconfig \
		EPK_BACKEND=$backend EPK_STRICT=1 LD_LIBRARY_PATH=$stage/usr/lib PYTHONPATH=$stage/usr/lib/python3/dist-packages \
		make -s -C ../examples/library B="$stage/examples" check \
		CFLAGS="-O2 -Werror -I$stage/usr/include -L$stage/usr/lib" >"$stage/ran" ||
		fail "an example failed with the backend $backend: $(cat "$stage/ran")"
	for said in '29 bytes' '2000 rows' '1000 tenants' '200 clients'; do
		grep -q "^backend $backend: $said" "$stage/ran" || fail "an example did not run: $said"
	done
done
grep -q -e '^12 lives, .* none lost by a kill$' -e '^checkpoint: the kernel cannot tell' "$stage/ran" ||
	fail "the checkpoints did not run"
wc -l ../examples/library/*.c | awk '$1 > 170 && $2 != "total" { exit 1 }' ||
	fail "an example is long"
echo "check: all passed"
