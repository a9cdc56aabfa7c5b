# SPDX-License-Identifier: MIT
title=
processes=tls_start
work="not_enabled enabled enabled_again refused_if_it_does_not_work refused_if_something_is_in_the_way status_tells_of_a_broken_one disabled nothing_is_lost_without_the_last_line nothing_is_lost_without_room removal_disables"

configure() { cp /etc/ssl/openssl.cnf "$run/was"; }
start() { unset OPENSSL_CONF; }
ready() { true; }
stop() { true; }

same() { cmp -s /etc/ssl/openssl.cnf "$run/was"; }
says() { # says STATUS COMMAND
	epk-tls-setup "$2" >"$run/said" 2>&1
	said=$?
	[ $said = "$1" ] && return
	cat "$run/said" >&2
	return 1
}

not_enabled() { says 1 status && same; }
enabled() {
	chmod 640 /etc/ssl/openssl.cnf
	says 0 enable && says 0 status && ! same && openssl list -cipher-algorithms | grep -q '@ EPK$' &&
		[ "$(ls -l /etc/ssl/openssl.cnf | cut -c 1-10)" = -rw-r----- ]
}
enabled_again() { cp /etc/ssl/openssl.cnf "$run/enabled" && says 0 enable && cmp /etc/ssl/openssl.cnf "$run/enabled"; }
status_tells_of_a_broken_one() {
	says 0 enable && sed -i.kept 's/^backend = .*/backend = nonsense/' $conf && says 2 status && mv $conf.kept $conf &&
		says 0 status && says 0 disable
}
disabled() { says 0 enable && says 0 disable && same && says 1 status; }

refused_if_it_does_not_work() {
	says 0 disable && sed -i.kept 's/^backend = .*/backend = nonsense/' $conf && says 2 enable && same &&
		mv $conf.kept $conf && ls /etc/ssl/openssl.cnf.* 2>/dev/null && return 1
	# Works, and not with the provider.
	mv $conf $conf.kept && : >$conf && says 2 enable && same && mv $conf.kept $conf
}

refused_if_something_is_in_the_way() {
	sed -i 's/^\[openssl_init\]/&\nproviders = some/' /etc/ssl/openssl.cnf
	says 2 enable && grep -q "sets providers for OpenSSL" "$run/said"
	refused=$?
	cp "$run/was" /etc/ssl/openssl.cnf
	return $refused
}

none_left() { ! ls /etc/ssl/openssl.cnf.?????? 2>/dev/null; }

nothing_is_lost_without_the_last_line() {
	says 0 enable && sed -i '/^# epk-tls-setup: end$/d' /etc/ssl/openssl.cnf &&
		cp /etc/ssl/openssl.cnf "$run/broken" && says 2 disable && cmp /etc/ssl/openssl.cnf "$run/broken" && none_left
	lost=$?
	cp "$run/was" /etc/ssl/openssl.cnf
	return $lost
}

# As on a filesystem that is full.
nothing_is_lost_without_room() {
	says 0 enable && cp /etc/ssl/openssl.cnf "$run/enabled" || return
	(ulimit -f 0 && epk-tls-setup disable) 2>&1 | cat >"$run/said"
	cmp /etc/ssl/openssl.cnf "$run/enabled" && none_left && says 0 disable || return
	(ulimit -f 0 && epk-tls-setup enable) 2>&1 | cat >"$run/said"
	same && none_left
}

# Its script of the package.
removal_disables() {
	says 0 enable && sh "$dir/openssl-provider-epk.prerm" upgrade && says 0 status &&
		sh "$dir/openssl-provider-epk.prerm" remove >&2 && same
}
