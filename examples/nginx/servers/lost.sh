# SPDX-License-Identifier: MIT
# Ways in which a program could lose the provider: none is silent.
title=
processes="tls_start tls_start_stati tls_start_root"
work="wrong_file_is_seen start_without_configuration_is_seen set_uid_is_seen set_uid_by_the_system own_OpenSSL_is_refused own_OpenSSL_is_seen namespace_is_refused copy_is_seen missing_include_is_seen unreadable_include_is_seen ended_leader_is_seen long_path_is_no_line sparse_file_takes_no_memory names_are_printed_plainly exception_is_seen what_cannot_be_seen_is_told"

configure() { :; }
start() { :; }
ready() { true; }
stop() { true; }

as_nobody() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }

# What is found of a program while it runs.
found() { # found COMMAND...: in $run/seen; false if the program does not start
	rm -f "$run/go"
	mkfifo "$run/go"
	"$@" <"$run/go" >"$run/said" 2>"$run/log" &
	exec 3>"$run/go"
	program=$!
	await 5 eval 'grep -q started "$run/said" || is_gone $program'
	grep -q started "$run/said"
	started=$?
	look
	exec 3>&-
	wait $program
	return $started
}

finds() { # finds FINDING COMMAND...
	finding=$1
	shift
	found "$@" && [ $seen = 1 ] && grep -q "^	$finding:" "$run/seen"
}

wrong_file_is_seen() {
	OPENSSL_CONF=/not/there finds no-provider "$here/tls_start"
}

start_without_configuration_is_seen() {
	finds no-provider "$here/tls_start" --no-config
}

# OpenSSL does not go by the environment of one.
set_uid_is_seen() {
	cp "$here/tls_start" /usr/bin/tls_start_root
	chmod 4755 /usr/bin/tls_start_root
	finds no-provider as_nobody /usr/bin/tls_start_root
}

set_uid_by_the_system() {
	epk-tls-setup enable >&2
	found as_nobody /usr/bin/tls_start_root && [ $seen = 0 ] && [ "$nr_sessions" = 1 ]
	works=$?
	epk-tls-setup disable >&2
	return $works
}

own_OpenSSL_is_refused() {
	found "$here/tls_start_static" && return 1
	grep -q "has an OpenSSL of its own, which is refused" "$run/log"
}

own_OpenSSL_is_seen() {
	OPENSSL_CONF=$stock finds other:tls_start_static "$here/tls_start_static"
}

# By dlmopen().
namespace_is_refused() {
	found "$here/tls_start" --namespace && return 1
	grep -q "has an OpenSSL in a namespace of its own, which is refused" "$run/log"
}

copy_is_seen() {
	finds several-copies "$here/tls_start" --namespace-no-config
}

exception_is_seen() {
	sed "s|^except = .*|except = /usr/bin/other, $here/tls_start|" $conf >"$run/except.cnf"
	OPENSSL_CONF=$run/except.cnf finds exempt "$here/tls_start"
}

what_cannot_be_seen_is_told() {
	sleep 60 &
	as_nobody epk-tls-check $! >"$run/seen" 2>&1
	hidden=$?
	epk-tls-check $! >"$run/seen" 2>&1
	shown=$?
	kill $!
	epk-tls-check 4194304 >"$run/seen" 2>&1
	[ "$hidden $shown $?" = "2 0 2" ]
}

include() { # include FILE: in what OpenSSL reads then
	printf '.include = %s\n' "$1" | cat - /etc/ssl/openssl.cnf >"$run/including.cnf"
}

missing_include_is_seen() {
	include /not/there.cnf
	OPENSSL_CONF=$run/including.cnf finds no-provider "$here/tls_start"
}

unreadable_include_is_seen() {
	cp $conf "$run/closed.cnf"
	chmod 600 "$run/closed.cnf"
	include "$run/closed.cnf"
	OPENSSL_CONF=$run/including.cnf finds no-provider as_nobody "$here/tls_start"
}

# All of its memory is then that of its other thread.
ended_leader_is_seen() { OPENSSL_CONF=/not/there finds no-provider "$here/tls_start" --leader-ends; }

# A path that goes on, where a line's buffer would end, as a line of its own that names a FIFO.
long_path_is_no_line() {
	mkfifo "$run/trap"
	/usr/bin/python3 "$dir/long_path.py" "$run" "$run/trap" >"$run/long" 2>&1 &
	long=$!
	await 10 grep -q ready "$run/long" || return 1
	epk-tls-check $long >"$run/seen" 2>&1
	seen=$?
	kill $long
	[ $seen = 2 ] && ! grep -q opened "$run/long"
}

sparse_file_takes_no_memory() {
	/usr/bin/python3 -c 'import mmap, os, time
fd = os.memfd_create("sparse")
os.ftruncate(fd, 64 << 20)
mapped = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
print("ready", fd, flush=True)
time.sleep(60)' >"$run/sparse" &
	sparse=$!
	await 10 grep -q ready "$run/sparse" || return 1
	epk-tls-check $sparse >"$run/seen" 2>&1
	taken=$(stat -L -c %b "/proc/$sparse/fd/$(cut -d " " -f 2 "$run/sparse")")
	kill $sparse
	[ "$taken" = 0 ]
}

names_are_printed_plainly() (
	cp "$here/tls_start" "$run/$(printf 'a\033[2Jb')"
	processes=$(printf 'a\033[2Jb')
	OPENSSL_CONF=/not/there finds no-provider "$run/$processes" && grep -q ' a\\x1b\[2Jb: UNPROTECTED' "$run/seen"
)
