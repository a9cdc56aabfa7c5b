#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# lint.sh shell|python|spelling|c|format: shellcheck, flake8 or codespell have nothing to say of the tree, nor clang-tidy of the
# library, or .clang-format is true to the code.  What they let pass is in .shellcheckrc, .flake8, .codespellrc and .clang-tidy.  (Sparse has the module in tests/guest/headers.sh, the series in series.sh.)
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
cd "$TOP"

# Files by their first lines, or by how their names end: written_in PATTERN END
written_in() {
	local file first
	git ls-files | while read -r file; do
		[ -f "$file" ] || continue
		case $file in
		*.patch) ;;
		*"$2") echo "$file" ;;
		*)
			IFS= read -r -n 80 first <"$file" 2>/dev/null || :
			[[ ! $first =~ $1 ]] || echo "$file"
			;;
		esac
	done
}

shell() {
	local files
	# Recipes, which drive.sh reads in the guest's shell, and which tell it things by variables.
	mapfile -t files < <(git ls-files 'examples/nginx/servers/*.sh' | xargs grep -L '^#!')
	[ ${#files[@]} -gt 10 ] || die "lint: where are the recipes?"
	shellcheck -f gcc -S warning -s dash -e SC2034,SC2154 "${files[@]}"
	mapfile -t files < <(written_in '^#!.*sh( |$)' .sh | grep -vxF -f <(printf '%s\n' "${files[@]}"))
	[ ${#files[@]} -gt 60 ] || die "lint: where are the scripts?"
	shellcheck -f gcc -S warning "${files[@]}"
	echo "lint: shellcheck: ${#files[@]} scripts and the recipes"
}

python() {
	local files
	mapfile -t files < <(written_in '^#!.*python' .py)
	[ ${#files[@]} -gt 25 ] || die "lint: where are the Python sources?"
	flake8 "${files[@]}"
	echo "lint: flake8: ${#files[@]} files"
}

# Not results, licences, and patches, which checkpatch reads.
spelling() {
	local files
	mapfile -t files < <(git ls-files | grep -vE '\.patch$|^bench/results/|^LICENSES/|\.svg$')
	[ ${#files[@]} -gt 300 ] || die "lint: where is the tree?"
	codespell "${files[@]}"
	echo "lint: codespell: ${#files[@]} files"
}

# What is said of the system's headers is not for us.
c() {
	local files said
	mapfile -t files < <(git ls-files 'guest-lib/*.c')
	[ ${#files[@]} -gt 50 ] || die "lint: where is the library?"
	said=$(printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 sh -c 'clang-tidy --quiet "$@" -- -std=gnu11 -D_GNU_SOURCE \
		-Iguest-lib/include -Iguest-lib/src -Iguest-kmod/include/uapi' sh 2>&1) ||
		said+=$'\n'"$TOP/guest-lib: error: clang-tidy fails"
	! grep -A 4 "^$TOP/.*: \(warning\|error\): " <<<"$said" || exit 1
	echo "lint: clang-tidy: ${#files[@]} files"
}

# Who formats new code by it gets what stands beside it: no more than some lines, as tables and long conditions, are otherwise.
# And .editorconfig says how long lines are, but for a few, of tables, texts and comments.
MOST_PER_MILLE=50
MOST_LONG_PER_MILLE=10
format() {
	local files others all width long
	mapfile -t files < <(git ls-files '*.c')
	[ ${#files[@]} -gt 200 ] || die "lint: where are the sources in C?"
	all=$(cat "${files[@]}" | wc -l)
	others=$(diff <(cat "${files[@]}") <(clang-format --style=file "${files[@]}") | grep -c '^<') || :
	[ "$others" -gt 0 ] && [ $((others * 1000 / all)) -le $MOST_PER_MILLE ] ||
		die "lint: .clang-format is not of this code: of $all lines $others would be otherwise, over $MOST_PER_MILLE in 1000"
	echo "lint: clang-format: of $all lines $others would be otherwise"
	mapfile -t files < <(git ls-files '*.c' '*.h' '*.S' '*.cc' '*.hpp')
	all=$(cat "${files[@]}" | wc -l)
	width=$(sed -n '/^\[\*\.{c,h,S,cc,hpp}\]/,/^$/s/^max_line_length = //p' .editorconfig)
	long=$(cat "${files[@]}" | expand -t 8 | awk -v width="${width:-0}" 'length > width' | wc -l)
	[ "$long" -gt 0 ] && [ $((long * 1000 / all)) -lt $MOST_LONG_PER_MILLE ] ||
		die "lint: .editorconfig is not of this code: of $all lines $long are longer than ${width:-nothing}, over $MOST_LONG_PER_MILLE in 1000"
	echo "lint: .editorconfig: of $all lines $long are longer than $width"
}

case ${1:-} in
shell | python | spelling | c | format) "$1" ;;
*) die "usage: lint.sh shell|python|spelling|c|format" ;;
esac
