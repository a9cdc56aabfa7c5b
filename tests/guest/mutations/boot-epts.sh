#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# boot-epts.sh LOG PARAMETERS: on the emulated host, start a guest and wait until it ends.
. /epk/config
export OPENSSL_ia32cap=:~0x80000
exec sh /epk/microvm.sh --kernel /epk/kernel --initrd /epk/guest.cpio --cpus "$CPUS" \
	--append "$GUEST_ARGS loglevel=7 printk.devkmsg=on $2" --cpu host,-adx --machine acpi=off \
	--serial "file:$1" -- -bios /epk/qboot.rom
