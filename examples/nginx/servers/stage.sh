#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# stage.sh STAGE: what the programs are run with, as in the guest: see guest-files.list.  The provider and
# the library are where packages put them.
set -eu
stage=$1
top=$(cd "$(dirname "$0")/../../.." && pwd)
cd "$top/examples/nginx"
make -s all build/tls_start build/tls_start_static
make -s install DESTDIR="$stage" PREFIX=/usr >/dev/null
mkdir -p "$stage/usr/lib/x86_64-linux-gnu" "$stage/epk/nginx" "$stage/epk/servers"
cp -L "$top/guest-lib/build/libepk.so.1" "$stage/usr/lib/x86_64-linux-gnu"
cp -r build/tls_fetch build/tls_start build/tls_start_static build/cert.pem build/key.pem build/docs \
	"$stage/epk/nginx"
cp servers/*.sh servers/*.py servers/*.js "$top/guest-lib/packaging/debian/openssl-provider-epk.prerm" \
	"$stage/epk/servers"
