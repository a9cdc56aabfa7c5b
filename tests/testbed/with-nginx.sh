#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# with-nginx.sh COMMAND...: run it with NGINX_BIN, which is this machine's nginx or else Debian's,
# unpacked into the cache and not installed: no service starts.
set -eu
. "$(dirname "$0")/lib.sh"

NGINX_BIN=$(command -v nginx || echo /usr/sbin/nginx)
[ -x "$NGINX_BIN" ] || NGINX_BIN=$(with_lock debs deb_of_apt nginx)/usr/sbin/nginx
export NGINX_BIN
exec "$@"
