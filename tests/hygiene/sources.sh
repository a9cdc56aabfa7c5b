#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# sources.sh: checks of the tree that need no build: one header in two places is
# the same, kernel sources pass checkpatch, files and functions stay small, licences are named, the
# tests that the documents name exist, tests/README.md has all folders, documents say whom they are for, make help
# is whole, and the module's defects fit its sources.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
tree=$("$TESTBED/kernel.sh")/tree/source
cd "$TOP"

# What the series adds at a path.
added_by_series() {
	local dir
	dir=$(mktemp -d)
	git -C "$dir" init -q
	# shellcheck disable=SC2046
	git -C "$dir" apply --include="$1" $(series_patches)
	cat "$dir/$1"
	rm -rf "$dir"
}

cmp <(added_by_series arch/x86/include/uapi/asm/kvm_epk.h) guest-kmod/include/uapi/asm/kvm_epk.h ||
	fail "kvm_epk.h differs between guest-kmod/ and the series"

mapfile -t kernel_style < <(git ls-files 'guest-kmod/*.[ch]' 'tests/guest/raw/*.[ch]')
[ ${#kernel_style[@]} -gt 5 ] || fail "where are the module's sources?"
# SPACING takes an operand of asm goto for a modulo.  Not again of what has passed: it takes longer than all else here.
options=(--no-tree --terse --no-summary --max-line-length=100 --ignore SPACING)
mkdir -p "$EPK_CACHE/checkpatch"
new=() keys=()
for file in "${kernel_style[@]}"; do
	passed=$EPK_CACHE/checkpatch/$(content_key "${options[*]}" "$file" -- "$tree/scripts/checkpatch.pl" "$file")
	[ -f "$passed" ] || new+=("$file") keys+=("$passed")
done
if [ ${#new[@]} -gt 0 ]; then
	if perl "$tree/scripts/checkpatch.pl" "${options[@]}" -f "${new[@]}"; then
		touch "${keys[@]}"
	else
		fail "checkpatch complains"
	fi
fi

while read -r lines file; do
	[ "$file" = total ] || [ "$lines" -le 800 ] || fail "$file has $lines lines, over 800"
done < <(git ls-files '*.[ch]' '*.sh' '*.py' | xargs wc -l)

while read -r file; do
	head -n 3 "$file" | grep -q 'SPDX-License-Identifier: ' || fail "$file names no licence"
done < <(git ls-files '*.[ch]' '*.sh' '*.py' '*Makefile' '*Kbuild' '*.list')

# As .editorconfig has it; and nothing that is made of something else, but for plots and pictures, which are text.
if git grep -nIE '[[:blank:]]+$' -- ':!*.patch' ':!LICENSES' ':!*.svg'; then
	fail "blanks end lines"
fi
if git grep -nIP '^\t' -- '*.py'; then
	fail "indented otherwise than .editorconfig says"
fi
while read -r file; do
	[ -z "$(tail -c 1 "$file" | tr '\0' x)" ] || fail "$file does not end in a newline"
done < <(git ls-files | grep -v '\.patch$')
while read -r file; do
	fail "$file is no text"
done < <(git ls-files --eol | awk '$1 == "i/-text" { print $NF }')

# A test is named whole or by the part before one of its dashes.
tests=$(list_lines tests/tests.list | cut -f 1)
kinds=$(sed 's/-.*//' <<<"$tests" | sort -u | paste -sd '|')
while read -r file name; do
	grep -qE "^$name(-|\$)" <<<"$tests" || fail "$file names a test that is none: $name"
done < <(git ls-files 'docs/*.md' README.md CONTRIBUTING.md tests/README.md | xargs grep -oHE "\`($kinds)(-[a-z0-9]+)+\`" |
	sed 's/:`/ /; s/`$//' | sort -u)

while read -r folder; do
	grep -q "\`$folder/" tests/README.md || fail "tests/README.md does not say what lies in $folder/"
done < <(git ls-files tests | sed -n 's:^tests/\([^/]*\)/.*:\1:p' | sort -u)

# A screen.
while read -r lines place; do
	fail "$place: a function of $lines lines, over 64"
done < <(git ls-files '*.[ch]' | xargs awk 'FNR == 1 { start = 0 } /^\{$/ { start = FNR }
	/^\}/ { if (start && FNR - start > 65) print FNR - start - 1, FILENAME ":" start; start = 0 }')

# The README says it when it has said what this is.
while read -r file; do
	grep -q '^For ' <(sed -n 3p "$file") || fail "$file does not begin with whom it is for"
done < <(git ls-files '*.md' | grep -v '^README.md$')

# What make help does not name nobody finds.
for target in $(sed -n 's/^\.PHONY: help //p' Makefile); do
	grep -q "^##   $target " Makefile || fail "make help does not name $target"
done

mutated=$(mktemp -d)
tests/guest/mutations/mutate.py guest-kmod "$mutated" >/dev/null ||
	fail "a defect of the module does not fit its sources"
rm -rf "$mutated"

if ! command -v mandoc >/dev/null; then
	fail "mandoc is missing"
elif ! mandoc -T lint -W warning guest-lib/man/*.[137] kvm-patches/host/*.8 examples/nginx/*.[178]; then
	fail "mandoc complains"
fi

[ $failed = 0 ] && echo "sources: all checks passed"
exit $failed
