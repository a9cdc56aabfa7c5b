#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the document tree: files of random bytes, the same ones everywhere.
# They are the key stream of a cipher under a fixed key; the checksums are
# checked, so that no file is ever short or from another version.
set -eu

dir=${1:?usage: make-docs.sh DIR CHECKSUMS}
sums=$(realpath "${2:?usage: make-docs.sh DIR CHECKSUMS}")
key=65706b2d646f63756d656e742d747265

mkdir -p "$dir"
n=0
for kib in 1 4 16 64 256 1024; do
	n=$((n + 1))
	head -c $((kib * 1024)) /dev/zero |
		openssl enc -aes-128-ctr -K $key -iv "$(printf '%032x' $n)" \
			>"$dir/$kib.bin"
done
cd "$dir"
sha256sum --quiet --strict --check "$sums"
cp "$sums" SHA256SUMS
