#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh HOST GUEST-KERNEL MODULES: Debian's libvirt into the root of the emulated host, with what its guest boots and the
# domains of qemu-configs/, changed for a machine of so little memory.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
here=$TOP/tests/libvirt
host=$1
kernel=$2
modules=$3
to=$host/epk/libvirt
drivers=/usr/lib/x86_64-linux-gnu/libvirt
tool=$TOP/kvm-patches/host/build/installed
arguments="console=ttyS0 quiet mitigations=off random.trust_cpu=on initcall_blacklist=cmos_init"
programs=(/usr/sbin/libvirtd /usr/sbin/virtlogd /usr/bin/virsh "$drivers/connection-driver/libvirt_driver_qemu.so"
	"$drivers/storage-file/libvirt_storage_file_fs.so"
	# It writes what is saved.
	/usr/lib/libvirt/libvirt_iohelper
	# libvirt asks QEMU about its own emulation, too.
	/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so)

# The hook is put where libvirt finds it by who tests that.
make -s -C "$TOP/kvm-patches/host" install DESTDIR="$tool" PREFIX=/usr
install -D "$tool/usr/sbin/epk-host" "$host/usr/sbin/epk-host"
install -D "$tool/etc/libvirt/hooks/qemu.d/epk" "$to/hook"
# What QEMU needs, too, is there.
libraries=$(comm -23 <(libraries_of "${programs[@]}" "$tool/usr/sbin/epk-host") <(libraries_of /usr/bin/qemu-system-x86_64))
for file in "${programs[@]}" $libraries; do
	install -D "$file" "$host$file"
done
# 30 MB of tables of encodings, which nobody here asks libxml2 for.
for file in "$host"/lib/x86_64-linux-gnu/libicudata.so.*; do
	[ -f "$file" ] || continue
	symbol=$(nm -D --defined-only "$file" | awk '$3 ~ /^icudt[0-9]+_dat/ { sub(/@.*/, "", $3); print $3 }')
	echo "const char ${symbol}[64];" | cc -x c -fPIC -shared -Wl,-soname,"${file##*/}" -o "$file" -
done
mkdir -p "$host/usr/share/libvirt" "$host/usr/share/qemu" "$to"
cp -r /usr/share/libvirt/cpu_map "$host/usr/share/libvirt/"
for file in bios-256k.bin linuxboot_dma.bin pvh.bin kvmvapic.bin; do
	cp -L "/usr/share/qemu/$file" "$host/usr/share/qemu/" 2>/dev/null ||
		cp -L "/usr/share/seabios/$file" "$host/usr/share/qemu/"
done
make -s -C "$here"
cp "$here"/build/{console,hostname.so} "$here"/host/{lib,run,moved} "$to/"
"$here/guest.sh" "$kernel" "$modules" "$to" "$arguments"
# Debian's kernels take a minute to decompress, and are booted directly.
[ ! -d "$kernel/modules" ] || truncate -s 1M "$to/disk.img"
# Without ADX: see docs/testbed.md.
adapt() {
	"$here/adapt.py" --memory 512 --cpus 1 --no-network --feature disable=adx "$@"
}
adapt --disk /epk/libvirt/disk.img "$TOP/qemu-configs/epk-guest.xml" >"$to/disk.xml"
adapt --kernel /epk/kernel --initrd /epk/libvirt/initrd --append "$arguments" \
	"$TOP/qemu-configs/epk-guest-kernel.xml" >"$to/kernel.xml"
# The guest's own image, with the NGINX case in it if a test needs that.
install "$here/guest/init" "$host/../guest/epk/console"
adapt --kernel /epk/kernel --initrd /epk/guest.cpio --append "$arguments rdinit=/epk/console" \
	"$TOP/qemu-configs/epk-guest-kernel.xml" >"$to/demo.xml"
# What Bochs's CPU has not.
adapt --disk /epk/libvirt/disk.img --feature require=la57 "$TOP/qemu-configs/epk-guest.xml" >"$to/lacking.xml"
