# SPDX-License-Identifier: MIT
title="stunnel, with a heap of its own, in a chroot"
processes=stunnel
work="sessions chrooted reload"

configure() {
	mkdir -p "$run/empty/log"
	chmod 777 "$run/empty/log"
	cat >"$run/stunnel.conf" <<-END
		foreground = yes
		syslog = no
		output = /log/stunnel
		setuid = nobody
		setgid = nogroup
		chroot = $run/empty
		pid =
		[https]
		accept = 127.0.0.1:4433
		connect = 127.0.0.1:8080
		cert = $run/both.pem
	END
	# By the same names in the chroot: it reads them again.
	mkdir -p "$run/empty$run"
	cp "$run/stunnel.conf" "$run/both.pem" "$run/empty$run"
}

start() {
	OPENSSL_CONF=$stock /usr/bin/python3 "$dir/plain.py" "$here/docs" 8080 >"$run/log.plain" 2>&1 &
	behind=$!
	await 10 listens 8080
	stunnel "$run/stunnel.conf" >"$run/log" 2>&1 &
	pid=$!
}

chrooted() { [ "$(readlink "/proc/$pid/root")" = "$run/empty" ]; }

reload() {
	kill -HUP "$pid"
	await 5 eval '[ "$(grep -c "Configuration successful" "$run/empty/log/stunnel")" -gt 0 ]' && held
}

stop() {
	kill "$pid" "$behind"
	wait "$pid"
	wait "$behind"
	true
}
