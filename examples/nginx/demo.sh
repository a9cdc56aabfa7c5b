#!/bin/sh
# SPDX-License-Identifier: MIT
# NGINX with each TLS record key in a memory domain of its own, and an attacker
# inside the worker who tries to read them.  Runs as root where nginx, libepk
# and the files of guest-files.list are; busybox suffices as a shell.
#
#	demo.sh [small]
#
# With "small" all sessions fetch files up to 256 KiB only, and a few the largest one; the contrast is left out,
# which the demo and a machine without EPK show.
# Exit status: 0 if every byte was served right and the leak test had the
# outcome that it must have.  Environment:
#
#	BACKENDS	default "epk none": the second is the contrast; "epk" with "small"
#	SESSIONS	default 64, in the main round
#	NGINX_BIN	default /usr/sbin/nginx

dir=$(cd "$(dirname "$0")" && pwd)
small=${1-}
[ "$small" = small ] && contrast= || contrast=" none"
BACKENDS=${BACKENDS:-epk$contrast}
SESSIONS=${SESSIONS:-64}
SHORT_SESSIONS=16
# The domains in which secrets are wrapped, and with the certificate's key: one each a process.
VAULT=2
NGINX_BIN=${NGINX_BIN:-/usr/sbin/nginx}
FILES="1.bin 4.bin 16.bin 64.bin 256.bin"
LARGEST=1024.bin
[ "$small" = small ] || FILES="$FILES $LARGEST"
SHORT_FILES="1.bin 16.bin 64.bin"
SUITES="1.2,ECDHE-ECDSA-AES128-GCM-SHA256
1.2,ECDHE-ECDSA-AES256-GCM-SHA384
1.2,ECDHE-ECDSA-CHACHA20-POLY1305
1.3,TLS_AES_128_GCM_SHA256
1.3,TLS_CHACHA20_POLY1305_SHA256"
# Slow where there is no instruction for them, and few.
RARE_SESSIONS=4
RARE_SUITES="1.2,ECDHE-ECDSA-AES256-SHA384
1.2,ECDHE-ECDSA-AES256-CCM
1.2,ECDHE-ECDSA-CAMELLIA128-SHA256
1.2,ECDHE-ECDSA-ARIA256-GCM-SHA384"
MAIN_TLS=1.3
MAIN_CIPHER=TLS_AES_256_GCM_SHA384

# The provider beside this script; else as it is installed.
modules=/usr/lib/x86_64-linux-gnu/ossl-modules
if [ -e "$dir/openssl.cnf" ]; then
	shipped=$dir/openssl.cnf provider=$dir/epk.so
else
	shipped=/etc/ssl/openssl-epk.cnf provider=$modules/epk.so
fi

run=$dir/run
sock=$run/agent
nginx_pid=
failed=0
passed=0

fetch_pid=

# However this ends, nothing that it started goes on.
cleanup() {
	[ -z "$fetch_pid" ] || kill $fetch_pid
	[ -z "$nginx_pid" ] || kill $nginx_pid
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM PIPE

say() {
	echo "nginx: $*"
}

check() { # check WHAT COMMAND...: the command must succeed
	what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		say "FAIL: $what"
	fi
}

value() { # value NAME FILE: of a line NAME=VALUE
	sed -n "s/^$1=//p" "$2"
}

ask() { # ask COMMAND FILE
	"$dir/worker_ask" "$sock" "$1" >"$2"
}

start_nginx() { # start_nginx BACKEND, or "stock": without the provider
	rm -rf "$run"
	mkdir -p "$run"
	mkfifo "$run/go" "$run/said"
	# For the suites that have CBC.
	sed "s|$modules/epk.so|$provider|; s|^backend = .*|backend = $1|; s|^#allow = CBC|allow = CBC|" "$shipped" >"$run/openssl.cnf"
	config=$run/openssl.cnf
	[ "$1" != stock ] || config=/dev/null
	OPENSSL_CONF=$config EPK_AGENT_SOCKET=$sock LD_PRELOAD=$dir/leak_agent.so \
		"$NGINX_BIN" -p "$dir" -c "$dir/nginx.conf" -e stderr 2>"$run/log" &
	nginx_pid=$!
	# The agent's socket appears in the worker, after nginx has its port.
	until "$dir/worker_ask" "$sock" counts >/dev/null 2>&1; do
		if ! kill -0 $nginx_pid 2>/dev/null; then
			say "FAIL: nginx did not start:"
			head -n 5 "$run/log"
			nginx_pid=
			return 1
		fi
		sleep 0.05
	done
}

stop_nginx() {
	kill -QUIT $nginx_pid
	wait $nginx_pid
	status=$?
	nginx_pid=
	check "nginx ended with status $status" [ $status = 0 ]
	grep -E '\[(warn|error|crit|alert|emerg)\]' "$run/log" | head -n 5 >"$run/errors"
	check "nginx logged errors" [ ! -s "$run/errors" ]
	cat "$run/errors"
}

fetch() { # fetch SESSIONS TLS CIPHER OPTION-OR-FILE...
	sessions=$1 tls=$2 cipher=$3
	shift 3
	"$dir/tls_fetch" --connections "$sessions" --tls "$tls" --cipher "$cipher" \
		--dir "$dir/docs" --ca "$dir/cert.pem" "$@"
}

# Reads what tls_fetch says up to "holding"; false if it ends before.
await_holding() {
	while read -r line <&4; do
		case $line in
		holding*) return 0 ;;
		*) say "$line" ;;
		esac
	done
	return 1
}

report_counts() { # report_counts: of $run/before and $run/after
	say "sessions $SESSIONS, domains $(value domains "$run/after")," \
		"EPTs in use $(value epts "$run/after")"
	ask keyed "$run/keyed"
	check "a domain with keys for each session, the vault, the certificate's key" \
		[ "$(value keyed "$run/keyed")" = $((SESSIONS + VAULT)) ]
	# Two more were used while a ticket was sealed and a key was exchanged.
	check "no more domains than were needed at a time" \
		[ "$(value domains "$run/after")" -le $((SESSIONS + VAULT + 2)) ]
	check "domains are used again: as many as before the files were fetched" \
		[ "$(value domains "$run/after")" = "$(value domains "$run/before")" ]
	[ "$1" = epk ] || return
	exits=$(($(value vm_exits "$run/after") - $(value vm_exits "$run/before")))
	switches=$(($(value ept_switches "$run/after") - $(value ept_switches "$run/before")))
	say "after warm-up, while all files were fetched: $switches EPT switches (VMFUNC)," \
		"$exits VM exits caused by EPK"
	check "EPTs were switched" [ $switches -gt 0 ]
	check "several EPTs are in use" [ "$(value epts "$run/after")" -gt 1 ]
	check "no VM exit was caused by EPK" [ $exits = 0 ]
}

# The counter that showed no exit before must have seen the attack.
report_faults() {
	ask counts "$run/attacked"
	faults=$(($(value vm_faults "$run/attacked") - $(value vm_faults "$run/after")))
	say "over-reads that were stopped by an EPT, each a VM exit: $faults"
	check "over-reads into other EPTs are counted" [ $faults -gt 0 ]
}

leak_test() { # leak_test BACKEND
	if ! ask leak "$run/leak"; then
		check "the leak test ended: $(cat "$run/leak")" false
		return
	fi
	keys=$(value keys "$run/leak")
	say "$1: read $(value bare_read "$run/leak") of $keys keys with no domain held" \
		"($(value bare_nonzero_bytes "$run/leak") bytes of key state)"
	say "$1: with one key's domain held, each in turn: read $(value pairs_read "$run/leak")" \
		"of $(value pairs "$run/leak") others, and its own $(value own_read "$run/leak")" \
		"of $keys times"
	say "$1: over-reads stopped by protection key or EPT:" \
		"$(value faults_pkey "$run/leak"), otherwise: $(value faults_other "$run/leak")"
	check "a domain with keys for each session, the vault's, the certificate's" [ "$keys" = $((SESSIONS + VAULT)) ]
	check "each key can be read with its domain" \
		[ "$(value own_read "$run/leak")" = "$keys" ]
	check "each pair was tried" [ "$(value pairs "$run/leak")" = $((keys * (keys - 1))) ]
	check "nothing but protection stops a read" [ "$(value faults_other "$run/leak")" = 0 ]
	expect_all=0
	[ "$1" = none ] && expect_all=1
	check "keys read with no domain held" \
		[ "$(value bare_read "$run/leak")" = $((keys * expect_all)) ]
	check "keys read with another domain held" \
		[ "$(value pairs_read "$run/leak")" = $((keys * (keys - 1) * expect_all)) ]
}

main_round() { # main_round BACKEND FILES
	fetch $SESSIONS $MAIN_TLS $MAIN_CIPHER --hold $2 <"$run/go" >"$run/said" &
	fetch_pid=$!
	exec 3>"$run/go" 4<"$run/said"
	if await_holding && ask counts "$run/before" && echo fetch >&3 && await_holding &&
		ask counts "$run/after"; then
		check "backend is $(value backend "$run/after")" \
			[ "$(value backend "$run/after")" = "$1" ]
		report_counts "$1"
		leak_test "$1"
		[ "$1" != epk ] || report_faults
	else
		check "the sessions could be held" false
	fi
	exec 3>&-
	while read -r line <&4; do
		say "$line"
	done
	exec 4<&-
	wait $fetch_pid
	status=$?
	fetch_pid=
	check "every byte over $MAIN_TLS $MAIN_CIPHER was right" [ $status = 0 ]
}

# A byte that differs must be noticed, or the comparison shows nothing.
control() {
	mkdir "$run/changed"
	{
		printf X
		tail -c +2 "$dir/docs/1.bin"
	} >"$run/changed/1.bin"
	fetch 1 $MAIN_TLS $MAIN_CIPHER --dir "$run/changed" 1.bin >"$run/control"
	status=$?
	check "a changed byte is noticed" [ $status = 1 ]
	check "one byte differs: $(cat "$run/control")" grep -q "mismatches 1 " "$run/control"
}

# What stock nginx logs at "info", and so not at all here: see stop_nginx.
corrupt_records() {
	for suite in 1.2,ECDHE-ECDSA-CHACHA20-POLY1305 1.3,TLS_AES_256_GCM_SHA384 \
		1.3,TLS_CHACHA20_POLY1305_SHA256; do
		fetch $SHORT_SESSIONS "${suite%,*}" "${suite#*,}" --corrupt 1.bin >"$run/corrupt"
		check "records that nobody sealed are refused over $suite: $(cat "$run/corrupt")" \
			[ $? = 0 ]
	done
}

# The environment has no say.
try_config() { # try_config FILE: does nginx accept it?
	EPK_BACKEND=none OPENSSL_CONF=$1 "$NGINX_BIN" -q -t -p "$dir" -c "$dir/nginx.conf" -e stderr \
		2>"$run/refused"
}

refused() { # refused FILE
	! try_config "$1"
}

refuses() { # refuses SED-COMMAND: what it makes of openssl.cnf
	sed "$1" "$run/openssl.cnf" >"$run/broken.cnf"
	refused "$run/broken.cnf"
}

# OpenSSL alone would go on with its own ciphers.
fail_closed() {
	check "nginx starts with the provider" try_config "$run/openssl.cnf"
	check "nginx does not start if the provider is missing" \
		refuses "s|^module = .*|module = $run/missing.so|"
	check "nginx does not start if all of epk.so is missing" \
		refuses "s|$provider|$run/missing.so|"
	check "nginx does not start if the provider is not activated" \
		refuses "/^\[epk_provider\]/,/^backend/s|^activate.*||"
	check "nginx does not start with a backend that there is not" \
		refuses "s|^backend = .*|backend = nonsense|"
	check "nginx is told why: $(cat "$run/refused")" grep -q "backend nonsense" "$run/refused"
	if [ ! -e /dev/epk ]; then
		for backend_setting in epk auto; do
			check "nginx does not start with backend = $backend_setting without /dev/epk" \
				refuses "s|^backend = .*|backend = $backend_setting|"
		done
		sed "s|$modules/epk.so|$provider|" "$shipped" >"$run/shipped.cnf"
		check "nginx does not start with openssl.cnf as it is without /dev/epk" \
			refused "$run/shipped.cnf"
	fi
	[ ! -e "$LEGACY" ] || refuses_legacy
}

# Its ciphers have no domain: SEED suites, if the server lists them.
LEGACY=$modules/legacy.so
refuses_legacy() {
	add="s|^\[default_provider\]|[legacy_provider]\nactivate = 1\n&|; s|^default = default_provider|&\nlegacy = legacy_provider|"
	check "nginx does not start if others have ciphers for TLS" refuses "$add"
	check "nginx is told which: $(cat "$run/refused")" grep -q "comes from provider legacy" \
		"$run/refused"
	sed "$add; s|^allow = CBC|&, DES-CBC, SEED-CBC, RC2-CBC RC4,RC4-HMAC-MD5,idea-cbc|" \
		"$run/openssl.cnf" >"$run/allowed.cnf"
	check "nginx starts if these are allowed by name" try_config "$run/allowed.cnf"
}

# nginx's own worker keeps its rights here, for the attacker's sake.
worker_rights() {
	mkdir "$run/empty"
	check "a worker without rights has domains" \
		env OPENSSL_CONF="$run/openssl.cnf" "$dir/worker_rights" "$run/empty"
}

# The program that takes over at an upgrade has nothing of the environment that nginx is not told to keep.
upgraded() { # upgraded SED-COMMAND: does it have the provider?
	sed "s/^daemon off/daemon on/; s/4433/4434/; s|run/nginx|run/daemon|; s|stderr|run/daemon.log|
		s|^events|env LD_LIBRARY_PATH;\n&|; $1" \
		"$dir/nginx.conf" >"$dir/daemon.conf"
	rm -f "$run"/daemon.*
	OPENSSL_CONF=$run/openssl.cnf "$NGINX_BIN" -p "$dir" -c "$dir/daemon.conf" -e "$run/daemon.log"
	# A signal that comes before it has workers is not heeded.
	await "$run/daemon.pid" && await_line "start worker process " "$run/daemon.log" || return 2
	old=$(cat "$run/daemon.pid")
	kill -USR2 "$old"
	await "$run/daemon.pid.oldbin" && await "$run/daemon.pid" || {
		kill "$old"
		return 2
	}
	new=$(cat "$run/daemon.pid")
	[ -e "/proc/$new" ] && [ "$new" != "$old" ] && grep -q "$provider" "/proc/$new/maps"
	status=$?
	kill "$new" "$old"
	await_end "$new"
	await_end "$old"
	return $status
}

await() { # await FILE: until there is something in it
	tries=0
	until [ -s "$1" ]; do
		tries=$((tries + 1))
		[ $tries -lt 200 ] || return 1
		sleep 0.05
	done
}

await_line() { # await_line TEXT FILE
	tries=0
	until grep -q "$1" "$2"; do
		tries=$((tries + 1))
		[ $tries -lt 200 ] || return 1
		sleep 0.05
	done
}

await_end() { # await_end PID
	tries=0
	while kill -0 "$1" 2>/dev/null && [ $tries -lt 200 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
}

upgrade() {
	check "after an upgrade nginx has the provider" upgraded ""
	check "without \"env\" it has not, which shows" eval 'upgraded "s/^env OPENSSL_CONF;//"; [ $? = 1 ]'
}

short_round() { # short_round SESSIONS VERSION,SUITE FILE...
	sessions=$1 suite=$2
	shift 2
	say "TLS ${suite%,*} ${suite#*,}"
	fetch $sessions "${suite%,*}" "${suite#*,}" "$@" >"$run/short"
	check "every byte over $suite was right" [ $? = 0 ]
	say "$(cat "$run/short")"
}

short_rounds() { # short_rounds BACKEND
	ask counts "$run/quiet"
	for suite in $SUITES; do
		short_round $SHORT_SESSIONS $suite $SHORT_FILES
	done
	[ "$small" != small ] || short_round $RARE_SESSIONS $MAIN_TLS,$MAIN_CIPHER $LARGEST
	for suite in $RARE_SUITES; do
		short_round $RARE_SESSIONS $suite 16.bin
	done
	# The worker learns of the last closed connection a little later.
	tries=0
	while ask keyed "$run/end" && [ "$(value keyed "$run/end")" != $VAULT ] &&
		[ $tries -lt 200 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	check "no key but the vault's and the certificate's is left: $(value keyed "$run/end")" \
		[ "$(value keyed "$run/end")" = $VAULT ]
	ask counts "$run/end"
	[ "$1" != epk ] ||
		say "for all of these sessions:" \
			"$(($(value ept_switches "$run/end") - $(value ept_switches "$run/quiet"))) EPT switches," \
			"$(($(value vm_exits "$run/end") - $(value vm_exits "$run/quiet"))) VM exits caused by EPK"
	check "all rounds used the domains of the first" \
		[ "$(value domains "$run/end")" = "$(value domains "$run/after")" ]
}

# What this client's secrets are found in: all memory that the worker may read with no domain held.
scan() { # scan NAME: into $run/scanned
	"$dir/tls_scan" "$sock" 4433 1.bin >"$run/scanned"
	check "the worker's memory was looked through" [ $? = 0 ]
	say "$1: of $(value secrets "$run/scanned") secrets of a session $(value found "$run/scanned") are" \
		"found in the worker's memory; at $(value hit "$run/scanned") of" \
		"$(value stops "$run/scanned") stops in handshakes; live" \
		"$(value live "$run/scanned"), closed $(value closed "$run/scanned")," \
		"resumed with a ticket $(value resumed_live "$run/scanned"), closed" \
		"$(value resumed_closed "$run/scanned")"
}

none_found() { # none_found BACKEND
	scan "$1"
	secrets=$(value secrets "$run/scanned")
	check "no secret of a session is found" [ "$(value found "$run/scanned")" = 0 ]
}

# The same attacker finds them all, so that he does look.
all_found() {
	start_nginx stock || {
		failed=$((failed + 1))
		return
	}
	scan stock
	check "stock nginx has as many secrets" [ "$(value secrets "$run/scanned")" = "$secrets" ]
	check "all secrets of stock nginx are found: $(grep unseen "$run/scanned")" \
		[ "$(value found "$run/scanned")" = "$secrets" ]
	check "there are more than thirty" [ "$secrets" -gt 30 ]
	check "and in most of the stops" \
		[ "$(value hit "$run/scanned")" -gt $(($(value stops "$run/scanned") * 9 / 10)) ]
	stop_nginx
}

secrets=
files=$FILES
for backend in $BACKENDS; do
	say "backend $backend: TLS $MAIN_TLS $MAIN_CIPHER, $SESSIONS keep-alive sessions," \
		"each fetches" $files
	if ! start_nginx "$backend"; then
		failed=$((failed + 1))
		continue
	fi
	before=$failed
	main_round "$backend" "$files"
	# The contrast needs no more than the leak test.
	if [ $failed = $before ] && [ "$backend" = "${BACKENDS%% *}" ]; then
		control
		fail_closed
		[ "$(id -u)" != 0 ] || worker_rights
		corrupt_records
		short_rounds "$backend"
		none_found "$backend"
		upgrade
	fi
	stop_nginx
	[ -z "$secrets" ] || [ "$backend" != "${BACKENDS%% *}" ] || all_found
	files=$SHORT_FILES
done

if [ $failed = 0 ] && [ $passed -gt 0 ]; then
	say "PASS: $passed checks"
	exit 0
fi
say "FAIL: $failed of $((passed + failed)) checks"
exit 1
