# SPDX-License-Identifier: MIT
title="haproxy, four threads, in a chroot"
processes=haproxy
work="sessions chrooted reload_by_exec"

configure() {
	mkdir -p "$run/empty"
	cat >"$run/haproxy.cfg" <<-END
		global
			nbthread 4
			user nobody
			group nogroup
			chroot $run/empty
			tune.bufsize 32768
		defaults
			mode http
			timeout client 1h
			timeout server 1h
			timeout connect 1h
			timeout http-keep-alive 1h
		frontend f
			bind :4433 ssl crt $run/site.pem
			http-request return status 200 content-type application/octet-stream file $here/docs/1.bin
	END
}

start() {
	haproxy -W -p "$run/pid" -f "$run/haproxy.cfg" >"$run/log" 2>&1 &
	pid=$!
}

workers() { members | grep -vx "$pid"; }

# All that serve.
# shellcheck disable=SC2046
chrooted() { all_in "$run/empty" $(workers); }

is_other() { # is_other OLD: one has taken its place
	now=$(workers) && [ "$now" != "$1" ] && [ "$(echo "$now" | wc -l)" = 1 ]
}

# The master runs its program anew.
reload_by_exec() {
	old=$(workers)
	kill -USR2 "$pid"
	await 10 is_other "$old" && held
}
