#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# token.sh BACKEND: examples/library/token.py in the guest, which has Python for it; "vmfunc" wants a host with EPK below.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
options=(--backend "$1")
[ "$1" = vmfunc ] || options+=(--alone)
rc=0
said=$("$here/program.py" "${options[@]}" "$here/../../examples/library/token.py" </dev/null 2>&1) || rc=$?
printf '%s\n' "$said"
[ $rc = 0 ] || exit $rc
grep -q "^backend $1: 29 bytes.*a stray read is refused" <<<"$said" || {
	echo "token: not what a backend says that protects"
	exit 1
}
