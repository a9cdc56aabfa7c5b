#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes DIR/key.pem and DIR/cert.pem: ECDSA P-256, self-signed, for localhost.
set -eu

dir=${1:?usage: make-cert.sh DIR}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
	-keyout "$dir/key.pem.new" -out "$dir/cert.pem.new" \
	-days 3650 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
	2>"$dir/cert.log" || {
	cat "$dir/cert.log" >&2
	exit 1
}
mv "$dir/key.pem.new" "$dir/key.pem"
mv "$dir/cert.pem.new" "$dir/cert.pem"
