// SPDX-License-Identifier: MIT
/*
 * Fail closed.
 *
 * OpenSSL 3.0 starts without complaint when a provider of openssl.cnf cannot
 * be loaded, and "?epk.domain=yes" then falls back to the default provider.
 * Reporting an error is not enough either: nginx 1.22 logs a failed start of
 * OpenSSL and goes on.
 *
 * So openssl.cnf demands the epk provider for everything, which no server can
 * work with.  This module is a configuration module too, named after that in
 * the openssl_init section: once it has seen that each cipher that libssl
 * could negotiate really comes from the epk provider, or from nowhere, it puts
 * the properties of its own section in place of the demand.
 */
#include <string.h>
#include <strings.h>

#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "epk_provider.h"

#define EXPORT __attribute__((visibility("default")))

/* Names by which OpenSSL looks; its headers use the first for another purpose. */
EXPORT int guard_init(CONF_IMODULE *module, const CONF *conf) __asm__("OPENSSL_init");
EXPORT void guard_finish(CONF_IMODULE *module) __asm__("OPENSSL_finish");

/* What libssl negotiates too, if it is built so, and other providers have. */
static const char *const not_ours[] = {
	"DES-CBC", "IDEA-CBC", "SEED-CBC", "RC2-CBC", "RC4", "RC4-HMAC-MD5",
	"gost89-cnt", "gost89-cnt-12", "kuznyechik-ctr-acpkm", "magma-ctr-acpkm",
	"kuznyechik-mgm", "magma-mgm", "SM4-GCM", "SM4-CCM",
};

/* With the properties that the server is to run with. */
static const char *provider_of(const char *name, const char *properties)
{
	EVP_CIPHER *cipher;
	const char *provider = NULL;

	ERR_set_mark();
	cipher = EVP_CIPHER_fetch(NULL, name, properties);
	ERR_pop_to_mark();
	if (cipher)
		provider = OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher));
	/* The name is the provider's. */
	EVP_CIPHER_free(cipher);
	return provider;
}

static bool refuse(const char *what, const char *provider)
{
	ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL, "%s comes from provider %s, not from epk%s%s",
		       what, provider ? provider : "none", *refusal ? ": " : "", refusal);
	return false;
}

/* Those that the default provider has not, nobody must have. */
static bool all_from_epk(const char *properties)
{
	const char *provider;
	size_t i;

	for (i = 0; i < NR_CIPHERS; i++) {
		provider = provider_of(ciphers[i].name, properties);
		if (provider ? strcmp(provider, "epk") : ciphers[i].names || *refusal)
			return refuse(ciphers[i].name, provider);
	}
	return true;
}

/* "allow = NAME, NAME" in the guard's section. */
static bool is_allowed(const char *list, const char *name)
{
	size_t len;

	while (list && *list) {
		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if (len == strlen(name) && !strncasecmp(list, name, len))
			return true;
		list += len;
	}
	return false;
}

static bool none_without_domain(const char *properties, const char *allowed)
{
	const char *provider;
	size_t i;

	for (i = 0; i < sizeof(not_ours) / sizeof(not_ours[0]); i++) {
		provider = provider_of(not_ours[i], properties);
		if (provider && !is_allowed(allowed, not_ours[i]))
			return refuse(not_ours[i], provider);
	}
	return true;
}

int guard_init(CONF_IMODULE *module, const CONF *conf)
{
	const char *section = CONF_imodule_get_value(module);
	const char *properties = NCONF_get_string(conf, section, "default_properties");
	const char *allowed;

	if (!properties) {
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "section %s of the configuration has no default_properties",
			       section);
		return 0;
	}
	ERR_set_mark();
	allowed = NCONF_get_string(conf, section, "allow");
	ERR_pop_to_mark();
	return all_from_epk(properties) && none_without_domain(properties, allowed) &&
	       EVP_set_default_properties(NULL, properties);
}

void guard_finish(CONF_IMODULE *module)
{
	(void)module;
}
