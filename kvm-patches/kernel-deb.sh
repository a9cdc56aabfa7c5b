#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kernel-deb.sh [OUT]: Debian packages of a whole kernel with the series, into OUT
# (build/kernel-debs): linux-source-6.1 in Debian's own configuration, without debugging
# information, named 6.1.N-epk.  Needs 15 GB and, by the rate of a small configuration, one or two
# hours of two CPUs.  A call after one that was cut off goes on where that was.  From the
# environment: LINUX=6.12 is another Linux, CONFIG=FILE another configuration, WORK=FOLDER is where
# it is built (build/kernel).
set -eu -o pipefail
# A silent make above would have nothing to count in the kernel's.
unset MAKEFLAGS MFLAGS

fail() {
	echo "kernel-deb: $*" >&2
	exit 1
}
say() { printf '%s kernel-deb: %s\n' "$(date +%T)" "$*"; }

case ${1-} in
-h | --help)
	sed -n '3,8s/^# //p' "$0"
	exit
	;;
-*) fail "unknown option: $1" ;;
esac
[ $# -le 1 ] || fail "say where to put the packages, or nothing: kernel-deb.sh [OUT]"
cd "$(dirname "$0")/.."
out=${1:-build/kernel-debs}
linux=${LINUX:-6.1}
[ -d "kvm-patches/linux-$linux" ] || fail "there is no series for Linux $linux"
config=${CONFIG:-/usr/src/linux-config-$linux/config.amd64_none_amd64.xz}
[ -z "${CONFIG:-}" ] || [ -s "$CONFIG" ] || fail "no configuration in $CONFIG"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "this is for amd64"
tests/testbed/packages.sh <(sed "s/-6\.1$/-$linux/" kvm-patches/kernel-deb.list)
[ -s "$config" ] || fail "$config is missing: apt install --reinstall linux-config-$linux"
for folder in "$out" "${WORK:-build/kernel}"; do
	mkdir -p "$folder" || fail "cannot write to $folder"
done
out=$(realpath "$out")
work=$(realpath "${WORK:-build/kernel}")
tarball=/usr/src/linux-source-$linux.tar.xz
version=$(dpkg-query -W -f '${Version}' "linux-source-$linux")
series=(kvm-patches/linux-"$linux"/00[0-9][0-9]-*.patch)
log=$work/log

# One tree for one version of the source and the series.
unpack() {
	local key patch
	key=$({ echo "$version"; cat "${series[@]}"; } | sha256sum)
	[ "$(cat "$work/key" 2>/dev/null)" != "$key" ] || return 0
	say "unpacking linux-source-$linux $version"
	rm -rf "$work/key" "$work/linux" "$work/build"
	mkdir "$work/linux"
	tar -C "$work/linux" --strip-components=1 -xf "$tarball" || fail "cannot unpack $tarball"
	for patch in "${series[@]}"; do
		case $patch in */0000-*) continue ;; esac
		patch -d "$work/linux" -p1 -F0 -s <"$patch" ||
			fail "${patch##*/} does not apply to linux-source-$linux $version"
	done
	echo "$key" >"$work/key"
}

kmake() { make -C "$work/linux" O="$work/build" -j"$(nproc)" LOCALVERSION= "$@" </dev/null; }

# The signed kernel's keys are not here to be built in, and this kernel is not for
# Secure Boot anyway, unless it is signed afterwards.
configure() {
	mkdir -p "$work/build"
	case $config in
	*.xz) xz -dc "$config" ;;
	*) cat "$config" ;;
	esac >"$work/build/.config"
	"$work/linux/scripts/config" --file "$work/build/.config" --set-str LOCALVERSION -epk \
		-d LOCALVERSION_AUTO --set-str SYSTEM_TRUSTED_KEYS "" --set-str MODULE_SIG_KEY certs/signing_key.pem \
		-d DEBUG_INFO -d DEBUG_INFO_BTF -d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE
	kmake olddefconfig >>"$log" 2>&1 || fail "the configuration cannot be used, see $log"
	grep -qE '^CONFIG_KVM_INTEL=[my]' "$work/build/.config" ||
		fail "there is no KVM_INTEL in the configuration $config"
}

# A line for each thousand files: Debian's configuration has about 25,000.
progress() {
	local steps=0
	tee -a "$log" | grep --line-buffered '^  [A-Z]' | while read -r _; do
		steps=$((steps + 1))
		[ $((steps % 1000)) != 0 ] || say "$steps steps, $(((SECONDS - start) / 60)) min"
	done
}

free=$(df --output=avail -BG "$work" | tail -n 1 | tr -dc 0-9)
[ -n "${CONFIG:-}" ] || [ "$free" -ge 15 ] || fail "$work has $free GB free, 15 are needed"
: >"$log"
unpack
configure
release=$(kmake -s kernelrelease)
say "building $release in $work, log in $log"
rm -f "$work"/*.deb
start=$SECONDS
kmake KDEB_PKGVERSION="$version+epk" KDEB_CHANGELOG_DIST=unstable bindeb-pkg 2>&1 | progress || {
	grep -B 3 -A 10 -m 3 'rror:' "$log" >&2 || tail -n 20 "$log" >&2
	fail "the build failed, see $log"
}
for package in image headers; do
	ls "$work/linux-$package-${release}_"*.deb >/dev/null || fail "no linux-$package-$release"
done
rm -f "$out"/linux-*-epk_*.deb "$out"/linux-libc-dev_*+epk_*.deb
cp -v "$work"/linux-{image,headers}-"${release}"_*.deb "$out/"
say "done in $(((SECONDS - start) / 60)) min; next: apt install $out/linux-image-${release}_*.deb, and boot it"
