#!/bin/sh
# SPDX-License-Identifier: MIT
# drive.sh NAME...: run a program of servers/NAME.sh with the provider, hold sessions, look at it by
# epk-tls-check, reload it, stop it.  Runs as root where the programs, the provider and the
# files beside this one are installed, and changes what is in /etc: not on a machine of anyone's.
# busybox suffices.
#
# Standard output is a row of a table for each; exit status 0: all was as it should be.
# Environment: BACKEND (default epk); PATIENCE, how many times as long as usual things may take.
#
# A recipe has shell variables and functions, with $run as a folder of its own:
#
#	title		what the table calls it
#	way		"env": OPENSSL_CONF; "system": epk-tls-setup
#	processes	names of its processes, as in /proc/PID/comm
#	other		what else that has TLS is mapped, as findings of epk-tls-check
#	configure	write what it needs into $run
#	start		run it; $pid is to be what "stop" ends
#	ready		is it there?  By default its port is.
#	hold, release	$sessions sessions open at a time; by default tls_fetch's
#	work		what is to be done with it: a list of functions, each a step
#	keys		what is to be found of the sessions' keys: see lib.sh
#	notes		for the table

dir=$(cd "$(dirname "$0")" && pwd)
. "$dir/lib.sh"

status=0
for name; do
	(drive "$name") || status=1
done
exit $status
