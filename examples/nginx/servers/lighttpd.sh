# SPDX-License-Identifier: MIT
title="lighttpd, two workers, in a chroot"
processes=lighttpd
work="sessions chrooted logs_reopened"
notes="Forks its workers in the chroot: these need a /dev/epk there that they may open"

configure() {
	mkdir -p "$run/root/epk" "$run/root/log" "$run/root/var/tmp"
	cp -r "$here/docs" "$run/root/epk"
	if [ -e /dev/epk ]; then
		mkdir "$run/root/dev"
		cp -a /dev/epk "$run/root/dev"
		chmod 666 "$run/root/dev/epk"
	fi
	chmod 777 "$run/root/log"
	cat >"$run/lighttpd.conf" <<-END
		# No more than is here.
		server.compat-module-load = "disable"
		server.modules = ( "mod_staticfile", "mod_openssl" )
		server.document-root = "/epk/docs"
		server.port = 4433
		server.chroot = "$run/root"
		server.username = "nobody"
		server.groupname = "nogroup"
		server.errorlog = "/log/error"
		server.max-worker = 2
		server.max-keep-alive-idle = 3600
		server.max-keep-alive-requests = 1000
		ssl.engine = "enable"
		ssl.pemfile = "$run/site.pem"
	END
}

start() {
	lighttpd -D -f "$run/lighttpd.conf" >"$run/log" 2>&1 &
	pid=$!
}

# shellcheck disable=SC2046
chrooted() { all_in "$run/root" $(members); }

logs_reopened() {
	mv "$run/root/log/error" "$run/log.old"
	kill -HUP "$pid"
	await 5 test -e "$run/root/log/error" && held
}
