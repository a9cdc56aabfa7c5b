#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# schema.sh: libvirt's schema takes each domain of qemu-configs/, and none of them with something wrong;
# and each requires what EPK is about.
set -eu
. "$(dirname "$0")/../testbed/lib.sh"
cd "$TOP/qemu-configs"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Each a word of sed's; what each file has.
wrongs=(
	"s/host-passthrough/host-passtrough/"
	"s/policy='require'/policy='wanted'/"
	"s/<poll-control state='on'/<poll-control state='yes'/"
	"s/<kvm>/<kvm-features>/; s/<.kvm>/<\\/kvm-features>/"
	"s/unit='[GM]iB'/unit='GiBytes'/"
	"s/<vcpu>[0-9]*</<vcpu>two</"
	"s/mode='passthrough'/mode='host'/"
	"s/bus='virtio'/bus='virtual'/"
)

for file in *.xml; do
	virt-xml-validate "$file" domain >"$work/log" 2>&1 || fail "$file: $(cat "$work/log")"
	for wrong in "${wrongs[@]}"; do
		sed "$wrong" "$file" >"$work/wrong.xml"
		! cmp -s "$file" "$work/wrong.xml" || fail "$file has nothing of $wrong"
		! virt-xml-validate "$work/wrong.xml" domain >/dev/null 2>&1 || fail "$file is taken with $wrong"
	done
	for has in "domain[@type='kvm']" "domain/cpu[@mode='host-passthrough'][@check='full']" \
		"domain/cpu/maxphysaddr[@mode='passthrough']" \
		"domain/cpu/feature[@policy='require'][@name='pku']" \
		"domain/features/kvm/poll-control[@state='on']" \
		"domain/metadata/*[local-name()='guest'][namespace-uri()='urn:epk-on-kvm:guest:1']"; do
		xmllint --xpath "/$has" "$file" >/dev/null 2>&1 || fail "$file has no $has"
	done
	[ "$(xmllint --xpath 'string(/domain/name)' "$file")" = "${file%.xml}" ] || fail "$file has another name"
done
[ "$(ls ./*.xml | wc -l)" -ge 7 ] || fail "where are the domains?"

[ $failed = 0 ] && echo "schema: all domains are right, and nothing wrong is taken"
exit $failed
