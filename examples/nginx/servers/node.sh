# SPDX-License-Identifier: MIT
title="node, Debian's, with --openssl-shared-config"
processes="node"
work="sessions without_the_option_it_is_seen"

configure() { :; }

start() {
	node --openssl-shared-config "$dir/https.js" "$here/docs" 4433 "$run/cert.pem" "$run/key.pem" >"$run/log" 2>&1 &
	pid=$!
}

# It has its own name for what it reads in the file.
without_the_option_it_is_seen() {
	node "$dir/https.js" "$here/docs" 4434 "$run/cert.pem" "$run/key.pem" >"$run/log.without" 2>&1 &
	without=$!
	await 20 listens 4434
	epk-tls-check "$without" >"$run/seen"
	seen=$?
	kill "$without"
	[ $seen = 1 ] && grep -q "^	no-provider:" "$run/seen"
}
