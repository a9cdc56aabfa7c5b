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
 *
 * The ciphers of CBC suites it lets the provider serve only if the operator says so: libssl
 * computes their MACs itself, and has their keys.
 *
 * An engine's cipher comes from no provider: libssl and EVP_CipherInit() prefer it,
 * whatever the properties.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/conf.h>
#include <openssl/core_names.h>
#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "epk_provider.h"
#include "publish.h"
#include "secrets.h"
#include "rehearsal.h"
#include "sessions.h"
#include "whose.h"

#define EXPORT __attribute__((visibility("default")))

/* Names by which OpenSSL looks; its headers use the first for another purpose. */
EXPORT int cipher_check_init(CONF_IMODULE *module, const CONF *conf) __asm__("OPENSSL_init");
EXPORT void cipher_check_finish(CONF_IMODULE *module) __asm__("OPENSSL_finish");

/* What libssl negotiates too, if it is built so, and other providers have. */
static const char *const not_ours[] = {
	"DES-CBC", "IDEA-CBC", "SEED-CBC", "RC2-CBC", "RC4", "RC4-HMAC-MD5",
	"gost89-cnt", "gost89-cnt-12", "kuznyechik-ctr-acpkm", "magma-ctr-acpkm",
	"kuznyechik-mgm", "magma-mgm", "SM4-GCM", "SM4-CCM",
};

/**
 * struct checked - what is checked, as its section has it
 * @wraps: secrets are to be wrapped
 * @holds_keys: private keys are to be in domains
 */
struct checked {
	OSSL_LIB_CTX *libctx;
	const char *properties;
	const char *allowed;
	bool wraps, holds_keys;
};

/* Whatever the file calls it. */
static bool is_ours(const OSSL_PROVIDER *provider)
{
	return provider && OSSL_PROVIDER_get0_dispatch(provider) == epkp_provider_functions;
}

/*
 * Which provider has an algorithm, with the properties that the server is to run with.  NULL:
 * none.
 */
static const OSSL_PROVIDER *provider_of(const struct checked *g, const char *name)
{
	EVP_CIPHER *cipher;
	const OSSL_PROVIDER *provider = NULL;

	ERR_set_mark();
	cipher = EVP_CIPHER_fetch(g->libctx, name, g->properties);
	ERR_pop_to_mark();
	if (cipher)
		provider = EVP_CIPHER_get0_provider(cipher);
	/* The provider stays. */
	EVP_CIPHER_free(cipher);
	return provider;
}

static const OSSL_PROVIDER *provider_of_kdf(const struct checked *g, const char *name)
{
	EVP_KDF *kdf = EVP_KDF_fetch(g->libctx, name, g->properties);
	const OSSL_PROVIDER *provider = kdf ? EVP_KDF_get0_provider(kdf) : NULL;

	EVP_KDF_free(kdf);
	return provider;
}

static const OSSL_PROVIDER *provider_of_mac(const struct checked *g, const char *name)
{
	EVP_MAC *mac = EVP_MAC_fetch(g->libctx, name, g->properties);
	const OSSL_PROVIDER *provider = mac ? EVP_MAC_get0_provider(mac) : NULL;

	EVP_MAC_free(mac);
	return provider;
}

static const char *name_of(const OSSL_PROVIDER *provider)
{
	return provider ? OSSL_PROVIDER_get0_name(provider) : "none";
}

static bool refuse(const char *what, const char *kind, const char *from)
{
	ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL, "%s comes from %s %s, not from epk%s%s",
		       what, kind, from, *epkp_refusal ? ": " : "", epkp_refusal);
	return false;
}

/* Engines go by numbers; where @name is none of a number's, its long name is that without capitals. */
static int nid_of(const char *name)
{
	char lower[64];
	int nid = OBJ_txt2nid(name);
	size_t i;

	if (nid != NID_undef || strlen(name) >= sizeof(lower))
		return nid;
	for (i = 0; name[i]; i++)
		lower[i] = tolower((unsigned char)name[i]);
	lower[i] = 0;
	return OBJ_txt2nid(lower);
}

static bool from_no_engine(const char *name)
{
#ifndef OPENSSL_NO_ENGINE
	int nid = nid_of(name);
	ENGINE *engine = nid == NID_undef ? NULL : ENGINE_get_cipher_engine(nid);

	if (engine) {
		refuse(name, "engine", ENGINE_get_id(engine));
		ENGINE_finish(engine);
		return false;
	}
#endif
	(void)name;
	return true;
}

/* "NAME, NAME" */
static bool is_listed(const char *list, const char *name)
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

/* Those that the default provider has not, nobody must have. */
static bool all_from_epk(const struct checked *g)
{
	const OSSL_PROVIDER *provider;
	const char *name;
	size_t i;

	for (i = 0; i < NR_CIPHERS; i++) {
		name = epkp_ciphers[i].name;
		provider = provider_of(g, name);
		if (provider ? !is_ours(provider) : epkp_ciphers[i].names || *epkp_refusal)
			return refuse(name, "provider", name_of(provider));
		if (!is_listed(g->allowed, name) && !from_no_engine(name))
			return false;
	}
	return true;
}

static bool none_without_domain(const struct checked *g)
{
	const OSSL_PROVIDER *provider;
	const char *name;
	size_t i;

	for (i = 0; i < sizeof(not_ours) / sizeof(not_ours[0]); i++) {
		name = not_ours[i];
		if (is_listed(g->allowed, name))
			continue;
		provider = provider_of(g, name);
		if (provider)
			return refuse(name, "provider", name_of(provider));
		if (!from_no_engine(name))
			return false;
	}
	return true;
}

static int allow_cbc(OSSL_PROVIDER *provider, void *arg)
{
	const struct checked *g = arg;

	if (is_ours(provider))
		((struct provider *)OSSL_PROVIDER_get0_provider_ctx(provider))->any_mac =
			is_listed(g->allowed, "CBC");
	return 1;
}

/* ---- with secrets that are wrapped */

static int note_choices(OSSL_PROVIDER *provider, void *arg)
{
	const struct provider *prov;
	struct checked *g = arg;

	if (is_ours(provider)) {
		prov = OSSL_PROVIDER_get0_provider_ctx(provider);
		g->wraps = prov->wraps;
		g->holds_keys = prov->holds_keys;
	}
	return 1;
}

/* Who uses a wrapped secret has to be who wraps it, or nothing that it computes is right. */
static bool all_wrap(const struct checked *g)
{
	static const char *const kdfs[] = { "TLS13-KDF", "TLS1-PRF" };
	const OSSL_PROVIDER *provider;
	size_t i;

	for (i = 0; i < sizeof(kdfs) / sizeof(kdfs[0]); i++) {
		ERR_set_mark();
		provider = provider_of_kdf(g, kdfs[i]);
		ERR_pop_to_mark();
		if (!is_ours(provider))
			return refuse(kdfs[i], "provider", name_of(provider));
	}
	ERR_set_mark();
	provider = provider_of_mac(g, "HMAC");
	ERR_pop_to_mark();
	return is_ours(provider) || refuse("HMAC", "provider", name_of(provider));
}

/* The first provider that has a TLS group of this number. */
struct search {
	unsigned int id;
	bool here;
	const OSSL_PROVIDER *first;
};

int epkp_cipher_check_sees_group(const OSSL_PARAM params[], void *arg)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_CAPABILITY_TLS_GROUP_ID);
	struct search *search = arg;
	unsigned int id;

	search->here |= p && OSSL_PARAM_get_uint(p, &id) && id == search->id;
	return 1;
}

static int look_for_group(OSSL_PROVIDER *provider, void *arg)
{
	struct search *search = arg;

	search->here = false;
	OSSL_PROVIDER_get_capabilities(provider, "TLS-GROUP", epkp_cipher_check_sees_group, search);
	if (search->here && !search->first)
		search->first = provider;
	return 1;
}

/*
 * Of two groups with one number libssl takes that of the first provider.  They come in the
 * order of the file until OpenSSL looks for one by its name, which sorts them by that, and
 * which anything may do: so that it is done now.
 */
static bool groups_are_first(const struct checked *g)
{
	static const struct {
		unsigned int id;
		const char *name;
	} groups[] = { { 0x1d, "x25519" }, { 0x17, "secp256r1" }, { 0x18, "secp384r1" } };
	struct search search;
	size_t i;

	for (i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		search = (struct search){ .id = groups[i].id };
		OSSL_PROVIDER_do_all(g->libctx, look_for_group, &search);
		if (is_ours(search.first)) {
			search.first = NULL;
			OSSL_PROVIDER_available(g->libctx, "default");
			OSSL_PROVIDER_do_all(g->libctx, look_for_group, &search);
		}
		if (!is_ours(search.first)) {
			ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
				       "%s comes from provider %s first: name epk's section EPK, "
				       "and name it before others", groups[i].name,
				       name_of(search.first));
			return false;
		}
	}
	return true;
}

/* What has gone wrong says more than this. */
static bool handshake_works(const struct checked *g)
{
	const char *group = epkp_rehearse(g->libctx, g->properties);

	if (group)
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "a handshake with %s does not work with wrapped secrets", group);
	return !group;
}

static bool all_secrets_from_epk(struct checked *g)
{
	OSSL_PROVIDER_do_all(g->libctx, note_choices, g);
	return (!g->wraps || (all_wrap(g) && groups_are_first(g) && handshake_works(g))) &&
	       (!g->holds_keys || epkp_keys_go_to_epk(g->libctx, g->properties));
}

/* ---- */

static bool sets_ktls(const CONF_VALUE *value)
{
	const char *dot = strrchr(value->name, '.');

	return !strcasecmp(dot ? dot + 1 : value->name, "Options") &&
	       (is_listed(value->value, "KTLS") || is_listed(value->value, "+KTLS"));
}

/* Sections that there are not are empty. */
static int nr_values(const STACK_OF(CONF_VALUE) *section)
{
	return section ? sk_CONF_VALUE_num(section) : 0;
}

/* In what this file tells libssl: the kernel would get the keys. */
static bool asks_for_ktls(const CONF *conf)
{
	const char *top = NCONF_get_string(conf, NULL, "openssl_conf");
	const char *ssl = top ? NCONF_get_string(conf, top, "ssl_conf") : NULL;
	STACK_OF(CONF_VALUE) *names = ssl ? NCONF_get_section(conf, ssl) : NULL, *commands;
	int i, j;

	for (i = 0; i < nr_values(names); i++) {
		commands = NCONF_get_section(conf, sk_CONF_VALUE_value(names, i)->value);
		for (j = 0; j < nr_values(commands); j++)
			if (sets_ktls(sk_CONF_VALUE_value(commands, j)))
				return true;
	}
	return false;
}

int cipher_check_init(CONF_IMODULE *module, const CONF *conf)
{
	struct checked g = { .libctx = NULL };
	const char *section, *wanted;
	char properties[256];
	bool ktls;

	/* Before anything of the caller's is looked at. */
	if (!epkp_is_of_our_libcrypto(__builtin_return_address(0)))
		return 0;
	/* That which the file is read for. */
	g.libctx = NCONF_get0_libctx(conf);
	section = CONF_imodule_get_value(module);
	if (epkp_is_exempt())
		return epkp_publish_exempt() && EVP_set_default_properties(g.libctx, "");
	wanted = NCONF_get_string(conf, section, "default_properties");
	if (!wanted || strlen(wanted) > sizeof(properties) - sizeof(NOT_OUR_KEYS) - 1) {
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "section %s of the configuration has %s default_properties", section,
			       wanted ? "too long" : "no");
		return 0;
	}
	snprintf(properties, sizeof(properties), "%s," NOT_OUR_KEYS, wanted);
	g.properties = properties;
	ERR_set_mark();
	g.allowed = NCONF_get_string(conf, section, "allow");
	ktls = asks_for_ktls(conf);
	ERR_pop_to_mark();
	if (ktls) {
		ERR_raise_data(ERR_LIB_USER, ERR_R_INIT_FAIL,
			       "Options = KTLS would give the keys to the kernel");
		return 0;
	}
	OSSL_PROVIDER_do_all(g.libctx, allow_cbc, &g);
	return all_from_epk(&g) && none_without_domain(&g) && all_secrets_from_epk(&g) &&
	       epkp_sessions_watch(g.libctx, g.properties, is_listed(g.allowed, "CONTEXTS")) &&
	       EVP_set_default_properties(g.libctx, g.properties) &&
	       epkp_keys_stay_with_others(g.libctx);
}

void cipher_check_finish(CONF_IMODULE *module)
{
	(void)module;
}
