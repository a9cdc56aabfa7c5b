#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# alone.sh [DEFECTS [TEST]]: try the defects that show where the module is alone, on machines that
# start within seconds: all, or what a regular expression matches; by a test, if it is named,
# whatever theirs is.
set -eu
export DEFECTS="${1:-}" DEFECTS_TEST="${2:-}"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../testbed/lib.sh"
kernel=$("$TESTBED/kernel.sh" normal)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$TESTBED/build.sh" "$kernel" "$kernel" >/dev/null
mkdir -p "$work/guest/epk"
"$here/files.sh" alone "$work/guest" "$kernel" "$work"
cp "$TESTBED/init/guest" "$work/guest/init"
cp "$TOP/tests/guest/raw/epk_raw.ko" "$work/guest/epk"
: >"$work/guest/epk/config"
"$TESTBED/images.sh" "$work" "$kernel"
ln -s "$kernel/bzImage" "$TESTBED/build/tsc_khz" "$work"
# Seconds are real ones here.
setpriv --pdeathsig KILL "$work/mutate.sh" 40
