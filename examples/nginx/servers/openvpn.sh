# SPDX-License-Identifier: MIT
title="OpenVPN, between two ends, in a chroot"
processes=openvpn
work="sessions chrooted reload"
sessions=1
notes="Its own are those of the data channel, of which OpenVPN has copies in ordinary memory"

configure() {
	mkdir -p "$run/empty/tmp"
	chmod 777 "$run/empty/tmp"
	cat >"$run/server.conf" <<-END
		tls-server
		proto tcp-server
		local 127.0.0.1
		port 4433
		dev null
		ca $run/cert.pem
		cert $run/cert.pem
		key $run/key.pem
		dh none
		user nobody
		group nogroup
		chroot $run/empty
		cipher AES-256-GCM
		persist-key
		persist-tun
		status none
		verb 3
	END
}

start() {
	openvpn --config "$run/server.conf" >"$run/log" 2>&1 &
	pid=$!
}

# By another name, since they are not what is looked at.
hold() {
	ln -sf "$(command -v openvpn)" "$run/client"
	clients=
	for i in $(seq $sessions); do
		OPENSSL_CONF=$stock "$run/client" --tls-client --proto tcp-client --remote 127.0.0.1 4433 --dev null --nobind \
			--cipher AES-256-GCM --ca "$run/cert.pem" --cert "$run/cert.pem" --key "$run/key.pem" --verb 3 --tls-version-min $tls --tls-version-max $tls >"$run/said.$i" 2>&1 &
		clients="$clients $!"
	done
	await 20 all_greeted
}

all_greeted() {
	[ "$(cat "$run"/said.* | grep -c 'Initialization Sequence Completed')" = $sessions ] &&
		[ "$(cat "$run"/said.* | grep -c "Control Channel: TLSv$tls")" = $sessions ]
}

release() {
	for client in $clients; do
		kill "$client"
		wait "$client" 2>/dev/null
	done
	rm "$run"/said.*
	await 10 all_there 0
}

# And as many keys of the data channel, which come last.
all_there() {
	look
	[ $seen = 0 ] && [ "$nr_records" = "$1" ] && [ "$nr_contexts" = $(($1 * 2)) ]
}

chrooted() { all_in "$run/empty" "$pid"; }

# By itself it does so softly, when a client is gone; and it ignores the signal while none is there.
reload() {
	hold && reloads USR1 "SIGUSR1\[hard" "$run/log"
	restarted=$?
	release && [ $restarted = 0 ] && await 10 ready && held
}
