#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh HOST KERNEL: what modules_test.sh needs, into the root of the emulated host: kmod, the
# kernel's own modules, and those with EPK as they are once they have been installed.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
host=$1
kernel=$2
release=$(readlink -f "$kernel/tree")
release=${release##*/linux-headers-}
version=$(dpkg-query -W -f '${Version}' "linux-headers-$release")
deb=$(with_lock debs deb_unpacked "linux-image-$release" "$version")
lib=$host/lib/modules/$release

for file in arch/x86/kvm/kvm.ko arch/x86/kvm/kvm-intel.ko virt/lib/irqbypass.ko; do
	install -D -m 644 "$deb/lib/modules/$release/kernel/$file" "$lib/kernel/$file"
done
install -D -m 644 -t "$lib/updates/epk-kvm" "$kernel/kvm.ko" "$kernel/kvm-intel.ko"
depmod -b "$host" "$release" 2>/dev/null

mkdir -p "$host/epk/kmod" "$host/etc/modprobe.d" "$host/run"
cp "$kernel/kvm-intel.ko" "$host/epk/kmod/other.ko"
id=$(readelf -n "$kernel/kvm-intel.ko" | sed -n 's/.*Build ID: //p')
python3 - "$host/epk/kmod/other.ko" "$id" <<'EOF'
import pathlib, sys
file, build_id = pathlib.Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
text = file.read_bytes()
assert text.count(build_id) == 1
file.write_bytes(text.replace(build_id, bytes(20)))
EOF
# Busybox's shell takes its own commands whatever PATH says.
cp /bin/kmod /bin/dash /usr/bin/flock "$host/epk/kmod/"
for file in $(libraries_of /bin/kmod /bin/dash /usr/bin/flock); do
	install -D "$file" "$host$file"
done
for tool in modprobe modinfo depmod insmod; do
	ln -s kmod "$host/epk/kmod/$tool"
done
# One that the kernel refuses; and one that it takes, of another build.
sed 's/ mod_unload modversions / mod_unload modversiont /' "$kernel/kvm-intel.ko" >"$host/epk/kmod/kvm-intel.ko"
printf '%s\n' 'options kvm epk_debug=1' 'options kvm_intel pml=0' >"$host/etc/modprobe.d/test.conf"
sed '1s,/bin/sh,/epk/kmod/dash,' "$TOP/kvm-patches/host/modules.sh" >"$host/epk/bin/host-modules"
sed '1s,/bin/sh,/epk/kmod/dash,' "$TOP/tests/dkms/modules_test.sh" >"$host/epk/bin/modules_test"
chmod +x "$host"/epk/bin/{host-modules,modules_test}
