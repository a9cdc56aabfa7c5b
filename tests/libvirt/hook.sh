#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# hook.sh: Debian's libvirt asks epk-host's hook, on made-up hosts, before a domain moves, starts or is restored there; what
# it refuses has not been stopped where it runs.  The guest, in QEMU's own emulation, is firmware that finds nothing to boot.
# Needs root.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
here=$TOP/tests/libvirt

if [ "${1-}" != --inside ]; then
	make -s -C "$here"
	make -s -C "$TOP/kvm-patches/host"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	chmod 755 "$work"
	"$here/daemon.sh" "$0" --inside "$work"
	exit
fi
work=$2
there=$work/there
export LIBVIRT_DEFAULT_URI=qemu:///system
uri="qemu+unix:///system?socket=$there/run/libvirt-sock"
by=(--live --migrateuri tcp://127.0.0.1:49252 --listen-address 127.0.0.1)
space=urn:epk-on-kvm:guest:1

fail() {
	echo "hook: $*"
	tail -n 30 "$work/log" /var/log/libvirt/qemu/*.log "$there"/log/qemu/*.log "$work"/events 2>/dev/null || :
	exit 1
}

try() { virsh "$@" >>"$work/log" 2>&1 || fail "virsh $* failed"; }

# refused WORDS VIRSH-ARGUMENT...: it fails, and says so.
refused() {
	local words=$1
	shift
	! virsh "$@" >"$work/refused" 2>&1 || fail "virsh $* does not fail"
	cat "$work/refused" >>"$work/log"
	grep -qF "$words" "$work/refused" || fail "virsh $* does not say: $words"
}

# machine EPK BITS: the other host, as epk-host(8) says that one is made up.
machine() {
	local folder=$work/machine epts=0
	[ "$1" != any ] || epts=512
	mkdir -p "$folder"/{dev/cpu/0,proc/sys/kernel,sys/module/kvm_intel/parameters,sys/module/kvm/parameters}
	printf '%s\n' "00000000 0 1c 756e6547 6c65746e 49656e69" "00000001 0 0 0 20 0" "00000007 0 0 0 18 0" \
		"80000008 0 $(printf %x "$2") 0 0 0" >"$folder/dev/cpu/0/cpuid"
	printf '%s\n' "3a 5" "48b 200200000000" "48c 4004040" "491 1" >"$folder/dev/cpu/0/msr"
	printf '%s\n' "model name : Made Up" "flags : vmx pku ospke" >"$folder/proc/cpuinfo"
	echo 6.1.0-41-amd64 >"$folder/proc/sys/kernel/osrelease"
	echo "$1" >"$folder/sys/module/kvm_intel/parameters/epk"
	echo Y >"$folder/sys/module/kvm/parameters/tdp_mmu"
	printf '%s\n' "api 12" "epts $epts" >"$folder/dev/kvm"
}

# tool COMMAND: what the other host's hook calls.
tool() {
	printf '%s\n' '#!/bin/sh' "$1" >"$there/epk-host"
	chmod 755 "$there/epk-host"
}

# A second libvirtd, as on another host, which gets its first hook when it runs.
other_host() {
	mkdir -p "$there/run" "$there/log/qemu"
	unshare -m sh -e -c "
		cp -r /etc/libvirt $there/etc
		for folder in /run /var/lib/libvirt; do mount -t tmpfs -o mode=755 tmpfs \$folder; done
		mkdir -p /run/lock
		mount --bind $there/log /var/log/libvirt
		mount --bind $there/etc /etc/libvirt
		echo 'unix_sock_dir = \"$there/run\"' >>/etc/libvirt/libvirtd.conf
		echo 'host_uuid = \"4d1f2b1e-9a57-4a53-8c1e-1d0f5a3c7e11\"' >>/etc/libvirt/libvirtd.conf
		virtlogd -d --pid-file $there/virtlogd.pid
		LD_PRELOAD=$here/build/hostname.so libvirtd -d --pid-file $there/libvirtd.pid" || fail "no other libvirtd"
	try -c "$uri" version
	tool "exec $TOP/kvm-patches/host/build/epk-host --root $work/machine \"\$@\""
	mkdir -p "$there/etc/hooks/qemu.d"
	sed "s|^tool=.*|tool=$there/epk-host|" "$TOP/kvm-patches/host/libvirt-hook" >"$there/etc/hooks/qemu.d/epk"
	chmod 755 "$there/etc/hooks/qemu.d/epk"
	# As the package does it.
	kill -HUP "$(cat "$there/libvirtd.pid")"
	sleep 2
}

# It ends, and begins anew: it asks the hook about each domain that runs.
other_host_again() {
	local pid
	pid=$(cat "$there/libvirtd.pid")
	kill "$pid"
	timeout 20 tail --pid="$pid" -f /dev/null || fail "the other libvirtd does not end"
	nsenter -m -t "$(cat "$there/virtlogd.pid")" env LD_PRELOAD="$here/build/hostname.so" libvirtd -d --pid-file "$there/libvirtd.pid" ||
		fail "no other libvirtd again"
	try -c "$uri" version
}

# What happens to the domain at the source from now on.
watch() {
	[ -z "${events-}" ] || kill "$events"
	virsh event --loop --domain guest --event lifecycle >"$work/events" 2>&1 &
	events=$!
	sleep 1
}

runs_on() {
	[ "$(virsh domstate guest)" = running ] || fail "it does not run: $(virsh domstate --reason guest)"
	! grep -q lifecycle "$work/events" || fail "it was stopped"
}

# moves TO FROM
moves() {
	try -c "$2" migrate "${by[@]}" --persistent --undefinesource guest "$1"
	[ "$(virsh -c "$1" domstate guest)" = running ] || fail "it does not run where it went"
}

mark() {
	try metadata guest $space --key epk --live --config --set "<guest $1/>"
}

cat >"$work/guest.xml" <<-XML
	<domain type='qemu'>
	  <name>guest</name>
	  <metadata><epk:guest xmlns:epk='$space'/></metadata>
	  <memory unit='MiB'>64</memory>
	  <vcpu>1</vcpu>
	  <os><type arch='x86_64' machine='q35'>hvm</type></os>
	  <cpu mode='maximum'/>
	  <devices><controller type='usb' model='none'/><memballoon model='none'/></devices>
	</domain>
XML
machine any 40
other_host
try define "$work/guest.xml"
try start guest
try save guest "$work/saved"
try restore "$work/saved"
watch

refused "do not say how many EPTs and address bits" migrate "${by[@]}" guest "$uri"
mark "epts='512' address-bits='46'"
refused "its guest has 46 address bits, this host has 40" migrate "${by[@]}" guest "$uri"
machine any 46
mark "epts='512' address-bits='40'"
refused "has 40 address bits and would have 46 here" migrate "${by[@]}" guest "$uri"
mark "epts='512' address-bits='46'"
machine off 46
refused "parameter epk: off -> " migrate "${by[@]}" guest "$uri"
refused "its guest uses EPK, which this host does not give" migrate "${by[@]}" --postcopy guest "$uri"
runs_on
echo "hook: five refusals, and the source ran on"

# Neither it, nor what was saved of it, starts there; but what says nothing of EPK does.
refused "parameter epk: off -> " -c "$uri" restore "$work/saved"
refused " guest restore begin -" -c "$uri" restore "$work/saved"
# Where the XML of a restore hides it, libvirt asks again before QEMU starts.
{ echo "<!DOCTYPE domain>"; virsh save-image-dumpxml "$work/saved" | sed 's/urn:epk/urn:\&#101;pk/'; } >"$work/hidden.xml"
grep -q 'urn:&#101;pk-on-kvm' "$work/hidden.xml" || fail "it is not hidden"
refused " guest prepare begin -" -c "$uri" restore "$work/saved" --xml "$work/hidden.xml"
virsh dumpxml --inactive guest >"$work/guest.xml"
sed -i "s/>guest</>another</; /<uuid>/d" "$work/guest.xml"
try -c "$uri" define "$work/guest.xml"
refused "parameter epk: off -> " -c "$uri" start another
try -c "$uri" metadata another $space --config --remove
try -c "$uri" start another
try -c "$uri" destroy another
runs_on

machine any 46
moves "$uri" $LIBVIRT_DEFAULT_URI
grep -q Suspended "$work/events" || fail "nobody has seen it stop when it went: the events tell nothing"
echo "hook: it moves where it fits"
tool "exit 2"
other_host_again
[ "$(virsh -c "$uri" domstate guest)" = running ] || fail "libvirtd has ended it when it began anew"
tool "exec $TOP/kvm-patches/host/build/epk-host --root $work/machine \"\$@\""
echo "hook: it runs on where libvirtd begins anew and the tool is broken"
back="qemu+unix:///system?socket=/run/libvirt/libvirt-sock"
moves "$back" "$uri"
# What does not say that it uses EPK, and where nobody asks.
machine off 46
try metadata guest $space --live --config --remove
moves "$uri" $LIBVIRT_DEFAULT_URI
moves "$back" "$uri"
echo "hook: others move anywhere"
mark "epts='512' address-bits='46'"
rm "$there/etc/hooks/qemu.d/epk"
moves "$uri" $LIBVIRT_DEFAULT_URI
echo "hook: without it, so does a guest that uses EPK"
