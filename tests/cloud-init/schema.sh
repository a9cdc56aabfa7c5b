#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# schema.sh: Debian's cloud-init, unpacked and not installed, takes the user-data of qemu-configs/cloud-init/, and not with something
# wrong; the scripts are right by their shells; and the seed has on it what setup.sh asks for.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
recipe=$TOP/qemu-configs/cloud-init
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$(apt-cache policy cloud-init | sed -n 's/^ *Candidate: //p')
deb=$(with_lock debs deb_unpacked cloud-init "$version")

valid() {
	PYTHONPATH=$deb/usr/lib/python3/dist-packages /usr/bin/python3 -m cloudinit.cmd.main \
		schema --config-file "$1" >"$work/log" 2>&1
}

valid "$recipe/user-data" || fail "user-data: $(cat "$work/log")"
wrongs=(
	"s/^#cloud-config/#cloud/"
	"s/^package_update: true/package_update: sometimes/"
	"s/^  - \\[sh,.*/  - {sh: setup}/"
	"s/  mode: reboot/  mode: restart/"
	"s/^ssh_authorized_keys:/&\\n  key: value/"
	"s/\\[LABEL=CIDATA.*/LABEL=CIDATA/"
)
for wrong in "${wrongs[@]}"; do
	sed "$wrong" "$recipe/user-data" >"$work/user-data"
	! cmp -s "$recipe/user-data" "$work/user-data" || fail "nothing of $wrong"
	! valid "$work/user-data" || fail "taken with $wrong"
done
sh -n "$recipe/setup.sh" || fail "setup.sh"

mkdir "$work/debs"
for package in libepk1 libepk-dev epk-tools openssl-provider-epk; do
	: >"$work/debs/${package}_1_amd64.deb"
done
! "$recipe/make-seed.sh" "$work/debs" "$work/seed" >"$work/log" 2>&1 && grep -q 'not one epk-dkms' "$work/log" ||
	fail "a seed without the module: $(cat "$work/log")"
[ ! -e "$work/seed" ] || fail "there is a seed without the module"
: >"$work/debs/epk-dkms_1_all.deb"
"$recipe/make-seed.sh" "$work/debs" "$work/seed" || fail "no seed"
for file in user-data meta-data setup.sh epk-dkms_1_all.deb openssl-provider-epk_1_amd64.deb; do
	mdir -b -i "$work/seed" "::$file" >/dev/null 2>&1 || fail "no $file on the seed"
done

[ $failed = 0 ] && echo "schema: the recipe is right, and nothing wrong is taken"
exit $failed
