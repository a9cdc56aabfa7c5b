# SPDX-License-Identifier: MIT
title="PostgreSQL, a process for each session"
processes=postgres
work="sessions reload"
port=5432
bin=/usr/lib/postgresql/15/bin
# By way of libldap; no TLS of the server's.
other=other:libgnutls.so.30

as_nobody() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }

configure() {
	mkdir "$run/data" "$run/socket"
	chown nobody:nogroup "$run/data" "$run/socket" "$run/key.pem"
	chmod 600 "$run/key.pem"
	chmod 700 "$run/data"
	as_nobody $bin/initdb -D "$run/data" --auth=trust --no-sync -U postgres >"$run/log.initdb" 2>&1
	cat >>"$run/data/postgresql.conf" <<-END
		ssl = on
		ssl_cert_file = '$run/cert.pem'
		ssl_key_file = '$run/key.pem'
		unix_socket_directories = '$run/socket'
		fsync = off
	END
}

# Not by a function, whose shell would be the process that is told to reload and to stop.
start() {
	setpriv --reuid=nobody --regid=nogroup --clear-groups $bin/postgres -D "$run/data" >"$run/log" 2>&1 &
	pid=$!
}

# Which are there when the query is.
hold() {
	clients=
	for i in $(seq $sessions); do
		OPENSSL_CONF=$stock PGSSLMAXPROTOCOLVERSION=TLSv$tls $bin/psql -qAt -U postgres \
			"host=127.0.0.1 sslmode=require" -c "select version(); select pg_sleep(3600)" \
			>"$run/said.$i" 2>&1 &
		clients="$clients $!"
	done
	await 20 all_asked
}

all_asked() {
	[ "$($bin/psql -qAt -U postgres -h "$run/socket" -c \
		"select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
		where ssl and version = 'TLSv$tls' and query like '%pg_sleep(3600)'")" = $sessions ]
}

# In order: each has its answer.
release() {
	[ "$($bin/psql -qAt -U postgres -h "$run/socket" -c \
		"select count(pg_cancel_backend(pid)) from pg_stat_ssl where ssl")" = $sessions ] || return 1
	for client in $clients; do
		wait "$client"
	done
	cat "$run"/said.* >"$run/answers"
	rm "$run"/said.*
	[ "$(grep -c "canceling statement due to user request" "$run/answers")" = $sessions ]
}

reload() { reloads HUP "received SIGHUP" "$run/log" && held; }

stop() {
	kill -INT "$pid" && await 20 is_gone "$pid" && await 10 all_gone
}
