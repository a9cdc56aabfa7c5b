/* SPDX-License-Identifier: MIT */
/*
 * What a client of OpenSSL's own learns of a session, to be looked for in its server: all that
 * it derives, and what from.
 */
#ifndef PROVIDER_NOTES_H
#define PROVIDER_NOTES_H

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "provider_scan.h"

static inline void label_of(const OSSL_PARAM *p, char *to, size_t size)
{
	size_t len = p && p->data ? p->data_size : 0;

	snprintf(to, size, "%.*s", (int)len, len ? (const char *)p->data : "");
}

static inline void note_key_block(const uint8_t *key_block, size_t len)
{
	size_t key = len == 40 ? 16 : 32;

	add_needle("client's record key", key_block, key, false);
	add_needle("server's record key", key_block + key, key, false);
	add_needle("IVs", key_block + 2 * key, len - 2 * key, true);
}

static inline void note_tls12(const OSSL_PARAM params[], const uint8_t *out, size_t len)
{
	const OSSL_PARAM *secret = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SECRET);
	char label[64];

	label_of(OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SEED), label, sizeof(label));
	if (strstr(label, "master secret"))
		add_needle("premaster secret", secret->data, secret->data_size, false);
	if (!strcmp(label, "key expansion"))
		note_key_block(out, len);
	else
		add_needle(label, out, len, strstr(label, "finished"));
}

static inline void note_tls13(const OSSL_PARAM params[], const uint8_t *out, size_t len)
{
	const OSSL_PARAM *key = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_KEY);
	const OSSL_PARAM *salt = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SALT);
	const OSSL_PARAM *mode = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_MODE);
	char label[64];
	int m = 0;

	OSSL_PARAM_get_int(mode, &m);
	label_of(OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_LABEL), label, sizeof(label));
	if (m == EVP_KDF_HKDF_MODE_EXPAND_ONLY) {
		add_needle(label, out, len, !strcmp(label, "iv"));
	} else if (key || salt) {
		/* Without either it is the same for everybody. */
		if (key)
			add_needle(salt ? "shared secret" : "PSK", key->data, key->data_size, false);
		add_needle(!salt ? "early secret" : key ? "handshake secret" : "master secret",
			   out, len, false);
	}
}

/* By EVP_KDF_derive(), in whose place the program has a function that calls this. */
static inline void note_derived(const OSSL_PARAM params[], const uint8_t *out, size_t len)
{
	if (OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_LABEL))
		note_tls13(params, out, len);
	else
		note_tls12(params, out, len);
}

#endif /* PROVIDER_NOTES_H */
