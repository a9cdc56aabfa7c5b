#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# program_test.sh: program.py runs a program and a script of Python in the guest, with their files, arguments and exit status, on so
# many CPUs; has a shell there; and says what is missing, or does not compile, before anything boots.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
unset EPK_BACKEND EPK_DEBUG EPK_STRICT

fail() {
	echo "program: $*"
	cat "$work/said"
	failed=1
}

# ends STATUS TEXT ARGUMENT...: what it ends with, and says.
ends() {
	local status=$1 text=$2 rc=0
	shift 2
	"$here/program.py" "$@" >"$work/said" 2>&1 </dev/null || rc=$?
	[ $rc = "$status" ] || fail "$*: exit status $rc"
	grep -q "$text" "$work/said" || fail "$*: does not say $text"
	! grep -q Traceback "$work/said" || fail "$*: a traceback"
}

# Before the boot.
refuses() {
	ends 1 "$@"
	! grep -q 'power on' "$work/said" || fail "it boots for that: $*"
}

cat >"$work/own.c" <<'END'
#include <epk.h>
#include <stdio.h>
#include <sys/mman.h>

int answer(void);

int main(int argc, char **argv)
{
	int id, err = alloc_domains(1, &id);
	char *mem = err ? NULL : domain_mmap(id, NULL, 4096, PROT_READ | PROT_WRITE, 0);

	if (err || domain_begin(id, PROT_READ | PROT_WRITE))
		return 1;
	mem[0] = answer();
	err = mem[0];
	printf("%s says %d to <%s>\n", epk_backend(), err, argv[argc - 1]);
	return domain_end(id) ? 1 : err;
}
END
echo 'int answer(void) { return 42; }' >"$work/answer.c"
make -s -C "$top/guest-lib"
gcc -shared -fPIC -o "$work/libanswer.so" "$work/answer.c"
own=("$work/own.c" -I"$top/guest-lib/include" "$top/guest-lib/build/libepk.so.1")
gcc -o "$work/own" "${own[@]}" -L"$work" -lanswer
gcc -o "$work/placed" "${own[@]}" "$work/libanswer.so"
cat >"$work/own.py" <<'END'
#!/usr/bin/env python3
import epk, json, pathlib
with epk.Domain() as domain:
    buffer = domain.buffer(10)
    with domain.hold():
        buffer.write(pathlib.Path("data").read_bytes())
        beside = buffer.read().rstrip(b"\n\0").decode()
    try:
        buffer.read()
    except epk.Error as error:
        print(json.dumps({"error": error.errno, "beside": beside}))
END
chmod +x "$work/own.py"
echo it >"$work/data"
cp "$work/own.py" "$work/own.pl" && sed -i '1s/.*/#!\/usr\/bin\/perl/' "$work/own.pl"

refuses 'there is no file' "$work/none"
refuses 'is not compiled' "$work/own.c"
refuses 'cannot be executed' "$work/data"
cp "$work/answer.c" "$work/answer" && chmod +x "$work/answer"
refuses 'neither a program nor a script' "$work/answer"
refuses 'wants /usr/bin/perl: ' "$work/own.pl"
refuses 'needs libanswer.so' "$work/own"
refuses 'link it with -L and -l' --files "$work/libanswer.so" "$work/placed"
refuses 'there is no file' --files "$work/none" "$work/own"
refuses "there is no file $work/\*.none" --files "$work/*.none" "$work/own"
refuses 'one name' --files "$work/own.p?" "$work/own.py"
refuses 'one name' --files "$work/own.py" "$work/own.py"
for backend in typo ' mpk' MPK epk,mpk; do
	EPK_BACKEND=$backend refuses 'the backends are epk, mpk, vmfunc, mprotect, none' "$work/own.py"
	EPK_BACKEND=$backend refuses "EPK_BACKEND is $backend here" "$work/own.py"
done
# The shell's, as make hands them on.
shell_refuses() {
	local rc=0
	make -s -C "$top" shell FILES="$2" >"$work/said" 2>&1 </dev/null || rc=$?
	[ $rc != 0 ] || fail "make shell FILES=$2: exit status 0"
	grep -q "$1" "$work/said" || fail "make shell FILES=$2: does not say $1"
	! grep -q 'Traceback\|a shell in the guest' "$work/said" || fail "make shell FILES=$2: goes on"
}
mkdir "$work/a folder"
cp "$work/own" "$work/a folder/own it"
cp "$work/own" "$work/a folder/it's"
shell_refuses "there is no file $work/a folder/none" "$work/data '$work/a folder/none'"
shell_refuses "there is no file $work/a\$" "$work/a folder/own it"
shell_refuses "there is no file $work/\*.none" "$work/*.none"
shell_refuses 'No closing quotation' "$work/it's"
shell_refuses "$work/a folder/own it needs libanswer.so" "'$work/a folder/own it'"
shell_refuses "$work/a folder/it's needs libanswer.so" "\"$work/a folder/it's\""
shell_refuses 'own it needs libanswer.so' "'$work/a folder/own'*"
shell_refuses 'one name' "$work/own.p? $work/own.py"
ends 2 'which program'
ends 2 'invalid choice: 3' --cpus 3 "$work/own"
# A tree that does not compile.
mkdir -p "$work/clone/tests"
ln -s "$(realpath "$top")"/* "$work/clone" 2>/dev/null || :
ln -s "$(realpath "$top")"/tests/* "$work/clone/tests" 2>/dev/null || :
rm "$work/clone/tests/testbed"
cp -r "$here" "$work/clone/tests/testbed"
printf '#!/bin/sh\necho "x.c:1: error: what is that" >&2\nexit 2\n' >"$work/clone/tests/testbed/build.sh"
printf '#!/bin/sh\necho /nowhere\n' >"$work/clone/tests/testbed/kernel.sh"
own_here=$here
here=$work/clone/tests/testbed
refuses 'x.c:1: error' --alone "$work/own.py"
refuses 'build.sh failed, for what stands above' --shell "$work/data"
here=$own_here
ends 2 'No closing quotation' --files "'$work" "$work/own"
ends 42 'epk says 42 to <a b>' --alone --backend epk --files "$work/libanswer.so" "$work/own" "a b"
# As the template does it.
make -s -C "$top/guest-lib" install PREFIX="$work/usr" >/dev/null
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig
rc=0
make -s -C "$top/examples/template" B="$work/made" run ALONE=1 >"$work/said" 2>&1 </dev/null || rc=$?
[ $rc = 0 ] && grep -q '^epk: [0-9]*$' "$work/said" || fail "make run of the template: exit status $rc"
ends 0 '{"error": 13, "beside": "it"}' --alone --files "$work/data" "$work/own.py"
cp "$top/guest-lib/python/epk_test.py" "$work" && chmod +x "$work/epk_test.py"
ends 0 '^Ran [1-9][0-9] tests' --alone --backend epk "$work/epk_test.py"
grep -q '^OK' "$work/said" || fail "Python's package under epk"
# Its last line has no end, and its name and a file's have a space.
printf '#!/bin/sh\necho "$# words on $(nproc) CPUs, <$EPK_DEBUG>, <$EPK_BACKEND>"\nprintf "%%s" "$(cat "a file")"\n' >"$work/a folder/cpus"
chmod +x "$work/a folder/cpus"
echo "it is there" >"$work/a folder/a file"
EPK_DEBUG="1 and more" EPK_BACKEND=none make -s -C "$top" run BACKEND=mpk PROGRAM="$work/a folder/cpus" FILES="'$work/a folder/a file'" ALONE=1 CPUS=2 ARGS="one two" >"$work/said" 2>&1 </dev/null || fail "make run CPUS=2"
grep -q '^2 words on 2 CPUs, <1 and more>, <mpk>' "$work/said" || fail "make run CPUS=2"
grep -q '^it is there$' "$work/said" || fail "make run: a line without an end"

# A console: what is typed there, once there is a prompt.
says() {
	local second
	for ((second = 0; second < 240; second++)); do
		! grep -q "$1" "$work/said" || return 0
		sleep 1
	done
	fail "the shell does not say $1"
}
mkfifo "$work/typed"
make -s -C "$top" shell FILES="$work/dat? '$work/a folder/own'* $work/own.p[y] $work/*.so" CPUS=2 <"$work/typed" >"$work/said" 2>&1 &
shell=$!
exec 7>"$work/typed"
says '/epk/user # '
echo 'echo "$((6 * 7)) on $(nproc)"; cat data; epk-info | grep "backend epk"; "./own it" typed; epk-scan libepk.so.1 | grep -c vmfunc; python3 own.py; exit' >&7
says '"beside": "it"'
rc=0
wait $shell || rc=$?
exec 7>&-
[ $rc = 0 ] || fail "make shell: exit status $rc"
for text in '^[1-9][0-9]*.$' 'epk says 42 to <typed>' '^42 on 2' '^it' '^ok *backend epk *works' '^{"error": 13'; do
	grep -q "$text" "$work/said" || fail "make shell: no $text"
done
[ $failed = 0 ] && echo "program: all passed"
exit $failed
