# SPDX-License-Identifier: MIT
title="nginx, two workers"
processes=nginx
env_line="include /usr/share/openssl-provider-epk/nginx-env.conf;"
work="sessions logs_reopened reload worker_killed upgrade"

configure() {
	cat >"$run/nginx.conf" <<-END
		user nobody nogroup;
		worker_processes 2;
		pid $run/nginx.pid;
		$env_line
		error_log $run/log.error notice;
		events { worker_connections 64; }
		http {
			access_log off;
			keepalive_timeout 3600s;
			server {
				listen 4433 ssl;
				root $here/docs;
				ssl_protocols TLSv1.2 TLSv1.3;
				ssl_certificate $run/cert.pem;
				ssl_certificate_key $run/key.pem;
			}
		}
	END
}

start() {
	/usr/sbin/nginx -c "$run/nginx.conf" 2>"$run/log"
	await 10 test -s "$run/nginx.pid" && pid=$(cat "$run/nginx.pid")
}

workers() {
	for worker in $(members); do
		grep -q "^PPid:[[:space:]]*$pid$" "/proc/$worker/status" && echo "$worker"
	done
}

are_new() { # are_new OLD-WORKER...: two others have taken over
	now=$(workers)
	for old; do
		case " $(echo $now) " in *" $old "*) return 1 ;; esac
	done
	[ "$(echo "$now" | wc -l)" = 2 ]
}

logs_reopened() {
	mv "$run/log.error" "$run/log.old"
	kill -USR1 "$pid"
	await 5 test -e "$run/log.error" && held
}

reload() {
	old=$(workers)
	kill -HUP "$pid"
	# shellcheck disable=SC2086
	await 10 are_new $old && held
}

worker_killed() {
	# shellcheck disable=SC2046 # a list
	set -- $(workers)
	kill -9 "$1"
	await 10 are_new "$1" && held
}

# The program that takes over is another, with what is left of the environment.
upgrade() {
	first=$pid
	kill -USR2 "$first"
	await 10 test -e "$run/nginx.pid.oldbin" || return 1
	await 10 test -s "$run/nginx.pid" || return 1
	kill -QUIT "$first"
	await 10 is_gone "$first" && pid=$(cat "$run/nginx.pid") && held
}
