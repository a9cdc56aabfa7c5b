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
#include <unistd.h>

#include "../../tests/check.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <epk.h>

#include "provider/epk_provider.h"

/* Where the Makefile puts epk.so and the certificate. */
#define BUILD_DIR	(getenv("BUILD_DIR") ? getenv("BUILD_DIR") : "build")

static inline void require_ossl(int ok)
{
	if (ok <= 0)
		ERR_print_errors_fp(stderr);
	REQUIRE(ok > 0);
}

/* The name by which it comes before all others: see cipher_check.c. */
#define EPK_NAME	"EPK"

/* As openssl.cnf has them, but for the cipher check; @more are lines of the provider's section. */
static inline int try_providers(OSSL_LIB_CTX *libctx, const char *more)
{
	char path[] = "/tmp/epk-provider-test-XXXXXX";
	char *dir = realpath(BUILD_DIR, NULL);
	FILE *f = fdopen(mkstemp(path), "w");
	int ret;

	REQUIRE(dir);
	REQUIRE(f);
	fprintf(f, "config_diagnostics = 1\nopenssl_conf = o\n[o]\nproviders = p\n"
		"[p]\n" EPK_NAME " = e\ndefault = d\n[d]\nactivate = 1\n"
		"[e]\nmodule = %s/epk.so\nactivate = 1\n%s\n", dir, more);
	fclose(f);
	free(dir);
	ret = OSSL_LIB_CTX_load_config(libctx, path);
	unlink(path);
	return ret;
}

/* As the cipher check does for "allow = CBC". */
static inline int allow_cbc(OSSL_PROVIDER *provider, void *arg)
{
	if (!strcmp(OSSL_PROVIDER_get0_name(provider), EPK_NAME))
		((struct provider *)OSSL_PROVIDER_get0_provider_ctx(provider))->any_mac = *(bool *)arg;
	return 1;
}

/* As the cipher check does, so that OpenSSL finds those of others afterwards, too. */
static inline void look_for_keys(OSSL_LIB_CTX *libctx)
{
	static const char *const names[] = { "RSA", "EC", "ED25519", "ED448", "RSA-PSS", "DSA" };
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		EVP_KEYMGMT_free(EVP_KEYMGMT_fetch(libctx, names[i], NULL));
}

static inline void load_providers(OSSL_LIB_CTX *libctx, const char *more)
{
	require_ossl(try_providers(libctx, more));
	require_ossl(OSSL_PROVIDER_available(libctx, EPK_NAME));
	require_ossl(EVP_set_default_properties(libctx, "?epk.domain=yes," NOT_OUR_KEYS));
	look_for_keys(libctx);
	OSSL_PROVIDER_do_all(libctx, allow_cbc, &(bool){ true });
}

/* A library context as openssl.cnf makes it, with the epk provider or not. */
static inline OSSL_LIB_CTX *make_libctx(int with_epk)
{
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

	REQUIRE(libctx);
	if (with_epk)
		load_providers(libctx, "");
	else
		REQUIRE(OSSL_PROVIDER_load(libctx, "default"));
	return libctx;
}

/* Made by each program's setup function. */
extern OSSL_LIB_CTX *with_epk, *plain;

/* cmocka's, before the first case. */
static inline int make_plain(void **state)
{
	(void)state;
	plain = make_libctx(0);
	return 0;
}

/* cmocka's, likewise. */
static inline int make_both(void **state)
{
	make_plain(state);
	with_epk = make_libctx(1);
	return 0;
}

static inline EVP_CIPHER *fetch(OSSL_LIB_CTX *libctx, const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	const char *provider;

	require_ossl(cipher != NULL);
	provider = OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
	REQUIRE_STR_EQ(provider, libctx == with_epk ? EPK_NAME : "default");
	return cipher;
}

/* All domains but the vault. */
static inline uint64_t live_contexts(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	return counts.domains - 1;
}

static inline int count_keyed(int dom, void *addr, size_t len, void *arg)
{
	unsigned int *nr = arg;
	size_t i;

	/* The vault is no cipher context's, and larger. */
	if (len != BOX_LEN)
		return 0;
	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	for (i = 0; i < len && !((uint8_t *)addr)[i]; i++)
		;
	*nr += i < len;
	REQUIRE_EQ(domain_end(dom), 0);
	return 0;
}

/* Cipher contexts' domains that are not all zeros. */
static inline unsigned int keyed_domains(void)
{
	unsigned int nr = 0;

	REQUIRE_EQ(epk_for_each_mapping(count_keyed, &nr), 0);
	return nr;
}

#endif /* PROVIDER_TEST_H */
