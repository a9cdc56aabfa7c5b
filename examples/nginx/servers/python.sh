# SPDX-License-Identifier: MIT
title="Python's ssl, with threads"
processes=python3
work="sessions fork"

configure() { :; }

start() {
	/usr/bin/python3 "$dir/plain.py" "$here/docs" 4433 "$run/cert.pem" "$run/key.pem" >"$run/log" 2>&1 &
	pid=$!
}

is_other() { [ "$(members)" ] && ! members | grep -qx "$pid"; }

# Its child goes on in its place.
fork() {
	kill -USR1 "$pid"
	wait "$pid"
	await 10 is_other || return
	pid=$(members)
	held
}
