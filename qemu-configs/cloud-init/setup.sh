#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh: what user-data has cloud-init run, as root, in the guest: the seed's packages, the module for the kernel that
# runs or the newest one, and Debian's nginx with its TLS keys in domains.  It may be run again.
set -eu
seed=$(cd "$(dirname "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive

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

# As openssl-provider-epk(7) has it.  The worker opens the device as www-data.
nginx() {
	install nginx openssl "$seed"/openssl-provider-epk_*.deb
	[ -f /etc/ssl/private/epk.key ] ||
		(umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
			-subj "/CN=$(hostname)" -keyout /etc/ssl/private/epk.key -out /etc/ssl/certs/epk.pem)
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
	# Without EPK, no TLS: not TLS without domains.
	mkdir -p /etc/systemd/system/nginx.service.d
	ln -sf /usr/share/openssl-provider-epk/nginx-service.conf /etc/systemd/system/nginx.service.d/epk.conf
	ln -sf /usr/share/openssl-provider-epk/nginx-env.conf /etc/nginx/modules-enabled/00-epk.conf
	[ -d /run/systemd/system ] || return 0
	systemctl daemon-reload
	[ -e /run/epk-reboot ] || systemctl restart nginx
}

kernel
module
nginx
echo "setup: done"
