#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# interrupted.sh: host-modules is interrupted while it installs or removes, or the disk is full, on a machine whose programs are
# made up: modprobe never takes half of KVM, nor looks for a file that is gone.  Root only: it mounts over folders, for itself.
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
	mount -t tmpfs -o size=1m tmpfs "$folder"
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
# As Debian's does, it puts as much as the disk has taken in the place of the whole.
made depmod <<-'EOS'
	#!/bin/bash
	base= hidden='^$'
	while getopts C:b: option; do
		case $option in
		C) ! grep -qx "search built-in updates" "$OPTARG" || hidden=updates ;;
		b) base=$OPTARG ;;
		esac
	done
	cd "$base/lib/modules/${!OPTIND}" || exit
	all=$(find -L . -name "*.ko" | grep -v "$hidden" | sort)
	rm -f modules.all
	echo "$all" >modules.all
	status=$?
	mv modules.all modules.dep
	exit $status
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
		echo >$to/kvm.ko || exit
		[ "$AT" != half ] || kill -$SIGNAL 0
		echo parm:epk:mode >$to/kvm-intel.ko || { depmod 9.9-made-up; exit 1; }
		depmod 9.9-made-up
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
	*)
		[ "$AT" != make ] || kill -$SIGNAL 0
		cd $2 && mkdir -p build/tree/arch/x86/kvm && cd build/tree/arch/x86/kvm || exit
		for name in kvm kvm-intel kvm-amd; do echo parm:epk:mode >$name.ko; done
		;;
	esac
EOS

# machine: its kernel has KVM as modules.
machine() {
	rm -rf "${lib:?}" /var/lib/dkms /etc/modprobe.d/*
	mkdir -p "$lib/kernel/arch/x86/kvm" /usr/src/epk-kvm-1.0
	for name in kvm kvm-intel; do echo stock >"$lib/kernel/arch/x86/kvm/$name.ko"; done
	printf '#!/bin/sh\n' >/usr/src/epk-kvm-1.0/prepare.sh
	chmod 755 /usr/src/epk-kvm-1.0/prepare.sh
	rm -rf "$work/dkms"
	depmod 9.9-made-up
}

# call AT SIGNAL COMMAND: in a group of its own, as on a terminal.
call() {
	AT=$1 SIGNAL=$2 setsid --wait "$work/source/modules.sh" "$3" >"$work/said" 2>&1 </dev/null
}

# As long as it has been cut off.
is_safe() {
	while read -r file; do
		[ -f "$lib/$file" ] || fail "$1: modprobe looks for $file"
	done <"$lib/modules.dep"
}

# is_whole WHAT COUNT...: so many modules are there beside the kernel's own, and all of them is what modprobe knows.
is_whole() {
	local what=$1
	shift
	(cd "$lib" && find . -name '*.ko' | sort) | cmp -s - "$lib/modules.dep" || fail "$what: modprobe looks for what is not there"
	[[ " $* " = *" $(cd "$lib" && find updates -name '*.ko' 2>/dev/null | wc -l) "* ]] || fail "$what: half of KVM is installed"
	[ -z "$(ls "$TMPDIR")" ] && [ "$(ls -A /lib/modules)" = 9.9-made-up ] || fail "$what: files are left"
}

# without_dkms: the package's sources are beside the script, and it installs three modules.
without_dkms() {
	mv /usr/src/epk-kvm-1.0 "$work/dkms"
}

# full PAGES COMMAND COUNT: the disk of the modules has room for so many; it fails, and so many modules are there.
full() {
	local filler=$lib/filler what="$2 with $1 pages"
	! dd if=/dev/zero of="$filler" bs=4096 2>/dev/null || fail "the disk is not full"
	truncate -s -$(($1 * 4096)) "$filler"
	! call none TERM "$2" || fail "$what does not fail"
	rm "$filler"
	grep -q '^host-modules: ' "$work/said" || fail "$what does not say why"
	is_whole "$what" "$3"
}

cp "$top/kvm-patches/host/modules.sh" "$work/source/"
for signal in INT TERM HUP; do
	for at in half whole; do
		machine
		! call $at $signal install || fail "it is not interrupted"
		is_whole "install, $at, $signal" 0 2
	done
	machine
	call none $signal install || fail "it does not install"
	is_whole "install" 2
	call gone $signal restore || :
	is_whole "restore, $signal" 0
	machine
	call none $signal install
	call gone KILL restore 2>/dev/null || :
	is_safe "restore, killed"
	call none $signal restore || :
	is_whole "restore, after it was killed" 0
	machine
	without_dkms
	call make $signal install || :
	is_whole "by hand, $signal" 0
done
echo "interrupted: at 4 places, by 3 signals, and killed: modprobe has all of KVM"

for pages in 0 1 2; do
	machine
	full $pages install 0
done
machine
call none TERM install
full 0 restore 2
for pages in 0 1 2 3; do
	machine
	without_dkms
	full $pages install 0
done
machine
without_dkms
call none TERM install || fail "it does not install by hand"
full 0 restore 3
call none TERM restore || :
is_whole "restore by hand" 0

# refused WORDS: an installation is, and says so.
refused() {
	! call none TERM install || fail "it is not refused: $1"
	grep -qF "host-modules: $1" "$work/said" || fail "it does not say: $1"
	is_whole "$1" 0
}
machine
mount -o remount,ro /run
refused "cannot write to /run"
mount -o remount,rw /run
exec 7>>/run/epk-host-modules.lock
flock 7
refused "another call is at work"
exec 7>&-
call none TERM install || fail "it does not install after all that"

echo "interrupted: on a full disk, at 9 places: modprobe has all of KVM"
