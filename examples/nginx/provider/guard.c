// SPDX-License-Identifier: MIT
/*
 * Fail closed.
 *
 * OpenSSL 3.0 starts without complaint when a provider of openssl.cnf cannot
 * be loaded, and "?provider=epk" then falls back to the default provider.
 * This module is therefore a configuration module too: a line in the
 * openssl_init section, after providers and alg_section, and
 * "config_diagnostics = 1" make OpenSSL's start, and so the server's, fail
 * unless each record cipher really comes from the epk provider.
 */
#include <string.h>

#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "epk_provider.h"

#define EXPORT __attribute__((visibility("default")))

/* Names by which OpenSSL looks; its headers use the first for another purpose. */
EXPORT int guard_init(CONF_IMODULE *module, const CONF *conf) __asm__("OPENSSL_init");
EXPORT void guard_finish(CONF_IMODULE *module) __asm__("OPENSSL_finish");

static bool comes_from_epk(const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
	const char *provider = NULL;
	bool ok;

	if (cipher)
		provider = OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
	ok = provider && !strcmp(provider, "epk");
	if (!ok)
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "%s comes from provider %s, not from epk", name,
			       provider ? provider : "none");
	EVP_CIPHER_free(cipher);
	return ok;
}

int guard_init(CONF_IMODULE *module, const CONF *conf)
{
	(void)module;
	(void)conf;
	return comes_from_epk("AES-128-GCM") && comes_from_epk("AES-256-GCM") &&
	       comes_from_epk("ChaCha20-Poly1305");
}

void guard_finish(CONF_IMODULE *module)
{
	(void)module;
}
