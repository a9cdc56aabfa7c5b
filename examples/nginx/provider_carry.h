/* SPDX-License-Identifier: MIT */
/* Two ends in a process, each with memory of its own to write to: what one has said goes to the other when it is carried. */
#ifndef PROVIDER_CARRY_H
#define PROVIDER_CARRY_H

#include <openssl/ssl.h>

#include "provider_test.h"

static inline void carry(SSL *from, SSL *to)
{
	char *bytes;
	long len = BIO_get_mem_data(SSL_get_wbio(from), &bytes);

	if (len > 0)
		REQUIRE_EQ(BIO_write(SSL_get_rbio(to), bytes, len), len);
	BIO_reset(SSL_get_wbio(from));
}

#endif /* PROVIDER_CARRY_H */
