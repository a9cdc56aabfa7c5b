/* SPDX-License-Identifier: MIT */
#ifndef PROVIDER_CERTIFICATE_H
#define PROVIDER_CERTIFICATE_H

#include <openssl/ssl.h>

#include "provider_test.h"

/* What the Makefile has made, for a server. */
static inline void use_certificate(SSL_CTX *ctx)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/cert.pem", BUILD_DIR);
	require_ossl(SSL_CTX_use_certificate_file(ctx, path, SSL_FILETYPE_PEM));
	snprintf(path, sizeof(path), "%s/key.pem", BUILD_DIR);
	require_ossl(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM));
}

#endif /* PROVIDER_CERTIFICATE_H */
