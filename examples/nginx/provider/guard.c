// SPDX-License-Identifier: MIT
/*
 * Fail closed.
 *
 * OpenSSL 3.0 starts without complaint when a provider of openssl.cnf cannot
 * be loaded, and "?provider=epk" then falls back to the default provider.
 * Reporting an error is not enough either: nginx 1.22 logs a failed start of
 * OpenSSL and goes on.
 *
 * So openssl.cnf demands the epk provider for everything, which no server can
 * work with.  This module is a configuration module too, named after that in
 * the openssl_init section: once it has seen that each record cipher really
 * comes from the epk provider, it puts the properties of its own section in
 * place of the demand.
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
	const char *section = CONF_imodule_get_value(module);
	const char *properties = NCONF_get_string(conf, section, "default_properties");

	if (!comes_from_epk("AES-128-GCM") || !comes_from_epk("AES-256-GCM") ||
	    !comes_from_epk("ChaCha20-Poly1305"))
		return 0;
	if (!properties) {
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "section %s of the configuration has no default_properties",
			       section);
		return 0;
	}
	return EVP_set_default_properties(NULL, properties);
}

void guard_finish(CONF_IMODULE *module)
{
	(void)module;
}
