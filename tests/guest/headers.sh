#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# headers.sh: build the guest module as DKMS does, against the headers of each of Debian's
# kernels that is installed here: 6.1, its cloud flavour, and 6.12.  No warning is allowed,
# sparse's neither.
# And see that kernels which it is not for are refused, with the reason.
# Not again where it has passed with the same sources, headers and tools.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
top=$TOP
work=$(mktemp -d)
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$top/guest-kmod/packaging/dkms.conf")
trap 'rm -rf "$work"' EXIT

build() {
	local name=$1 log=$work/log module
	rm -rf "$work/dkms" "$work/modules"
	mkdir "$work/dkms" "$work/modules"
	# The trees are our own, so that nothing is installed on this machine.
	if ! dkms build "epk/$version" -k "$name" --sourcetree "$work/usr/src" --dkmstree "$work/dkms" \
		--installtree "$work/modules" --kernelsourcedir "/usr/src/linux-headers-$name" \
		>"$log" 2>&1; then
		cat "$log" "$work/dkms/epk/$version/build/make.log" 2>/dev/null || :
		fail "$name: the build failed"
		return
	fi
	find "$work/dkms" -name make.log -exec cat {} + >"$log"
	if grep -i 'warning' "$log"; then
		fail "$name: the build warns"
	fi
	module=$(find "$work/dkms" -path '*/module/epk.ko*' | head -n 1)
	if [ -z "$module" ]; then
		fail "$name: no module"
	elif ! modinfo -F signer "$module" | grep -q DKMS; then
		fail "$name: DKMS has not signed the module: no Secure Boot would load it"
	fi
	case $name in
	*cloud*) ;;	# as the other 6.1
	*) check_sparse "$name" ;;
	esac
	echo "headers: $name: built"
}

# What no compiler sees: addresses of user mode that are used as the kernel's, and the like.
check_sparse() {
	local name=$1 tree=$work/sparse
	rm -rf "$tree"
	cp -r "$work/usr/src/epk-$version" "$tree"
	make -C "/usr/src/linux-headers-$name" M="$tree" C=2 >"$work/log" 2>&1 </dev/null ||
		fail "$name: make C=2 fails"
	if grep -E '(warning|error):' "$work/log"; then
		fail "$name: sparse has something to say"
	fi
	grep -q '^  CHECK ' "$work/log" || fail "$name: where is sparse?"
}

# What check-kernel.sh says of a kernel is what is wanted, and no more: refused TEXT ARGUMENT...
refused() {
	local want=$1
	shift
	if sh "$top/guest-kmod/check-kernel.sh" "$@" >"$work/log" 2>&1; then
		fail "not refused: $want"
	elif [ "$(grep -v 'to build it all the same' "$work/log" | grep -cvF "$want")" != 0 ] ||
		! grep -qF "$want" "$work/log"; then
		cat "$work/log"
		fail "refused, but not for: $want"
	fi
	sh "$top/guest-kmod/check-kernel.sh" "$@" y 2>/dev/null || fail "always refused: $want"
}

# Another version, headers that changed, and options that are missing.
refusals() {
	local dir=$1 source other header option count=0
	local config=$dir/include/config/auto.conf fake=$work/fake
	source=$(sed -n 's/^include \(.*\)\/Makefile$/\1/p' "$dir/Makefile")
	for other in '6 11' '6 13' '7 0' '5 10'; do
		# shellcheck disable=SC2086
		refused "Linux ${other/ /.} is none of those" $other "$source" "$config"
	done
	rm -rf "$fake"
	mkdir "$fake"
	sed -n 's/^\([a-z0-9_/]*\.h\)@.*/\1/p' "$top/guest-kmod/check-kernel.sh" | sort -u >"$work/list"
	(cd "$source" && xargs cp --parents -t "$fake") <"$work/list"
	while read -r header; do
		echo 'mm_id_mapcount_t _mm_id_mapcount[2];' >"$fake/$header"
		refused "in $header" 6 12 "$fake" "$config"
		cp "$source/$header" "$fake/$header"
		count=$((count + 1))
	done <"$work/list"
	for option in X86_64 PREEMPT_NOTIFIERS FUNCTION_TRACER DYNAMIC_FTRACE KPROBES; do
		grep -v "^CONFIG_$option=" "$config" >"$work/auto.conf"
		refused "lacks $option: " 6 12 "$source" "$work/auto.conf"
	done
	[ "$count" -ge 10 ] || fail "only $count headers looked at"

	# The build asks, too, and says it once.
	if make -C "$work/usr/src/epk-$version" KDIR="$dir" PATCHLEVEL=13 all \
		>"$work/log" 2>&1; then
		fail "built for Linux 6.13"
	elif [ "$(grep -c 'Linux 6.13 is none of those' "$work/log")" != 1 ]; then
		cat "$work/log"
		fail "the build for Linux 6.13 failed otherwise"
	fi
}

[ -x "$(command -v dkms)" ] || { echo "headers: dkms is missing"; exit 1; }
make -s -C "$top/guest-kmod" DESTDIR="$work" install-source install-config
for file in udev/rules.d/70-epk.rules sysusers.d/epk.conf modules-load.d/epk.conf \
	modprobe.d/epk.conf; do
	[ -s "$work/usr/lib/$file" ] || fail "$file is not installed"
done

mapfile -t files < <(find "$work/usr" -type f | sort)
key=$(content_key "$(dpkg-query -W 'linux-headers-*' 'linux-kbuild-*' 'gcc-*' dkms sparse make binutils)" "${files[*]#"$work"}" \
	-- "${files[@]}" "$top/guest-kmod/check-kernel.sh" "$0")
passed=$EPK_CACHE/headers/$key
if [ $failed = 0 ] && [ -f "$passed" ]; then
	echo "headers: passed before"
	exit
fi

count=0
for dir in /usr/src/linux-headers-*amd64; do
	[ -e "$dir/Makefile" ] || continue
	build "${dir#/usr/src/linux-headers-}"
	count=$((count + 1))
done
for want in 6.1.0-[0-9]*-amd64 6.1.0-*-cloud-amd64 '6.12.*-amd64'; do
	# shellcheck disable=SC2086
	ls -d /usr/src/linux-headers-$want >/dev/null 2>&1 || fail "no headers of $want here"
done
[ "$count" -gt 0 ] || fail "no kernel headers here"
refusals "$(find /usr/src -maxdepth 1 -name 'linux-headers-6.12.*-amd64' | sort -V | tail -n 1)"
[ $failed = 0 ] || exit 1
mkdir -p "${passed%/*}"
touch "$passed"
echo "headers: $count kernels, all built"
