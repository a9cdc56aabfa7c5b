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
		setuid = 65534
		setgid = 65534
		chroot = $run/empty
		pid =
		[https]
		accept = 127.0.0.1:4433
		connect = 127.0.0.1:8080
		cert = $run/site.pem
	END
	# By the same names in the chroot, where it reads them again and has no /etc/passwd.
	mkdir -p "$run/empty$run"
	cp "$run/stunnel.conf" "$run/site.pem" "$run/empty$run"
}

start() {
	OPENSSL_CONF=$stock /usr/bin/python3 "$dir/plain.py" "$here/docs" 8080 >"$run/log.plain" 2>&1 &
	behind=$!
	await 10 listens 8080
	stunnel "$run/stunnel.conf" >"$run/log" 2>&1 &
	pid=$!
}

chrooted() { all_in "$run/empty" "$pid"; }

reload() { reloads HUP "Configuration successful" "$run/empty/log/stunnel" && held; }

stop() {
	kill "$pid" "$behind" && await 20 is_gone "$pid" && await 10 is_gone "$behind" && await 10 all_gone
}
