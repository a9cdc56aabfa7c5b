/* SPDX-License-Identifier: MIT */
/* The last session that a client was given, for the next handshake: one for all, so for one thread. */
#ifndef PROVIDER_KEPT_H
#define PROVIDER_KEPT_H

#include <openssl/ssl.h>

static SSL_SESSION *session;

/* OpenSSL's, for SSL_CTX_sess_set_new_cb(). */
static inline int keep_session(SSL *ssl, SSL_SESSION *new_session)
{
	(void)ssl;
	SSL_SESSION_free(session);
	session = new_session;
	return 1;
}

static inline void drop_session(void)
{
	SSL_SESSION_free(session);
	session = NULL;
}

#endif /* PROVIDER_KEPT_H */
