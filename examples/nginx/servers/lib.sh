# SPDX-License-Identifier: MIT
# What drive.sh and its recipes share.  To be sourced.

BACKEND=${BACKEND:-epk}
here=/epk/nginx
conf=/etc/ssl/openssl-epk.cnf
# As Debian has it for who wants nothing else.
stock=/dev/null
steps=
failed=0

say() { echo "servers: $name: $*" >&2; }

fail() {
	say "FAIL: $*"
	failed=$((failed + 1))
	return 1
}

await() { # await SECONDS COMMAND...
	# Of a machine that does nothing else; a guest counts its own.
	tries=$(($1 * 20 * ${PATIENCE:-1}))
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.05
	done
}

# ---- what a recipe may replace

sessions=4
other=
tls=1.3
port=4433
way="env"
notes=
kept=0
wanted=0
others=0

# A port that something listens at, IPv4 or IPv6.
listens() {
	hex=$(printf ':%04X' "$1")
	grep -qi "$hex [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

ready() { listens $port; }

# As a client that has nothing to do with the provider.
fetch() { # fetch SESSIONS OPTION-OR-FILE...
	held=$1
	shift
	OPENSSL_CONF=$stock "$here/tls_fetch" --connections "$held" --port $port --tls $tls \
		--timeout 20 --dir "$here/docs" --ca "$here/cert.pem" "$@"
}

hold() {
	rm -f "$run/go"
	mkfifo "$run/go"
	fetch $sessions --hold 1.bin <"$run/go" >"$run/said" 2>&1 &
	client=$!
	exec 3>"$run/go"
	await 30 grep -q holding "$run/said" || {
		cat "$run/said" >&2
		return 1
	}
}

# The sessions serve until the end: a file once more over each.
release() {
	exec 3>&-
	wait $client || {
		cat "$run/said" >&2
		return 1
	}
}

is_gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status"; }

all_gone() {
	for one in $(members); do
		is_gone "$one" || return 1
	done
}

# It, and all that it has started.
stop() {
	kill "$pid" && await 20 is_gone "$pid" && await 10 all_gone
}

# ---- looking at it

members() {
	for proc in /proc/[0-9]*; do
		read -r comm <"$proc/comm" || continue
		for wanted in $processes; do
			[ "$comm" != "$wanted" ] || echo "${proc#/proc/}"
		done
	done 2>/dev/null
}

# Of all its processes: sessions, contexts in domains, those with record keys; and what is found.
look() {
	accepted=$other
	[ "$BACKEND" = epk ] || accepted=$accepted,backend-$BACKEND
	# shellcheck disable=SC2046
	epk-tls-check --accept "$accepted" $(members) >"$run/seen" 2>&1
	seen=$?
	eval "$(sed -n 's/.*; backend [^,]*, \([0-9]*\) sessions, \([0-9]*\) cipher contexts in domains, \([0-9]*\) .*/\1 \2 \3/p' \
		"$run/seen" | awk '{ s += $1; c += $2; r += $3 }
		END { print "nr_sessions=" s + 0, "nr_contexts=" c + 0, "nr_records=" r + 0 }')"
}

all_there() { # all_there RECORDS
	look
	[ $seen = 0 ] && [ "$nr_records" = "$1" ]
}

# Each session that is held has two record keys, in domains, and nothing speaks against any process.
all_held() {
	await 10 all_there $((sessions * 2)) && return
	cat "$run/seen" >&2
	fail "$sessions sessions are held; record keys in domains: $nr_records, exit status $seen"
}

held() {
	hold && all_held || return 1
	kept=$((kept + nr_records)) wanted=$((wanted + sessions * 2)) others=$((others + nr_contexts - nr_records))
	release
}

# There is at least one, and each has this root directory.
all_in() { # all_in FOLDER PID...
	folder=$1
	shift
	[ $# -gt 0 ] || return 1
	for one; do
		[ "$(readlink "/proc/$one/root")" = "$folder" ] || return 1
	done
}

# How often a log says it.
count_of() { grep -c "$1" "$2"; }

says_once_more() { [ "$(count_of "$1" "$2")" -gt "$3" ]; }

# Only a process that is told to says so.
reloads() { # reloads SIGNAL WORDS LOG
	before=$(count_of "$2" "$3")
	kill "-$1" "$pid"
	await 10 says_once_more "$2" "$3" "$before"
}

# ---- steps, whose names the table has

# A step itself, with one version of TLS and the other.
sessions() {
	held && tls=1.2 held
}

step() { # step FUNCTION
	if "$1"; then
		steps="$steps, $(echo "$1" | tr _ ' ')"
	else
		fail "$1"
	fi
}

# ----

prepare() {
	run=/tmp/$name
	rm -rf "$run"
	mkdir -p "$run"
	chmod 755 "$run"
	grep -q '^nobody:' /etc/passwd || {
		echo "nobody:x:65534:65534::/:/bin/false" >>/etc/passwd
		echo "nogroup:x:65534:" >>/etc/group
	}
	# What comes after this finds it as it was.
	cp $conf "$run/shipped.cnf"
	sed -i "s/^backend = .*/backend = $BACKEND/" $conf
	cp "$here/cert.pem" "$here/key.pem" "$run"
	# Both in one file, as many have them.
	cat "$run/cert.pem" "$run/key.pem" >"$run/site.pem"
	chmod 644 "$run"/*.pem
	if [ "$way" = env ]; then
		export OPENSSL_CONF=$conf
	else
		epk-tls-setup enable >&2 || return
	fi
}

clean_up() {
	for left in $(members); do
		kill -9 "$left"
	done 2>/dev/null
	[ "$way" = env ] || epk-tls-setup disable >&2
	[ ! -f "$run/shipped.cnf" ] || cp "$run/shipped.cnf" $conf
}

show_logs() {
	for log in "$run"/log*; do
		[ -f "$log" ] && tail -n 20 "$log" >&2
	done
}

drive() {
	name=$1
	# shellcheck disable=SC1090 # a recipe
	. "$dir/$name.sh"
	prepare
	trap clean_up EXIT
	trap 'exit 1' HUP INT TERM
	configure
	start
	if await 20 ready; then
		steps=started
		for each in $work; do
			step "$each"
		done
		stop && steps="$steps, stopped" || fail "it does not stop"
	else
		fail "it does not start"
	fi
	[ $wanted = 0 ] || keys="$kept of $wanted"
	[ $others = 0 ] || keys="$keys, and $others of the program's own"
	[ -z "$title" ] || echo "| $title | $steps | ${keys:-none} | $notes |"
	[ $failed = 0 ] || show_logs
	[ $failed = 0 ]
}
