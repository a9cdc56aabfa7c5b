#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# builds.sh [all|PART]: the library by other compilers, languages, C libraries and tools than it is
# tested with elsewhere; and what must not be in one process.  With "all" each compiler with each
# level of optimisation, and the unit tests with them: an hour.  A PART is a function below.
set -eu -o pipefail
shopt -s extglob
cd "$(dirname "$0")"
lib=$(realpath ../../guest-lib)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	echo "builds: $*"
	exit 1
}

# What stands here is what the program knows of it.
users=(-D_GNU_SOURCE -Wall -Wextra -Wpedantic -Werror -pthread -I"$lib/include")

# header CC FLAGS...: with and without what it has inline.
header() {
	local level
	for level in -O0 -O2; do
		"$@" $level -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$lib/include" \
			"$work/header.c" || fail "epk.h: $* $level"
	done
}

# The public header in each language.
headers() {
	local std
	cat >"$work/header.c" <<-'EOT'
		#include <epk.h>
		int main(void)
		{
			int id = 0, err;

			EPK_WITH(id, PROT_READ) return domain_begin(id, PROT_READ);
			EPK_WITH_ERROR(err, id, PROT_READ | PROT_WRITE) return domain_begin(id, id);
			return err;
		}
	EOT
	for std in c99 gnu99 c11 gnu11 c17 gnu17 c2x gnu2x; do
		header gcc -std=$std
		header clang -std=$std
	done
	for std in c++11 c++14 c++17 c++20; do
		header g++ -x c++ -std=$std
		header clang++ -x c++ -std=$std
	done
	echo "builds: the header in all languages"
}

sanitized="-O1 -g -fno-sanitize-recover=all -fsanitize="

# build FOLDER CC FLAGS TARGET...
build() {
	local out=$1 cc=$2 flags=$3
	shift 3
	make -s -j2 -C "$lib" CC="$cc" CFLAGS="$flags" B="$out" "${@/#/$out/}" >"$work/log" 2>&1 || {
		cat "$work/log"
		fail "$cc $flags: the library does not build"
	}
}

# use COMMAND...: it runs with backends that need no hardware.
use() {
	local backend
	for backend in none mprotect; do
		EPK_BACKEND=$backend timeout 120 "$@" >"$work/log" 2>&1 || {
			head -50 "$work/log"
			fail "$* with the backend $backend"
		}
	done
}

# The names of the libraries are the header's.
names() {
	"$lib/names.sh" "$1/libepk.a" "$1/libepk.so.1" >"$work/log" 2>&1 || {
		cat "$work/log"
		fail "$1: other names than the header's"
	}
}

# program OUT CC FLAGS ARGUMENT...: what programs do with the library.
program() {
	local out=$1 cc=$2 flags=$3
	shift 3
	# shellcheck disable=SC2086
	"$cc" $flags -std=c99 "${users[@]}" -o "$out" builds/use.c "$@" || fail "$cc $flags: no program builds"
}

# libraries OUT CC FLAGS STATIC...: a program with each runs; STATIC is what the static one is linked with.
libraries() {
	local out=$1 cc=$2 flags=$3
	shift 3
	build "$out" "$cc" "$flags" libepk.a libepk.so.1 libepk.so
	names "$out"
	program "$work/static" "$cc" "$flags" "$out/libepk.a" "$@"
	program "$work/shared" "$cc" "$flags" -L"$out" -lepk -Wl,-rpath,"$out"
	use "$work/static"
	use "$work/shared"
	echo "builds: $cc $flags: runs"
}

# variant CC FLAGS: program and library are made by it, statically and not.
variant() {
	rm -rf "${work:?}/lib"
	libraries "$work/lib" "$1" "$2"
	build "$work/lib" "$1" "$2" epk-scan
}

# units CC FLAGS OUT PATTERN: the unit tests with the library in OUT, but what PATTERN names.  Each
# compiler warns of other things.
units() {
	local cc=$1 flags=$2 out=$3 but=$4 name backend
	local tests=() targets=()
	for name in *_test.c *_test.cc; do
		name=${name%_test.c*}
		case $name in
		overwrite | pkeys | pkeys_process | @($but)) ;;
		*)
			tests+=("$name")
			targets+=("$work/units/${name}_test")
			;;
		esac
	done
	rm -rf "$work/units"
	make -s -j2 CC="$cc" CXX="${cxx[$cc]}" CFLAGS="$flags -Wno-error" B="$work/units" LB="$out" \
		LIBRARIES="$out/libepk.a $out/libepk-whole.a $out/libepk-mpk.a" "${targets[@]}" >"$work/log" 2>&1 || {
		cat "$work/log"
		fail "$cc $flags: the unit tests do not build"
	}
	for name in "${tests[@]}"; do
		for backend in none mprotect; do
			timeout 300 "$work/units/${name}_test" $backend >"$work/log" 2>&1 || [ $? = 77 ] || {
				cat "$work/log"
				fail "$cc $flags: ${name}_test with the backend $backend"
			}
		done
	done
	echo "builds: $cc $flags: unit tests pass"
}

# The kernel's headers and libbsd's are no C library's.  gcc's own unwinder is made for glibc.
musl() {
	local name
	mkdir -p "$work/kernel"
	for name in linux asm-generic bsd x86_64-linux-gnu/asm; do
		ln -s "/usr/include/$name" "$work/kernel/${name##*/}"
	done
	echo 'int _dl_find_object(void *a, void *b) { (void)a; (void)b; return -1; }' >"$work/find.c"
	musl-gcc -fPIC -c -o "$work/find.o" "$work/find.c"
	export CPPFLAGS="-idirafter $work/kernel" LDFLAGS="$work/find.o"
	libraries "$work/musl" musl-gcc "-O2 -g" -static "$work/find.o" -lgcc_eh
	unset CPPFLAGS LDFLAGS
}

# sanitizer CC KIND: of program and library, and of the program alone.
sanitizer() {
	local cc=$1 flags="$sanitized$2" out=$work/sanitizer
	build "$work/plain" gcc "-O2 -g" libepk.a
	program "$work/sanitized" "$cc" "$flags" "$work/plain/libepk.a"
	use "$work/sanitized"
	rm -rf "$out"
	build "$out" "$cc" "$flags" libepk.a
	program "$work/sanitized" "$cc" "$flags" "$out/libepk.a"
	use "$work/sanitized"
	echo "builds: $cc with $2: clean"
}

memcheck() {
	local checked=(valgrind -q --error-exitcode=99 --max-stackframe=150000
		--suppressions="$lib/valgrind.supp" "$work/checked")
	build "$work/valgrind" gcc "-O2 -g" libepk.a
	program "$work/checked" gcc "-O2 -g" "$work/valgrind/libepk.a"
	use "${checked[@]}"
	# By itself it finds no protection keys.
	EPK_DEBUG=1 "${checked[@]}" 2>"$work/log" ||
		fail "valgrind without a backend: $(cat "$work/log")"
	grep -q ": nothing is protected: " "$work/log" ||
		fail "valgrind: another backend than none"
	echo "builds: valgrind: clean"
}

# twice ARGUMENT...: the second is refused, and says so.
twice() {
	EPK_DEBUG=1 use "$work/copies" "$@"
	grep -q "another copy of libepk is at work" "$work/log" || fail "copies $*: nothing is said"
}

copies() {
	local one=$work/one/libepk.so.1
	build "$work/one" gcc "-O2" libepk.a libepk.so.1
	cp "$one" "$work/two.so"
	gcc -std=gnu11 "${users[@]}" -o "$work/copies" builds/copies.c "$work/one/libepk.a" -ldl
	twice - "$one"
	twice "$one" -
	twice "$one" "$work/two.so" new
	twice "$one" "$one" new
	echo "builds: a second copy is refused"
}

variants() {
	variant gcc -O0
	variant clang -O3
	variant gcc "-O3 -flto"
	variant clang "-O2 -flto"
}

sanitizers() {
	sanitizer gcc address
	sanitizer clang undefined
	sanitizer gcc thread
}

declare -A cxx=([gcc]=g++ [clang]=clang++)
# What writes over frames or looks for what was left behind; what depends on vfork(2), and on threads in
# children: the thread sanitizer makes them forks, and has none there.
declare -A but=([address]="frame|wipe" [undefined]="" [thread]="fork|init")

every() {
	local cc level lto kind
	for cc in gcc clang; do
		for level in -O0 -O1 -O2 -O3 -Os; do
			for lto in "" " -flto"; do
				variant $cc "$level$lto"
				units $cc "$level$lto" "$work/lib" ""
			done
		done
		for kind in address undefined thread; do
			sanitizer $cc $kind
			units $cc "$sanitized$kind" "$work/sanitizer" "${but[$kind]}"
		done
	done
}

case ${1-} in
"") parts="headers variants sanitizers musl memcheck copies" ;;
all) parts="headers every musl memcheck copies" ;;
headers | variants | sanitizers | musl | memcheck | copies) parts=$1 ;;
*)
	echo "usage: builds.sh [all|headers|variants|sanitizers|musl|memcheck|copies]" >&2
	exit 2
	;;
esac
for part in $parts; do
	"$part"
done
echo "builds: all is well"
