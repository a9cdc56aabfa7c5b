/* SPDX-License-Identifier: MIT */
#ifndef PROVIDER_TEST_H
#define PROVIDER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <epk.h>

/* Where the Makefile puts epk.so and the certificate. */
#define BUILD_DIR	(getenv("BUILD_DIR") ? getenv("BUILD_DIR") : "build")

static inline void assert_ossl(int ok)
{
	if (ok <= 0)
		ERR_print_errors_fp(stderr);
	assert_true(ok > 0);
}

/* A library context as openssl.cnf makes it, with the epk provider or not. */
static inline OSSL_LIB_CTX *make_libctx(int with_epk)
{
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

	assert_non_null(libctx);
	assert_non_null(OSSL_PROVIDER_load(libctx, "default"));
	if (with_epk) {
		assert_ossl(OSSL_PROVIDER_set_default_search_path(libctx, BUILD_DIR));
		assert_ossl(OSSL_PROVIDER_load(libctx, "epk") != NULL);
		assert_ossl(EVP_set_default_properties(libctx, "?epk.domain=yes"));
	}
	return libctx;
}

/* Made by each program's setup function. */
extern OSSL_LIB_CTX *with_epk, *plain;

static inline EVP_CIPHER *fetch(OSSL_LIB_CTX *libctx, const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	const char *provider;

	assert_ossl(cipher != NULL);
	provider = OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
	assert_string_equal(provider, libctx == with_epk ? "epk" : "default");
	return cipher;
}

static inline uint64_t live_domains(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	assert_int_equal(epk_counts(&counts), 0);
	return counts.domains;
}

static inline int count_keyed(int dom, void *addr, size_t len, void *arg)
{
	unsigned int *nr = arg;
	size_t i;

	assert_int_equal(domain_begin(dom, PROT_READ), 0);
	for (i = 0; i < len && !((uint8_t *)addr)[i]; i++)
		;
	*nr += i < len;
	assert_int_equal(domain_end(dom), 0);
	return 0;
}

/* Domains that are not all zeros. */
static inline unsigned int keyed_domains(void)
{
	unsigned int nr = 0;

	assert_int_equal(epk_for_each_mapping(count_keyed, &nr), 0);
	return nr;
}

#endif /* PROVIDER_TEST_H */
