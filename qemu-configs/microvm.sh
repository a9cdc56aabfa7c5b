#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Start a guest that can use EPK under stock QEMU (7.2 or later).  The host
# needs our KVM series and kvm_intel.epk=any; QEMU itself needs nothing.

set -eu

usage() {
	cat <<'EOF'
usage: microvm.sh --kernel FILE [option]... [-- QEMU-ARGUMENT...]

Starts a microvm with its console on standard input and output.  What follows
-- goes to QEMU as it is.

  --kernel FILE    guest kernel (bzImage or vmlinux); required
  --initrd FILE    initial RAM disk
  --disk FILE      raw disk image; /dev/vda in the guest
  --append ARGS    kernel arguments in addition to console=ttyS0
  --memory MIB     guest memory (512); at most one EPT window's worth of it
                   can hold domains: see docs/install.md
  --cpus N         virtual CPUs (1)
  --cpu MODEL      QEMU's -cpu (host)
  --machine ARGS   more of QEMU's -machine, for example acpi=off
  --serial DEVICE  QEMU's -serial (stdio)
  --qemu PROGRAM   qemu-system-x86_64
  --dry-run        print the line in place of running it
EOF
}

die() {
	echo "microvm.sh: $*; try --help" >&2
	exit 1
}

kernel='' initrd='' disk='' append='' memory=512 cpus=1 cpu=host machine='' serial=stdio
qemu=qemu-system-x86_64 dry_run=

while [ $# -gt 0 ]; do
	case $1 in
	--help) usage; exit 0 ;;
	--) shift; break ;;
	--dry-run) dry_run=1; shift ;;
	--kernel | --initrd | --disk | --append | --memory | --cpus | --cpu | --machine | \
		--serial | --qemu)
		[ $# -gt 1 ] || die "$1 needs a value"
		name=${1#--}
		eval "$name=\$2"
		shift 2 ;;
	*) die "unknown argument '$1'" ;;
	esac
done

[ -n "$kernel" ] || die "no --kernel given"
for file in "$kernel" ${initrd:+"$initrd"} ${disk:+"$disk"}; do
	[ -r "$file" ] || die "cannot read '$file'"
done

check_host() {
	[ -w /dev/kvm ] || die "/dev/kvm is missing or not yours to use"
	case $(cat /sys/module/kvm_intel/parameters/epk 2>/dev/null || :) in
	any) ;;
	off) die "EPK is off on this host; load kvm_intel with epk=any" ;;
	on) die "EPK is off for VMMs that do not ask for it; load kvm_intel with epk=any" ;;
	*) die "the KVM of this host has no EPK; see docs/install.md" ;;
	esac
}

# A comma in an option's value is two.
doubled() {
	printf '%s\n' "$1" | sed 's/,/,,/g'
}

# So that a shell makes the same of it.
print_line() {
	for word; do
		case $word in
		'' | *[!A-Za-z0-9_=.,/:+-]*)
			printf "'%s' " "$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")" ;;
		*) printf '%s ' "$word" ;;
		esac
	done
	echo
}

[ -z "$initrd" ] || set -- -initrd "$initrd" "$@"
[ -z "$disk" ] || set -- -drive "id=root,file=$(doubled "$disk"),format=raw,if=none" \
	-device virtio-blk-device,drive=root "$@"

set -- "$qemu" \
	-M "microvm,accel=kvm,pit=off,pic=off,rtc=off,x-option-roms=off${machine:+,$machine}" \
	-cpu "$cpu" -smp "$cpus" -m "$memory" \
	-nodefaults -no-user-config -display none -no-reboot -serial "$serial" \
	-kernel "$kernel" -append "console=ttyS0 $append" "$@"

if [ -n "$dry_run" ]; then
	print_line "$@"
else
	check_host
	exec "$@"
fi
