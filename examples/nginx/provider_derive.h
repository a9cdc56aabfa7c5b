/* SPDX-License-Identifier: MIT */
/* Which K a process has, if any. */
#ifndef PROVIDER_DERIVE_H
#define PROVIDER_DERIVE_H

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "provider_test.h"

#define IV_BYTES	12

/* Of a secret that is always the same, so that K alone decides. */
static int derive_iv(uint8_t iv[IV_BYTES])
{
	EVP_KDF *kdf = EVP_KDF_fetch(with_epk, "TLS13-KDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	static uint8_t secret[32] = { 42 };
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY, ret;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, sizeof(secret)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, "iv", 2),
		OSSL_PARAM_construct_end()
	};

	ret = EVP_KDF_derive(ctx, iv, IV_BYTES, params);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ret;
}

#endif /* PROVIDER_DERIVE_H */
