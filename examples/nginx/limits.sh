#!/bin/sh
# SPDX-License-Identifier: MIT
# How many sessions a worker without rights has at a time, with Debian's limit of locked memory
# and with the one that the provider's message asks for.  As root.
#
#	limits.sh [EPK-CHECK] BACKEND...

dir=$(cd "$(dirname "$0")" && pwd)
modules=/usr/lib/x86_64-linux-gnu/ossl-modules
if [ -e "$dir/openssl.cnf" ]; then
	shipped=$dir/openssl.cnf provider=$dir/epk.so
else
	shipped=/etc/ssl/openssl-epk.cnf provider=$modules/epk.so
fi
# It is to say the same.
check=
case $1 in
*/epk-check)
	check=$1
	shift
	;;
esac
config=$(mktemp) || exit 1
trap 'rm -f "$config"' EXIT
trap 'exit 1' HUP INT TERM PIPE

[ $# -gt 0 ] || exit 2
for backend; do
	# The clients, which are in the same process, are OpenSSL's own.
	sed "s|$modules/epk.so|$provider|; s|^backend = .*|backend = $backend|; s|^#allow = CBC|allow = CONTEXTS|" \
		"$shipped" >"$config"
	limit=none
	[ "$backend" != epk ] || limit=limit
	echo "limits: backend $backend"
	OPENSSL_CONF=$config "$dir/worker_limit" $limit "$dir/cert.pem" "$dir/key.pem" $check || exit
done
