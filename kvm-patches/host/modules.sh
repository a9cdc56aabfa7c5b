#!/bin/sh
# SPDX-License-Identifier: MIT
# host-modules install|load|restore: KVM's modules with EPK on Debian's own kernel.
#   install   build them for the kernel that runs, and have them loaded from the next boot on
#   load      put them in the place of the modules that are loaded now
#   restore   take them away and load the kernel's own again
# Root only; load and restore refuse while a VM runs.  If one of them fails, the kernel's own
# modules are loaded again.  Exit status: 0 done, or as asked already; 1 not done; 2 usage.
set -u
here=$(cd "$(dirname "$0")" && pwd)
release=$(uname -r)
lib=/lib/modules/$release
# Where what DKMS does not do is installed: one rename makes it there, whole.
own=$lib/updates/epk-kvm
options=/etc/modprobe.d/epk-host.conf
# What is being made, and goes whatever happens.
build=
new=/lib/modules/.epk-kvm-$release

say() { echo "host-modules: $*"; }
warn() { echo "host-modules: $*" >&2; }
die() {
	warn "$@"
	exit 1
}

usage() {
	sed -n '3,8s/^# //p' "$0"
}

# modinfo, of a module's name or file, without a word on those that there are not.
info() { modinfo -k "$release" -F "$1" "$2" 2>/dev/null; }
file_of() { info filename "$1"; }

# Whether a file is a kvm-intel with the series.
has_epk() { info parm "$1" | grep -q '^epk:'; }

stock() {
	local file
	for file in "$lib/kernel/arch/x86/kvm/$1".ko*; do
		[ ! -f "$file" ] || { echo "$file"; return; }
	done
}

is_loaded() { [ -d "/sys/module/$1" ]; }

hex() { od -A n -t x1 -v | tr -d ' \n'; }

# index RELEASE [DEPMOD-OPTION...]: what modprobe goes by is made anew, or stays as it was.  Debian's depmod alone puts what it
# could write of it on a full disk in the place of the whole.
index() {
	local of=$1 base=/lib/modules/.epk-index-$1 to file status=0
	shift
	to=$base/lib/modules/$of
	rm -rf "$base"
	mkdir -p "$to" && ln -s "/lib/modules/$of"/* "$to/" && depmod "$@" -b "$base" "$of" || status=1
	for file in "$to"/modules.*; do
		[ $status = 0 ] || break
		[ -L "$file" ] || mv "$file" "/lib/modules/$of/" || status=1
	done
	rm -rf "$base"
	return $status
}

# Whether there are modules of ours for a kernel, whole or not.
has_ours() {
	local file
	[ ! -d "/lib/modules/$1/updates/epk-kvm" ] || return 0
	for file in "/lib/modules/$1"/updates/dkms/kvm*.ko*; do
		[ ! -f "$file" ] || return 0
	done
	return 1
}

# Whether the module that is loaded is of the file that modprobe takes: by its build ID, a note at
# the beginning of the file.
is_current() {
	local id
	id=$(tail -c 20 "/sys/module/$1/notes/.note.gnu.build-id" | hex)
	[ -n "$id" ] && head -c 4096 "$(file_of "$1")" | hex | grep -q "$id"
}

# Whether the modules that are loaded are the installed ones, with guests let in.
are_ours() {
	is_loaded kvm_intel && [ "$(cat /sys/module/kvm_intel/parameters/epk 2>/dev/null)" = any ] &&
		is_current kvm && is_current kvm_intel
}

# What modprobe takes is of one build: kvm alone, or kvm-intel alone, would leave the host without.
are_installed() {
	local kvm intel
	kvm=$(file_of kvm) intel=$(file_of kvm-intel)
	[ -f "$kvm" ] && [ -f "$intel" ] && [ "${kvm%/*}" = "${intel%/*}" ] && has_epk "$intel"
}

# Who has KVM open, as far as that can be seen.
users() {
	local fd pids=
	for fd in /proc/[0-9]*/fd/*; do
		case $(readlink "$fd" 2>/dev/null) in
		/dev/kvm | anon_inode:kvm-*) fd=${fd#/proc/} pids="$pids ${fd%%/*}" ;;
		esac
	done
	echo "$pids" | tr ' ' '\n' | sort -nu | tr '\n' ' '
}

refuse_if_used() {
	local module used by
	while read -r module _ used by _; do
		case $module in
		kvm_intel | kvm_amd)
			[ "$used" = 0 ] || die "$module is in use: shut down the VMs first, processes: $(users)" ;;
		kvm)
			by=$(echo "$by" | tr ',' '\n' | grep -vxE 'kvm_intel|kvm_amd|-|' | tr '\n' ' ')
			[ -z "$by" ] || die "kvm is in use by other modules, unload them first: modprobe -r $by" ;;
		esac
	done </proc/modules
}

# What the kernel may refuse is known before anything is unloaded.
check_signature() {
	local lockdown=/sys/kernel/security/lockdown
	[ -r "$lockdown" ] && ! grep -q '\[none\]' "$lockdown" || return 0
	[ -n "$(info signer kvm-intel)" ] ||
		die "the kernel is locked down (Secure Boot) and takes signed modules only, these are not:" \
			"install dkms, which signs, and call install again"
}

signing_hint() {
	[ -z "$(info signer kvm-intel)" ] ||
		warn "if the kernel log says that the key is not known: mokutil --import" \
			"/var/lib/dkms/mok.pub, and boot"
}

unload() {
	local module
	for module in kvm_intel kvm_amd kvm; do
		is_loaded $module || continue
		modprobe -r $module || return 1
	done
}

# The kernel's own, whatever is installed.
load_stock() {
	local name file
	unload 2>/dev/null
	modprobe irqbypass 2>/dev/null
	for name in kvm "$vendor"; do
		! is_loaded "$(echo "$name" | tr - _)" || continue
		file=$(stock "$name")
		# Its options, but for the one that it does not have.
		# shellcheck disable=SC2046
		insmod "$file" $(modprobe -c | sed -n "s/^options $(echo "$name" | tr - _) //p" |
			tr ' ' '\n' | grep -v '^epk') || return 1
	done
	has_kvm
}

has_kvm() {
	local tries=20
	while [ ! -c /dev/kvm ]; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.1
	done
}

# Before a module is taken away: the way back is there.  From here on nothing interrupts.
prepare_change() {
	[ -f "$(stock kvm)" ] && [ -f "$(stock "$vendor")" ] ||
		die "the kernel's own modules are not in $lib/kernel/arch/x86/kvm:" \
			"apt install --reinstall linux-image-$release"
	trap '' INT TERM HUP QUIT
}

find_vendor() {
	vendor=
	if grep -qw vmx /proc/cpuinfo; then
		vendor="kvm-intel"
	elif grep -qw svm /proc/cpuinfo; then
		vendor="kvm-amd"
	fi
}

# $source has the sources: where the package puts them, or beside this script.
find_source() {
	local dir
	source=
	for dir in "$here/../dkms" /usr/src/epk-kvm-[0-9]*; do
		[ ! -x "$dir/prepare.sh" ] || source=$dir
	done
	[ -n "$source" ] || die "no sources of the modules here: apt install epk-kvm-dkms"
	version=$(make -s -C "$source" version)
}

# Half of it would leave the host without KVM once modprobe knows of it.
interrupted() {
	trap '' INT TERM HUP QUIT
	are_installed || remove half
	die "interrupted: what was not whole is removed again; call it again"
}

by_dkms() { command -v dkms >/dev/null && [ "$source" = "/usr/src/epk-kvm-$version" ]; }

strip_all() {
	local file
	for file in kvm kvm-intel kvm-amd; do
		strip -g -o "$new/$file.ko" "$build/dkms/build/tree/arch/x86/kvm/$file.ko" || return 1
	done
}

install_by_hand() {
	build=$(mktemp -d) || die "no room in ${TMPDIR:-/tmp}"
	trap 'rm -rf "$build" "$new"' EXIT
	cp -r "$source" "$build/dkms" && cp -r "$source/../linux-6.1" "$build/" 2>/dev/null
	say "building, for some minutes"
	make -C "$build/dkms" -j"$(nproc)" KDIR="$lib/build" all >"$build/log" 2>&1 || {
		tail -n 20 "$build/log" >&2
		die "the build failed, nothing was installed"
	}
	rm -rf "$new"
	mkdir "$new" && strip_all || die "cannot write to /lib/modules, nothing was installed"
	mkdir -p "${own%/*}" && rm -rf "$own" && mv "$new" "$own" && index "$release" || {
		rm -rf "$own"
		die "cannot write to $lib, nothing was installed"
	}
}

do_install() {
	if has_epk "$(stock kvm-intel)"; then
		say "this kernel's own KVM has EPK, there is nothing to install"
		return
	fi
	find_source
	"$source/prepare.sh" "$lib/build" || exit 1
	trap interrupted INT TERM HUP QUIT
	if by_dkms; then
		# Says so where it is installed already.
		dkms install "epk-kvm/$version" -k "$release" || {
			index "$release" && { ! has_ours "$release" || are_installed; } || remove half
			die "DKMS did not install them"
		}
	elif are_installed; then
		say "installed already, in $own; to build them anew call restore first"
	else
		install_by_hand
	fi
	are_installed || {
		remove half
		die "modprobe would not take what was installed; it is removed again"
	}
	echo 'options kvm_intel epk=any' >"$options.new" && mv "$options.new" "$options" || {
		rm -f "$options.new"
		die "cannot write $options: without it guests are let in only by load"
	}
	say "installed: $(file_of kvm-intel); the next boot loads them, or: load"
}

do_load() {
	[ "$vendor" = kvm-intel ] || die "this CPU has no VT-x, or the firmware has it off: EPK needs" \
		"an Intel CPU with VMFUNC; nothing was changed"
	are_installed || die "the modules are not installed for $release: call install"
	if are_ours && has_kvm; then
		say "loaded already"
		return
	fi
	refuse_if_used
	check_signature
	prepare_change
	if ! unload; then
		# A VM was faster.
		load_stock || die "KVM is half unloaded and in use: shut down the VMs and call load again"
		die "KVM is in use, nothing was changed: shut down the VMs first, processes: $(users)"
	fi
	if modprobe kvm_intel epk=any && has_kvm && are_ours; then
		say "loaded: guests may use EPK"
		return
	fi
	warn "the modules with EPK are not usable here, see dmesg; going back to the kernel's own"
	signing_hint
	load_stock || die "the kernel's own KVM does not load either: look at dmesg, then boot"
	die "nothing has changed: the kernel's own KVM is loaded"
}

# index_all [DEPMOD-OPTION...]: of each kernel that there are modules of ours for.
index_all() {
	local dir status=0
	for dir in /lib/modules/*/updates; do
		dir=${dir%/updates} dir=${dir##*/}
		! has_ours "$dir" || index "$dir" "$@" || status=1
	done
	return $status
}

# Before files go: modprobe takes the kernel's own, whenever this is cut off; or, without room for that, what it took before.
prefer_stock() {
	local conf status=0
	conf=$(mktemp) && echo 'search built-in updates' >"$conf" && index_all -C "$conf" || {
		status=1
		index_all
	}
	rm -f "$conf"
	return $status
}

# remove [half]: not interrupted, as modprobe would look for what is gone.  What is whole stays where there is no room to say
# that it goes; half of it makes room by going.
remove() {
	local dir status=0
	trap '' INT TERM HUP QUIT
	if ! prefer_stock && [ "${1-}" != half ]; then
		warn "no room for another index of modules: nothing was removed"
		return 1
	fi
	if command -v dkms >/dev/null; then
		for dir in /var/lib/dkms/epk-kvm/*; do
			[ -d "$dir" ] || continue
			case ${dir##*/} in kernel-*) continue ;; esac
			dkms remove "epk-kvm/${dir##*/}" --all || status=1
		done
	fi
	rm -rf "$own" "$options" || status=1
	index "$release" || {
		warn "no room for an index of modules: make some, and call depmod -a"
		status=1
	}
	return $status
}

do_restore() {
	local loaded=
	! is_loaded kvm_intel || [ ! -e /sys/module/kvm_intel/parameters/epk ] || loaded=1
	! is_loaded kvm_amd || [ ! -e /sys/module/kvm/parameters/epk_debug ] || loaded=1
	has_epk "$(stock kvm-intel)" && die "this kernel's own KVM has EPK: boot another kernel"
	# A file that is taken away does no harm to a VM; its module would.
	[ -z "$loaded" ] || refuse_if_used
	remove || die "not all of it could be removed, call restore again"
	[ -n "$vendor" ] || { say "removed; this CPU has no KVM"; return; }
	if [ -z "$loaded" ] && is_loaded "$(echo "$vendor" | tr - _)" && has_kvm; then
		say "the kernel's own KVM is installed and loaded"
		return
	fi
	prepare_change
	load_stock || die "the kernel's own KVM does not load: look at dmesg, then boot"
	say "the kernel's own KVM is loaded again"
}

case ${1-} in
-h | --help)
	usage
	exit
	;;
install | load | restore) [ $# = 1 ] || { usage >&2; exit 2; } ;;
*) usage >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || die "$1 needs root"
for tool in modprobe modinfo depmod; do
	command -v $tool >/dev/null || die "$tool is missing: apt install kmod"
done
[ -d "$lib" ] || die "$lib is missing: modules of the kernel that runs are no longer installed; boot the newest"
find_vendor
# One at a time.
true >>/run/epk-host-modules.lock || die "cannot write to /run"
exec 9>>/run/epk-host-modules.lock
flock -n 9 || die "another call is at work"
"do_$1"
