#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# boot-alone.sh LOG PARAMETERS: start a guest in QEMU's own emulation, as qemu.py does, and wait
# until it ends.  CPUS in the environment: how many it has.
here=${0%/*}
append="console=ttyS0 tsc_early_khz=$("$here/tsc_khz") loglevel=7 printk.devkmsg=on"
append="$append mitigations=off random.trust_cpu=on oops=panic panic=-1 reboot=t $2"
exec setpriv --pdeathsig KILL qemu-system-x86_64 -machine q35 -accel tcg -cpu max -m 1024 \
	-smp "${CPUS:-1},sockets=${CPUS:-1}" -kernel "$here/bzImage" -initrd "$here/guest.cpio" -append "$append" \
	-display none -net none -no-reboot -serial "file:$1"
