#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# program_test.sh: program.py runs a program and a script of Python in the guest, with their files, arguments and exit status; and
# says what is missing before anything boots.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

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
refuses 'cannot be executed' "$work/own.c"
refuses 'neither a program nor a script' "$(chmod +x "$work/answer.c" && echo "$work/answer.c")"
refuses 'wants perl' "$work/own.pl"
refuses 'needs libanswer.so' "$work/own"
refuses 'link it with -L and -l' --files "$work/libanswer.so" "$work/placed"
refuses 'there is no file' --files "$work/none" "$work/own"
refuses 'one name' --files "$work/own.py" "$work/own.py"
ends 2 'which program'
ends 42 'epk says 42 to <a b>' --alone --backend epk --files "$work/libanswer.so" "$work/own" "a b"
# As the template does it.
make -s -C "$top/guest-lib" install PREFIX="$work/usr" >/dev/null
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig
rc=0
make -s -C "$top/examples/template" B="$work/made" run ALONE=1 >"$work/said" 2>&1 </dev/null || rc=$?
[ $rc = 0 ] && grep -q '^epk: [0-9]*$' "$work/said" || fail "make run of the template: exit status $rc"
ends 0 '{"error": 13, "beside": "it"}' --alone --files "$work/data" "$work/own.py"
ends 0 '^backend epk: 29 bytes' --alone --backend epk "$top/examples/library/token.py"
[ $failed = 0 ] && echo "program: all passed"
exit $failed
