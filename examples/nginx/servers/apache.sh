# SPDX-License-Identifier: MIT
# Of both recipes for Apache: apache_event.sh and apache_prefork.sh.
title="Apache, $mpm, in a chroot"
processes=apache2
work="sessions chrooted reload worker_killed"

configure() {
	modules=/usr/lib/apache2/modules
	# In the chroot what is outside has the same name.
	mkdir -p "$run/root$run" "$run/root$here" "$run/root/etc"
	cp -r "$here/docs" "$run/root$here"
	cat >"$run/apache.conf" <<-END
		ServerName localhost
		PidFile $run/pid
		ErrorLog $run/log.error
		User nobody
		Group nogroup
		ServerRoot /usr
		LoadModule mpm_${mpm}_module $modules/mod_mpm_$mpm.so
		LoadModule authz_core_module $modules/mod_authz_core.so
		LoadModule ssl_module $modules/mod_ssl.so
		DefaultRuntimeDir $run
		ChrootDir $run/root
		Mutex posixsem
		StartServers 2
		ServerLimit 16
		Listen 4433
		KeepAliveTimeout 3600
		MaxKeepAliveRequests 0
		DocumentRoot $here/docs
		<VirtualHost *:4433>
			SSLEngine on
			SSLCertificateFile $run/cert.pem
			SSLCertificateKeyFile $run/key.pem
		</VirtualHost>
	END
}

start() {
	# It ends all of its process group.
	setsid apache2 -D FOREGROUND -f "$run/apache.conf" >"$run/log" 2>&1 &
	pid=$!
}

workers() { members | grep -vx "$pid"; }

# shellcheck disable=SC2046
chrooted() { all_in "$run/root" $(workers); }

none_is() { # none_is OLD-WORKER...
	# shellcheck disable=SC2046 # in one line
	now=" $(echo $(workers)) "
	for old; do
		case $now in *" $old "*) return 1 ;; esac
	done
	[ "$now" != "  " ]
}

reload() {
	old=$(workers)
	kill -USR1 "$pid"
	# shellcheck disable=SC2086
	await 10 none_is $old && held
}

worker_killed() {
	old=$(workers | head -n 1)
	kill -9 "$old"
	await 10 none_is "$old" && held
}
