#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# guest.sh KERNEL MODULES OUT [KERNEL-ARGS]: what libvirt's guests boot, of a kernel that kernel.sh or debian-kernel.sh made and the
# modules for it: OUT/initrd, a shell with the module and a few tests, and OUT/disk.img with kernel and initrd,
# which boots by BIOS and, of a kernel with EFI's stub, by UEFI.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
here=$TOP/tests/libvirt
kernel=$1
modules=$2
out=$3
arguments=${4:-console=ttyS0}
tests="kmod_switch_test kmod_signal_test"
# What finds the disk, and the power button.  Of Debian's kernels; the test kernel has virtio-mmio alone.
drivers="virtio_pci virtio_mmio virtio_blk virtio_net button evdev"

copy_drivers() {
	local release deb driver file number=10
	release=$(readlink -f "$kernel/tree")
	release=${release##*/linux-headers-}
	deb=$(with_lock debs deb_unpacked "linux-image-$release" "$(dpkg-query -W -f '${Version}' "linux-headers-$release")")
	depmod -b "$deb" "$release"
	mkdir -p "$1"
	for driver in $drivers; do
		modprobe -d "$deb" -S "$release" --show-depends "$driver" | awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' | while read -r file; do
		cp "$file" "$1/$number-${file##*/}"
		number=$((number + 1))
	done
}

root=$(mktemp -d)
trap 'rm -rf "$root" "$root".*' EXIT
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc/acpi/PWRF,var/log,var/run,epk/bin,epk/modules} "$out"
cp "$(command -v busybox)" "$root/bin/"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$here/guest/init" "$root/"
printf '#!/bin/sh\npoweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
chmod +x "$root/etc/acpi/PWRF/00000080"
for test in $tests; do
	cp "$TOP/tests/guest/build/$test" "$root/epk/bin/"
done
for file in $(libraries_of "$root"/epk/bin/*); do
	install -D "$file" "$root$file"
done
strip -g -o "$root/epk/epk.ko" "$modules/guest-kmod/epk.ko"
[ ! -d "$kernel/modules" ] || copy_drivers "$root/epk/modules"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) >"$out/initrd"

image=$(readlink -f "$kernel/bzImage")
stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
printf '%s' "$arguments" >"$root.arguments"
printf '%s\n' "DEFAULT epk" "LABEL epk" "LINUX /bzImage" "INITRD /initrd" "APPEND $arguments" >"$root.syslinux"
files=("$image" "$out/initrd")
if [ -d "$kernel/modules" ]; then
	objcopy --add-section .cmdline="$root.arguments" --change-section-vma .cmdline=0x30000 \
		--add-section .linux="$image" --change-section-vma .linux=0x2000000 \
		--add-section .initrd="$out/initrd" --change-section-vma .initrd=0x4000000 "$stub" "$root.efi"
	files+=("$root.efi")
fi
cylinder=$((16 * 63 * 512))
bytes=$(cat "${files[@]}" | wc -c)
disk=$out/disk.img
rm -f "$disk"
truncate -s $((cylinder * (bytes / cylinder + 8))) "$disk"
mkfs.fat -n EPK -F 16 "$disk" >/dev/null
syslinux --install "$disk"
mcopy -i "$disk" "$root.syslinux" ::syslinux.cfg
mcopy -i "$disk" "$image" ::bzImage
mcopy -i "$disk" "$out/initrd" ::initrd
if [ -f "$root.efi" ]; then
	mmd -i "$disk" ::EFI ::EFI/BOOT
	mcopy -i "$disk" "$root.efi" ::EFI/BOOT/BOOTX64.EFI
fi
