# SPDX-License-Identifier: MIT
title="Dovecot, IMAP, logins in a chroot"
way=system
processes="dovecot imap-login"
work="sessions chrooted reload"
port=993

configure() {
	getent group dovecot >/dev/null || {
		echo "dovecot:x:4001:" >>/etc/group
		echo "dovenull:x:4002:" >>/etc/group
		echo "dovecot:x:4001:4001::/:/usr/sbin/nologin" >>/etc/passwd
		echo "dovenull:x:4002:4002::/:/usr/sbin/nologin" >>/etc/passwd
	}
	cat >"$run/dovecot.conf" <<-END
		protocols = imap
		base_dir = $run/base
		log_path = $run/log.dovecot
		ssl = required
		ssl_cert = <$run/site.pem
		ssl_key = <$run/site.pem
		ssl_min_protocol = TLSv1.2
		mail_location = maildir:/tmp/mail
		passdb {
			driver = static
			args = nopassword
		}
		service imap-login {
			chroot = login
			inet_listener imap {
				port = 0
			}
		}
		service stats {
			unix_listener stats-writer {
				mode = 0666
			}
		}
	END
}

start() {
	dovecot -F -c "$run/dovecot.conf" >"$run/log" 2>&1 &
	pid=$!
}

# Clients that have been greeted, and wait.
hold() {
	clients=
	rm -f "$run/go"
	mkfifo "$run/go"
	exec 3<>"$run/go"
	for i in $(seq $sessions); do
		OPENSSL_CONF=$stock openssl s_client -quiet -connect 127.0.0.1:$port -CAfile "$run/cert.pem" \
			-verify_return_error -tls"$(echo $tls | tr . _ | sed 's/1_3/1_3/')" \
			<"$run/go" >"$run/said.$i" 2>"$run/err.$i" &
		clients="$clients $!"
	done
	await 20 all_greeted
}

all_greeted() { [ "$(cat "$run"/said.* | grep -c 'OK .*ready')" = $sessions ]; }

release() {
	for client in $clients; do
		kill "$client"
		wait "$client" 2>/dev/null
	done
	exec 3>&-
	rm "$run"/said.*
}

logins() {
	for one in $(members); do
		[ "$one" = "$pid" ] || echo "$one"
	done
}

# They are there while someone logs in.
# shellcheck disable=SC2046
chrooted() {
	hold || return 1
	all_in "$run/base/login" $(logins)
	inside=$?
	release
	return $inside
}

reload() { reloads HUP "SIGHUP received" "$run/log.dovecot" && held; }
