#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# interrupted.sh: host-modules is interrupted while it installs or removes, on a machine whose programs are made up: modprobe
# never takes half of KVM, nor looks for a file that is gone.  Root only: it mounts over folders, for itself.
set -eu -o pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
if [ "${1-}" != inside ]; then
	exec unshare --mount "$0" inside
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lib=/lib/modules/9.9-made-up
export WORK=$work LIB=$lib
mkdir "$work/bin" "$work/source" "$work/temporary"
for folder in /lib/modules /sys/module /etc/modprobe.d /var/lib /usr/src /run; do
	mount -t tmpfs tmpfs "$folder"
done
export PATH="$work/bin:$PATH" TMPDIR=$work/temporary

fail() {
	echo "interrupted: $*" >&2
	cat "$work/said" >&2
	exit 1
}

made() {
	cat >"$work/bin/$1"
	chmod 755 "$work/bin/$1"
}

made uname <<<$'#!/bin/sh\necho 9.9-made-up'
# What modprobe sees: what depmod has seen last; of names that stand there twice, what its configuration has first.
made depmod <<-'EOS'
	#!/bin/sh
	cd $LIB && find . -name "*.ko" | sort >modules.all
	[ "$1" != -C ] || ! grep -qx "search built-in updates" "$2" || sed -i '/updates/{/kvm/d}' modules.all
	mv modules.all modules.dep
EOS
made modinfo <<-'EOS'
	#!/bin/sh
	# -k RELEASE -F FIELD NAME
	case $5 in /*) file=$5 ;; *) file=$LIB/$(grep "/$5.ko" $LIB/modules.dep | sort -r | head -n 1) ;; esac
	[ -f "$file" ] || exit 1
	case $4 in
	filename) echo "$file" ;;
	*) grep "^$4:" "$file" | sed "s/^$4://" ;;
	esac
EOS
for program in modprobe insmod; do made $program <<<$'#!/bin/sh\nexit 1'; done
made strip <<<$'#!/bin/sh\ncp "$4" "$3"'
made dkms <<-'EOS'
	#!/bin/sh
	to=$LIB/updates/dkms
	case $1 in
	install)
		mkdir -p $to /var/lib/dkms/epk-kvm/1.0
		echo >$to/kvm.ko
		[ "$AT" != half ] || kill -$SIGNAL 0
		echo parm:epk:mode >$to/kvm-intel.ko
		depmod
		[ "$AT" != whole ] || kill -$SIGNAL 0
		;;
	remove)
		rm -rf $to
		[ "$AT" != gone ] || kill -$SIGNAL 0
		rm -rf /var/lib/dkms/epk-kvm
		;;
	esac
EOS
made make <<-'EOS'
	#!/bin/sh
	case "$*" in
	*version) echo 1.0 ;;
	*) [ "$AT" != make ] || kill -$SIGNAL 0 ;;
	esac
EOS

# machine: its kernel has KVM as modules.
machine() {
	rm -rf "${lib:?}" /var/lib/dkms /etc/modprobe.d/*
	mkdir -p "$lib/kernel/arch/x86/kvm" /usr/src/epk-kvm-1.0
	for name in kvm kvm-intel; do echo stock >"$lib/kernel/arch/x86/kvm/$name.ko"; done
	printf '#!/bin/sh\n' >/usr/src/epk-kvm-1.0/prepare.sh
	chmod 755 /usr/src/epk-kvm-1.0/prepare.sh
	depmod
}

# call AT SIGNAL COMMAND: in a group of its own, as on a terminal.
call() {
	AT=$1 SIGNAL=$2 setsid --wait "$work/source/modules.sh" "$3" >"$work/said" 2>&1 </dev/null || :
}

# As long as it has been cut off.
is_safe() {
	while read -r file; do
		[ -f "$lib/$file" ] || fail "$1: modprobe looks for $file"
	done <"$lib/modules.dep"
}

is_whole() {
	(cd "$lib" && find . -name '*.ko' | sort) | cmp -s - "$lib/modules.dep" || fail "$1: modprobe looks for what is not there"
	case $(cd "$lib" && find updates -name '*.ko' 2>/dev/null | wc -l) in
	0 | 2) ;;
	*) fail "$1: half of KVM is installed" ;;
	esac
	[ -z "$(ls "$TMPDIR")" ] || fail "$1: files are left"
}

cp "$top/kvm-patches/host/modules.sh" "$work/source/"
for signal in INT TERM HUP; do
	for at in half whole; do
		machine
		call $at $signal install
		is_whole "install, $at, $signal"
	done
	machine
	call none $signal install
	[ -f "$lib/updates/dkms/kvm-intel.ko" ] || fail "it does not install"
	call gone $signal restore
	is_whole "restore, $signal"
	[ ! -d "$lib/updates/dkms" ] || fail "restore leaves modules"
	machine
	call none $signal install
	call gone KILL restore
	is_safe "restore, killed"
	call none $signal restore
	is_whole "restore, after it was killed"
	machine
	cp -r /usr/src/epk-kvm-1.0 "$work/dkms"
	rm -r /usr/src/epk-kvm-1.0
	call make $signal install
	is_whole "by hand, $signal"
	rm -r "$work/dkms"
done
echo "interrupted: at 4 places, by 3 signals, and killed: modprobe has all of KVM"
