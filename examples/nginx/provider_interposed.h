/* SPDX-License-Identifier: MIT */
#ifndef PROVIDER_INTERPOSED_H
#define PROVIDER_INTERPOSED_H

/*
 * Functions in place of libcrypto's, for libssl: what deals with a secret calls stop() when it has.
 * In one source file of a program or library, which has stop(), and EVP_KDF_derive() itself.
 */
#include <dlfcn.h>

#include <openssl/evp.h>

/* The @caller goes on when this returns. */
static void stop(const void *caller);

#define REAL(fn)									\
	static __typeof__(&fn) real;							\
											\
	if (!real)									\
		real = (__typeof__(&fn))dlsym(RTLD_NEXT, #fn)

#define EXPORT	__attribute__((visibility("default")))

EXPORT int EVP_PKEY_derive(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *len)
{
	int ret;

	REAL(EVP_PKEY_derive);
	ret = real(ctx, out, len);
	if (out)
		stop(__builtin_return_address(0));
	return ret;
}

EXPORT int EVP_PKEY_keygen(EVP_PKEY_CTX *ctx, EVP_PKEY **pkey)
{
	int ret;

	REAL(EVP_PKEY_keygen);
	ret = real(ctx, pkey);
	stop(__builtin_return_address(0));
	return ret;
}

EXPORT int EVP_CipherInit_ex(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, ENGINE *engine,
			     const unsigned char *key, const unsigned char *iv, int sealing)
{
	int ret;

	REAL(EVP_CipherInit_ex);
	ret = real(ctx, cipher, engine, key, iv, sealing);
	if (key)
		stop(__builtin_return_address(0));
	return ret;
}

#endif /* PROVIDER_INTERPOSED_H */
