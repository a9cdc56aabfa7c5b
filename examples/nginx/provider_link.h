/* SPDX-License-Identifier: MIT */
#ifndef PROVIDER_LINK_H
#define PROVIDER_LINK_H

#include <openssl/bio.h>
#include <openssl/ssl.h>

/* What one end writes the other reads, with nothing in between that fails. */
static inline void link_ends(SSL *server, SSL *client)
{
	BIO *to_server = BIO_new(BIO_s_mem()), *to_client = BIO_new(BIO_s_mem());

	BIO_up_ref(to_server);
	BIO_up_ref(to_client);
	SSL_set_bio(server, to_server, to_client);
	SSL_set_bio(client, to_client, to_server);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
}

#endif /* PROVIDER_LINK_H */
