#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# images.sh WORK KERNEL [GUEST-KERNEL]: make WORK/disk.img, which boots the emulated
# host; or WORK/guest.cpio, if there is only a guest; or, with "none" for the host's KERNEL,
# WORK/root, which is the host's root on a machine that runs already.
# WORK/host and WORK/guest hold the run's own files for each level: scripts,
# tests, module.  Everything else comes from here and from the cache.
set -eu
. "$(dirname "$0")/lib.sh"
work=$1
kernel=$2
guest_kernel=${3:-$kernel}

pack() { (cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet); }

# A root with busybox, its applets and the directories that init mounts.
skeleton() {
	local root=$1 applet
	mkdir -p "$root"/{bin,dev,etc,lib,lib64,proc,sys,tmp,usr/bin,usr/sbin,var,root,epk/bin}
	cp "$(command -v busybox)" "$root/bin/busybox"
	for applet in $("$root/bin/busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
	echo root:x:0: >"$root/etc/group"
}

copy_with_libraries() {
	local root=$1 file to
	shift
	for file in $(libraries_of "$@"); do
		# The project's own are where the project is, which the machine may have something else at.
		case $file in
		/lib*|/usr/*) to=$file ;;
		*) to=/lib/x86_64-linux-gnu/${file##*/} ;;
		esac
		mkdir -p "$root${to%/*}"
		cp -L "$file" "$root$to"
	done
}

# The host's root with QEMU.
host_base() {
	local out=$1 root
	root=$(mktemp -d)
	skeleton "$root"
	cp /usr/bin/qemu-system-x86_64 "$root/usr/bin/"
	cp /usr/share/qemu/qboot.rom "$root/epk/"
	qemu-img create -q -f qcow2 "$root/epk/empty.qcow2" 1G
	copy_with_libraries "$root" /usr/bin/qemu-system-x86_64
	pack "$root" >"$out"
	rm -rf "$root"
}

# The guest's root, with an empty filesystem for tests that want a disk.
guest_base() {
	local out=$1 root
	root=$(mktemp -d)
	skeleton "$root"
	# pthread_cancel() of a static program opens it.
	mkdir -p "$root/lib/x86_64-linux-gnu"
	cp -L /lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/lib/x86_64-linux-gnu/"
	truncate -s 16M "$root/epk/ext4"
	mke2fs -q -t ext4 -b 4096 "$root/epk/ext4"
	gzip "$root/epk/ext4"
	pack "$root" >"$out"
	rm -rf "$root"
}

# Make a file of the cache unless it is there: cached NAME KEY FUNCTION
cached() {
	local path=$EPK_CACHE/images/$1-$2
	if [ ! -f "$path" ]; then
		mkdir -p "$EPK_CACHE/images"
		"$3" "$path.tmp"
		mv "$path.tmp" "$path"
	fi
	echo "$path"
}

# A FAT disk with the loader, the kernel and the host's root.
base_disk() {
	local out=$1
	rm -f "$out"
	truncate -s $((16 * 63 * 512 * 480)) "$out"
	mkfs.fat -n EPK -F 16 "$out" >/dev/null
	syslinux --install "$out"
	mcopy -i "$out" "$kernel/bzImage" "$base" ::
	mmove -i "$out" "${base##*/}" ::base.img
}

# What debuggers read of the tests' programs is half of all that has to fit on the disk.
lean() { # lean FOLDER
	find "$1/epk" -type f -perm -1 -size +64k ! -name kernel -exec strip --strip-debug {} + 2>/dev/null || :
}

me=$TESTBED/images.sh
packages=$(dpkg-query -W -f '${Package} ${Version}\n' qemu-system-x86 libc6 busybox-static syslinux e2fsprogs)
guest_base=$(with_lock images cached guest "$(content_key "$packages" -- "$me")" guest_base)

for level in guest host; do
	[ ! -d "$work/$level/epk" ] || lean "$work/$level"
done
if [ -d "$work/guest" ]; then
	mapfile -t programs < <(find "$work/guest" -type f \( -perm -1 -o -name '*.so*' \))
	copy_with_libraries "$work/guest" "${programs[@]}"
	if [ ! -d "$work/host" ]; then
		{ cat "$guest_base"; pack "$work/guest"; } >"$work/guest.cpio"
		exit 0
	fi
	{ cat "$guest_base"; pack "$work/guest"; } >"$work/host/epk/guest.cpio"
	# The ELF file need not be decompressed.  But with KASAN the code before startup_64() looks
	# at shadow memory that is not there yet, and QEMU ends without a word.
	case $(cat "$guest_kernel/.config" 2>/dev/null) in
	*CONFIG_KASAN=y*) cp "$guest_kernel/bzImage" "$work/host/epk/kernel" ;;
	*) cp "$guest_kernel/vmlinux" "$work/host/epk/kernel" ;;
	esac
fi
tool=$work/host/epk/bin/epk-host
[ ! -e "$tool" ] || copy_with_libraries "$work/host" "$tool"
# Without a guest, nothing of QEMU has to be read and unpacked.
base=$guest_base
[ ! -d "$work/guest" ] ||
	base=$(with_lock images cached host "$(content_key "$packages" -- "$me")" host_base)
if [ "$kernel" = none ]; then
	mkdir -p "$work/root"
	(cd "$work/root" && cpio -i -d -m --quiet <"$base" && cp -a "$work/host/." .)
	exit 0
fi
disk=$(with_lock images cached disk "$(content_key "$base" "$kernel" -- "$me")" base_disk)
cp "$kernel"/*.ko "$work/host/epk/"
pack "$work/host" >"$work/run.img"
cp "$disk" "$work/disk.img"
mcopy -i "$work/disk.img" "$work/run.img" "$work/syslinux.cfg" ::
rm "$work/run.img"
