#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# refused.sh: what epk-kvm-dkms and its tools refuse, with a word on what to do.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
prepare=$TOP/kvm-patches/dkms/prepare.sh
modules=$TOP/kvm-patches/host/modules.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(dpkg-query -W -f '${Version}' linux-source-6.1)

fail() {
	echo "refused: $*"
	cat "$work/said"
	exit 1
}

# refuses STATUS TEXT COMMAND...
refuses() {
	local status=$1 text=$2 rc=0
	shift 2
	"$@" >"$work/said" 2>&1 || rc=$?
	[ $rc = "$status" ] || fail "$*: exit status $rc"
	grep -q -e "$text" "$work/said" || fail "$*: does not say: $text"
}

# headers NAME VERSION OPTION...: what there is to see of a kernel's headers.
headers() {
	local kdir=$work/$1
	mkdir -p "$kdir"/include/{config,generated}
	echo "#define LINUX_PACKAGE_ID \" Debian $2\"" >"$kdir/include/generated/package.h"
	shift 2
	printf 'CONFIG_%s\n' "$@" >"$kdir/include/config/auto.conf"
}

kvm=(KVM=m KVM_INTEL=m MODVERSIONS=y)
headers good "$version" "${kvm[@]}"
headers other 6.1.1-1 "${kvm[@]}"
headers newer 6.12.1-1 "${kvm[@]}"
headers newest 6.13.1-1 "${kvm[@]}"
headers rt "$version" "${kvm[@]}" PREEMPT_RT=y
headers builtin "$version" KVM=y KVM_INTEL=y MODVERSIONS=y
headers bare "$version" KVM=m KVM_INTEL=m
headers foreign "$version" "${kvm[@]}"
rm "$work/foreign/include/generated/package.h"

"$prepare" "$work/good" || fail "refuses what it should take"
refuses 1 "apt install linux-source-6.1=6.1.1-1" "$prepare" "$work/other"
refuses 1 "make kernel-deb LINUX=6.12" "$prepare" "$work/newer"
refuses 1 "a series for Linux 6.1 and one for 6.12" "$prepare" "$work/newest"
refuses 1 "real-time" "$prepare" "$work/rt"
refuses 1 "no module" "$prepare" "$work/builtin"
refuses 1 "no CONFIG_MODVERSIONS" "$prepare" "$work/bare"
refuses 1 "not Debian's" "$prepare" "$work/foreign"
refuses 1 "apt install linux-headers" "$prepare" "$work/none"
refuses 1 "usage" "$prepare"
refuses 1 "usage" "$prepare" "$work/good" "$work/out" more
EPK_LINUX_SOURCE=$work/none refuses 1 "reinstall linux-source" "$prepare" "$work/good"

# A header that the rest of the kernel was built with; a series that does not apply.
cp -r "$TOP/kvm-patches/dkms" "$TOP/kvm-patches/linux-6.1" "$work"
rm -rf "$work/dkms/build"
patch=$(echo "$work"/linux-6.1/0001-*.patch)
printf '%s\n' '--- a/include/linux/sched.h' '+++ b/include/linux/sched.h' >>"$patch"
refuses 1 "changes include/linux/sched.h" "$work/dkms/prepare.sh" "$work/good" "$work/out"
[ ! -e "$work/out" ] || fail "there is a tree"
cp "$TOP"/kvm-patches/linux-6.1/0001-*.patch "$patch"
sed -i '0,/^-.*u64/! { 0,/^ \tstruct/ s/^ \tstruct/ \tstruck/ }' "$work"/linux-6.1/0009-*.patch
if cmp -s "$work"/linux-6.1/0009-*.patch "$TOP"/kvm-patches/linux-6.1/0009-*.patch; then
	sed -i '0,/^ \t/ s/^ \t/ \tx/' "$work"/linux-6.1/0009-*.patch
fi
refuses 1 "0009.*does not apply" "$work/dkms/prepare.sh" "$work/good" "$work/out"
[ ! -e "$work/out" ] || fail "there is a tree"

# DKMS skips a kernel that is refused, as it skips those of other versions of Linux.
conf() {
	(kernelver=$1 && . "$TOP/kvm-patches/dkms/dkms.conf" 2>"$work/said" &&
		echo "$AUTOINSTALL ${BUILD_EXCLUSIVE_KERNEL-}")
}
[ "$(conf '')" = "yes " ] || fail "DKMS does not take it"
[ "$(conf 6.12.1-amd64)" = " ^none$" ] && [ ! -s "$work/said" ] || fail "DKMS builds for 6.12"
[ "$(conf 6.1.0-none-amd64)" = " ^none$" ] && [ -s "$work/said" ] || fail "DKMS builds without headers"

refuses 2 "host-modules install|load|restore" "$modules"
refuses 2 "host-modules install|load|restore" "$modules" reload
refuses 2 "host-modules install|load|restore" "$modules" load now
[ "$(id -u)" != 0 ] ||
	refuses 1 "needs root" setpriv --reuid 65534 --clear-groups sh <"$modules" -s load
"$modules" --help | grep -q '^host-modules install' || fail "no --help"

# Who else in the kernel knows KVM's structures: abi.c has what they use.
tree=$("$TESTBED/kernel.sh")/tree/source
(cd "$tree" && grep -rlE 'include <(asm|linux)/kvm_host.h>' arch/x86 drivers fs include/linux kernel mm |
	grep -vE '^arch/x86/kvm/|s390|zdev|arm_sdei|^include/linux/kvm_') >"$work/said"
printf '%s\n' arch/x86/events/intel/core.c drivers/gpu/drm/i915/gvt/gvt.h kernel/entry/kvm.c |
	cmp - <(sort "$work/said") || fail "others include kvm_host.h"
echo "refused: all checks passed"
