#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# prepare.sh KDIR [OUT]: make OUT, a module source tree of KVM with the series, for the kernel of
# Debian's whose headers are in KDIR; of Debian's own source of exactly that version.  With KDIR
# alone, say whether that can be: exit status and one message.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Where "make install-source" puts the series; else it is beside this folder.
series=$here/patches
[ -d "$series" ] || series=$here/../linux-6.1
tarball=${EPK_LINUX_SOURCE:-/usr/src/linux-source-6.1.tar.xz}

die() {
	echo "epk-kvm: $*" >&2
	exit 1
}

case ${1-} in
-h | --help)
	sed -n '3,5s/^# //p' "$0"
	exit
	;;
'' | -*) die "usage: prepare.sh KDIR [OUT]" ;;
esac
[ $# -le 2 ] || die "usage: prepare.sh KDIR [OUT]"
kdir=$1 out=${2-}
config=$kdir/include/config/auto.conf

check() {
	[ -e "$config" ] || die "no kernel headers in $kdir: apt install linux-headers-amd64"
	version=$(sed -n 's/.* Debian \([^"]*\)"$/\1/p' "$kdir/include/generated/package.h" 2>/dev/null) || :
	[ -n "$version" ] || die "the kernel of $kdir is not Debian's: build a whole one, by make kernel-deb"
	case $version in
	6.1.*) ;;
	6.12.*) die "modules are built for Linux 6.1 alone: for 6.12 build a whole kernel, by" \
		"make kernel-deb LINUX=6.12" ;;
	*) die "there is a series for Linux 6.1 and one for 6.12, the headers in $kdir are of $version" ;;
	esac
	# It has patches that linux-source-6.1 has not.
	! grep -q '^CONFIG_PREEMPT_RT=y' "$config" || die "real-time kernels are not supported"
	for option in KVM KVM_INTEL MODVERSIONS; do
		grep -q "^CONFIG_$option=" "$config" || die "the kernel of $kdir has no CONFIG_$option"
	done
	grep -q '^CONFIG_KVM_INTEL=m' "$config" || die "KVM is no module in the kernel of $kdir"
	source=$(dpkg-query -W -f '${db:Status-Abbrev}${Version}' linux-source-6.1 2>/dev/null) || :
	case $source in
	ii*) source=${source#* } ;;
	*) source= ;;
	esac
	[ "$source" = "$version" ] || die "the kernel is $version, linux-source-6.1 is" \
		"${source:-not installed}: apt install linux-source-6.1=$version, or linux-image-amd64" \
		"and linux-headers-amd64 of the same version and boot it; until then the stock KVM stays"
	[ -r "$tarball" ] || die "$tarball is missing: apt install --reinstall linux-source-6.1=$version"
}

# What the series touches and the tarball has, and what it adds.
touched() {
	awk '/^--- a\// { print substr($2, 3) }' "$series"/00[0-9][0-9]-*.patch
}
added() {
	awk '/^--- \/dev\/null/ { getline; print substr($2, 3) }' "$series"/00[0-9][0-9]-*.patch
}

# The rest of the kernel was built with the headers as they were: only KVM's own may change.
# That those parts which the rest knows, too, stay as they are, the Makefile sees.
check_headers() {
	{ touched; added; } | grep -E '^(arch/x86/)?include/' |
		grep -vE '^(arch/x86/)?include/(uapi/)?(asm|linux)/kvm[_a-z0-9-]*\.h$' | while read -r header; do
		die "the series changes $header, which the rest of the kernel was built with"
	done
}

unpack() {
	check_headers
	rm -rf "$out" "$out.tmp"
	mkdir -p "$out.tmp"
	added | sort -u >"$out.tmp/.added"
	# A name that stands there twice is not found the second time.
	{ touched; echo include/linux/kvm_host.h; } | sort -u | grep -vxFf "$out.tmp/.added" |
		sed "s,^,linux-source-6.1/," >"$out.tmp/.touched"
	tar -C "$out.tmp" --strip-components=1 -xf "$tarball" -T "$out.tmp/.touched" \
		linux-source-6.1/arch/x86/kvm linux-source-6.1/virt/kvm ||
		die "$tarball is not what linux-source-6.1 $version has"
	for patch in "$series"/00[0-9][0-9]-*.patch; do
		case $patch in */0000-*) continue ;; esac
		patch -d "$out.tmp" -p1 -F0 -s <"$patch" ||
			die "${patch##*/} does not apply to linux-source-6.1 $version:" \
				"a newer release of this package may fit it; until then the stock KVM stays"
	done
	# The kernel itself counts in kvm_vcpu::stat, which lies behind kvm_vcpu::arch: what the
	# series adds to that goes to the end.
	sed -i '/^\tu64 epk_paid;$/d' "$out.tmp/arch/x86/include/asm/kvm_host.h"
	sed -i 's/^\tu64 last_used_slot_gen;$/&\n\tu64 epk_paid;/' "$out.tmp/include/linux/kvm_host.h"
	sed -i 's/arch\.epk_paid/epk_paid/' "$out.tmp"/arch/x86/kvm/*/*.c
	# DKMS does not install what has the version of the kernel's own module, and no version is one.
	for file in virt/kvm/kvm_main.c arch/x86/kvm/vmx/vmx.c arch/x86/kvm/svm/svm.c; do
		echo "MODULE_VERSION(\"epk-$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$here/dkms.conf")\");" >>"$out.tmp/$file"
	done
	# Its makefiles name the kernel's tree; this is none.  The headers go first.
	sed -i -e 's,\$(srctree)/arch/x86/kvm,$(src),; s,\$(srctree)/virt/kvm,$(src)/../../../virt/kvm,' \
		-e '1a top := $(src)/../../..\
LINUXINCLUDE := $(addprefix -I$(top)/,arch/x86/include arch/x86/include/uapi include include/uapi) $(LINUXINCLUDE)\
# From here <trace/define_trace.h> finds ../../arch/x86/kvm/trace.h.\
ccflags-y += -I$(top)/virt/kvm' "$out.tmp/arch/x86/kvm/Makefile"
	! grep -F '$(srctree)' "$out.tmp/arch/x86/kvm/Makefile" "$out.tmp/virt/kvm/Makefile.kvm" >&2 ||
		die "KVM's makefiles are not as they were"
	mv "$out.tmp" "$out"
}

check
[ -z "$out" ] || unpack
