#!/bin/sh
# SPDX-License-Identifier: MIT
# names.sh LIBRARY...: each has the names that the header declares, and no others.
set -eu
here=$(dirname "$0")
declared=$(gcc -E -I"$here/include" "$here/include/epk.h" | tr '\n' ' ' |
	sed 's/static inline[^{;]*{[^}]*}//g' |
	grep -oE '\b(alloc_domains|free_domains|domain_[a-z_]+|epk_[a-z_]+) ?\(' | tr -d ' (' | LC_ALL=C sort -u)
for library; do
	case $library in
	*.a) names=$(nm -g --defined-only "$library") ;;
	*) names=$(nm -D --defined-only "$library" | grep -v ' A ') ;;
	esac
	names=$(printf '%s\n' "$names" | awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u)
	[ "$declared" = "$names" ] || {
		echo "names: epk.h declares:" $declared >&2
		echo "names: $library has:" $names >&2
		exit 1
	}
done
printf '%s\n' "$declared"
