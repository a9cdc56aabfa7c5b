#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# builds.sh [all|PART]: the library by other compilers, languages, C libraries and tools than it is
# tested with elsewhere; and what must not be in one process.  With "all" each compiler with each
# level of optimisation, and the unit tests with them: an hour.  A PART is a function below.
set -eu -o pipefail
cd "$(dirname "$0")"
lib=$(realpath ../../guest-lib)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
include="-I$lib/include -I$lib/src -I$lib/../guest-kmod/include/uapi"

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

# The names of the archive are the header's.
names() {
	! nm -g --defined-only "$1" | awk 'NF == 3 { print $3 }' |
		grep -vE '^(epk_[a-z_]+|domain_(begin|end|mmap|munmap)|alloc_domains|free_domains)$' ||
		fail "$1 has other names than the header's"
	[ "$(nm -g --defined-only "$1" | awk 'NF == 3' | wc -l)" = "$(grep -c ';$' "$work/names")" ] ||
		fail "$1 has other names than libepk.map"
}
sed -n '/^global:/,/^local:/p' "$lib/libepk.map" >"$work/names"

# variant CC FLAGS: program and library are made by it, statically and not.
variant() {
	local cc=$1 flags=$2 out=$work/lib
	rm -rf "$out"
	build "$out" "$cc" "$flags" libepk.a libepk.so.1 libepk.so epk-scan
	names "$out/libepk.a"
	# shellcheck disable=SC2086
	"$cc" $flags -std=c99 "${users[@]}" -o "$work/static" builds/use.c "$out/libepk.a" &&
		"$cc" $flags -std=c99 "${users[@]}" -o "$work/shared" builds/use.c -L"$out" -lepk \
			-Wl,-rpath,"$out" || fail "$cc $flags: no program builds"
	use "$work/static"
	use "$work/shared"
	echo "builds: $cc $flags: runs"
}

# The unit tests with the library that variant() has made.
units() {
	local cc=$1 flags=$2 source program
	build "$work/lib" "$cc" "$flags" libepk-whole.a
	for source in *_test.c; do
		[ $source != overwrite_test.c ] || continue
		program=$work/${source%.c}
		# shellcheck disable=SC2086
		"$cc" $flags -std=gnu11 -pthread -fno-strict-aliasing $include -o "$program" "$source" \
			"$work/lib/libepk-whole.a" -lcmocka || fail "$cc $flags: $source"
		for backend in none mprotect; do
			timeout 300 "$program" $backend >"$work/log" 2>&1 || [ $? = 77 ] || {
				cat "$work/log"
				fail "$cc $flags: $source with the backend $backend"
			}
		done
	done
	echo "builds: $cc $flags: unit tests pass"
}

# The kernel's headers and libbsd's are no C library's.  gcc's own unwinder is made for glibc.
musl() {
	local out=$work/musl name
	mkdir -p "$work/kernel"
	for name in linux asm-generic bsd x86_64-linux-gnu/asm; do
		ln -s "/usr/include/$name" "$work/kernel/${name##*/}"
	done
	echo 'int _dl_find_object(void *a, void *b) { (void)a; (void)b; return -1; }' >"$work/find.c"
	musl-gcc -fPIC -c -o "$work/find.o" "$work/find.c"
	export CPPFLAGS="-idirafter $work/kernel" LDFLAGS="$work/find.o"
	build "$out" musl-gcc "-O2 -g" libepk.a libepk.so.1 libepk.so
	unset CPPFLAGS LDFLAGS
	names "$out/libepk.a"
	musl-gcc -O2 -std=c99 "${users[@]}" -static -o "$work/static" builds/use.c "$out/libepk.a" \
		"$work/find.o" -lgcc_eh &&
		musl-gcc -O2 -std=c99 "${users[@]}" -o "$work/shared" builds/use.c -L"$out" -lepk \
			-Wl,-rpath,"$out" || fail "musl: no program builds"
	use "$work/static"
	use "$work/shared"
	echo "builds: musl: runs"
}

sanitizer() {
	local cc=$1 flags="-O1 -g -fsanitize=$2 -fno-sanitize-recover=all" out=$work/sanitizer
	rm -rf "$out"
	build "$out" "$cc" "$flags" libepk.a
	# shellcheck disable=SC2086
	"$cc" $flags -std=c99 "${users[@]}" -o "$work/sanitized" builds/use.c "$out/libepk.a" ||
		fail "$cc $2: no program builds"
	use "$work/sanitized" plain
	echo "builds: $cc with $2: clean"
}

memcheck() {
	build "$work/valgrind" gcc "-O2 -g" libepk.a
	gcc -O2 -g -std=c99 "${users[@]}" -o "$work/checked" builds/use.c "$work/valgrind/libepk.a"
	use valgrind -q --error-exitcode=99 --max-stackframe=150000 \
		--suppressions="$lib/valgrind.supp" "$work/checked"
	# By itself it finds no protection keys.
	EPK_DEBUG=1 valgrind -q --error-exitcode=99 --max-stackframe=150000 \
		--suppressions="$lib/valgrind.supp" "$work/checked" 2>"$work/log" ||
		fail "valgrind without a backend: $(cat "$work/log")"
	grep -q "the backend none, which protects nothing" "$work/log" ||
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

every() {
	local cc level lto kind
	for cc in gcc clang; do
		for level in -O0 -O1 -O2 -O3 -Os; do
			for lto in "" " -flto"; do
				variant $cc "$level$lto"
				units $cc "$level$lto"
			done
		done
		for kind in address undefined thread; do
			sanitizer $cc $kind
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
