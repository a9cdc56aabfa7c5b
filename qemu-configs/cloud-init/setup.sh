#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh: what user-data has cloud-init run, as root, in the guest: the seed's packages, the module for the kernel that
# runs or the newest one, and Debian's nginx with its TLS keys in domains.  It may be run again.
set -eu
seed=$(cd "$(dirname "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive
lib=/usr/local/lib/epk

install() { apt-get install -q -y --no-install-recommends "$@"; }

# An image that is not new may have a kernel whose headers are no longer there.
kernel() {
	install gcc make libc6-dev
	install "linux-headers-$(uname -r)" && return
	flavour=amd64
	case $(uname -r) in
	*-cloud-amd64) flavour=cloud-amd64 ;;
	esac
	install "linux-image-$flavour" "linux-headers-$flavour"
	touch /run/epk-reboot
}

# DKMS builds the module for each kernel whose headers are there.
module() {
	install "$seed"/libepk1_*.deb "$seed"/libepk-dev_*.deb "$seed"/epk-tools_*.deb "$seed"/epk-dkms_*.deb
	dkms status | grep '^epk/.*: installed' || {
		echo "setup: DKMS has not built the module"
		exit 1
	}
	if [ ! -e /run/epk-reboot ]; then
		udevadm control --reload
		modprobe epk
	fi
}

# The provider is built here, against the library as installed.  The worker opens the device as www-data.
nginx() {
	install nginx libssl-dev openssl
	rm -rf /usr/local/src/epk-nginx
	mkdir -p $lib /usr/local/src
	cp -r "$seed/nginx" /usr/local/src/epk-nginx
	make -s -C /usr/local/src/epk-nginx EPK_LIB_DIR=/usr/lib/x86_64-linux-gnu build/epk.so build/cert.pem
	cp /usr/local/src/epk-nginx/build/epk.so $lib/
	sed "s,/epk/nginx,$lib," "$seed/nginx/openssl.cnf" >$lib/openssl.cnf
	[ -f /etc/ssl/private/epk.key ] || {
		cp /usr/local/src/epk-nginx/build/cert.pem /etc/ssl/certs/epk.pem
		(umask 077 && cp /usr/local/src/epk-nginx/build/key.pem /etc/ssl/private/epk.key)
	}
	adduser --quiet www-data epk
	cat >/etc/nginx/conf.d/epk.conf <<-END
		server {
			listen 443 ssl default_server;
			root /var/www/html;
			ssl_certificate /etc/ssl/certs/epk.pem;
			ssl_certificate_key /etc/ssl/private/epk.key;
			ssl_protocols TLSv1.2 TLSv1.3;
			ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
		}
	END
	mkdir -p /etc/systemd/system/nginx.service.d
	# Without EPK, no TLS: not TLS without domains.
	cat >/etc/systemd/system/nginx.service.d/epk.conf <<-END
		[Unit]
		After=systemd-modules-load.service
		[Service]
		Environment=OPENSSL_CONF=$lib/openssl.cnf
	END
	[ -d /run/systemd/system ] || return 0
	systemctl daemon-reload
	[ -e /run/epk-reboot ] || systemctl restart nginx
}

kernel
module
nginx
echo "setup: done"
