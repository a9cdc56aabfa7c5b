# SPDX-License-Identifier: MIT
title="node, Debian's, with --openssl-shared-config"
processes="node"
work="sessions"

configure() { :; }

start() {
	node --openssl-shared-config "$dir/https.js" "$here/docs" 4433 "$run/both.pem" >"$run/log" 2>&1 &
	pid=$!
}
