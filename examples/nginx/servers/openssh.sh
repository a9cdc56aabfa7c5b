# SPDX-License-Identifier: MIT
title="OpenSSH"
processes="sshd"
work="each_cipher ssh_in_the_background no_domain"
notes="An exception of the configuration: it has no TLS, and its keys are in ordinary memory"
port=2222

configure() {
	getent passwd sshd >/dev/null || echo "sshd:x:4003:65534::/run/sshd:/usr/sbin/nologin" >>/etc/passwd
	mkdir -p /run/sshd "$run/ssh"
	chmod 755 /run/sshd
	chmod 700 "$run/ssh"
	ssh-keygen -q -t ed25519 -N "" -f "$run/ssh/host"
	ssh-keygen -q -t ed25519 -N "" -f "$run/ssh/user"
	cat >"$run/sshd_config" <<-END
		Port 2222
		ListenAddress 127.0.0.1
		HostKey $run/ssh/host
		AuthorizedKeysFile $run/ssh/user.pub
		StrictModes no
		PidFile none
		UsePAM no
		PermitRootLogin yes
	END
}

start() {
	/usr/sbin/sshd -D -e -f "$run/sshd_config" >"$run/log" 2>&1 &
	pid=$!
}

connect() { # connect CIPHER OPTION-OR-COMMAND...
	cipher=$1
	shift
	timeout 20 /usr/bin/ssh -p 2222 -i "$run/ssh/user" -F none -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o BatchMode=yes -c "$cipher" "$@" 2>>"$run/log.ssh"
}

each_cipher() {
	for cipher in $(ssh -Q cipher | grep -v cbc); do
		[ "$(connect "$cipher" root@127.0.0.1 "echo it works")" = "it works" ] || return 1
	done
}

# It forks when it has its ciphers.
ssh_in_the_background() {
	connect aes256-gcm@openssh.com -f root@127.0.0.1 "sleep 1; echo later >$run/said" && await 5 test -s "$run/said"
}

# Not in any of its processes.
no_domain() {
	connect aes256-gcm@openssh.com root@127.0.0.1 "sleep 60" &
	await 10 eval '[ "$(members | wc -l)" -gt 1 ]'
	for one in $(members); do
		grep -q "/libepk.so" "/proc/$one/maps" || continue
		look
		grep -q "in domains" "$run/seen" && ! grep -q "backend , 0 sessions, 0 cipher contexts" "$run/seen" && return 1
	done
	kill $!
	true
}
