# SPDX-License-Identifier: MIT
title="curl, a client"
processes=curl
work="sessions TLS_1_2_at_most_fails"
server=4433
# By way of libldap and librtmp; no HTTPS.
other=other:libgnutls.so.30

configure() { :; }

# What it talks to has nothing to do with the provider.
start() {
	OPENSSL_CONF=$stock /usr/bin/python3 "$dir/plain.py" "$here/docs" 4433 "$run/cert.pem" "$run/key.pem" >"$run/log" 2>&1 &
	pid=$!
	TLS_MAX=TLSv1_2 OPENSSL_CONF=$stock /usr/bin/python3 "$dir/plain.py" "$here/docs" 4434 "$run/cert.pem" "$run/key.pem" \
		>"$run/log.older" 2>&1 &
	older=$!
	await 10 listens 4434
}

stop() {
	kill "$pid" "$older" && await 10 is_gone "$pid" && await 10 is_gone "$older" && await 10 all_gone
}

sessions() {
	held && server=4434 held
}

# libssl 3.0 asks for no curve of the provider's then.
TLS_1_2_at_most_fails() {
	fetch_one && cmp "$run/got" "$here/docs/1.bin" >&2 || return 1
	! fetch_one --tls-max 1.2 && [ ! -s "$run/got" ] && grep -q "alert handshake failure" "$run/log.one"
}

fetch_one() { # fetch_one OPTION...
	curl -sS --cacert "$run/cert.pem" "$@" https://localhost:4433/1.bin >"$run/got" 2>"$run/log.one"
}

# What comes is not read to its end before "go".
hold() {
	clients=
	for i in $(seq $sessions); do
		mkfifo "$run/go.$i"
		curl -sS --cacert "$run/cert.pem" https://localhost:$server/1024.bin \
			2>>"$run/log.curl" | {
			read -r _ <"$run/go.$i"
			cat >"$run/got.$i"
		} &
		clients="$clients $!"
	done
}

release() {
	for i in $(seq $sessions); do
		echo go >"$run/go.$i"
	done
	for client in $clients; do
		wait "$client"
	done
	for i in $(seq $sessions); do
		cmp "$run/got.$i" "$here/docs/1024.bin" >&2 || return
		rm "$run/got.$i" "$run/go.$i"
	done
}
