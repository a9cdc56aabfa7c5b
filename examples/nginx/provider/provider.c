// SPDX-License-Identifier: MIT
/*
 * The provider's front door: what it offers, and how it reports errors.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <epk.h>

#include "curve.h"
#include "key.h"
#include "publish.h"
#include "secrets.h"
#include "sessions.h"
#include "whose.h"

#define PROVIDER_VERSION	"0.1"
/*
 * The second is for who has an opinion of its own about "provider", which would replace
 * the first (stunnel).
 */
#define PROPERTIES		"provider=epk,epk.domain=yes"

static const OSSL_ITEM reasons[] = {
	{ EPK_R_NO_DOMAIN, "no memory domain for the cipher context" },
	{ EPK_R_DOMAIN_BEGIN, "cannot open the cipher context's domain" },
	{ EPK_R_DOMAIN_END, "cannot close the cipher context's domain" },
	{ EPK_R_DOMAIN_FREE, "cannot free the cipher context's domain" },
	{ EPK_R_FORKED, "the cipher context belongs to the parent process" },
	{ EPK_R_MEMORY, "out of memory" },
	{ EPK_R_NOT_MOVABLE, "OpenSSL's cipher contexts cannot be moved into a domain" },
	{ EPK_R_NO_COPY, "the cipher context cannot be copied" },
	{ EPK_R_REFUSED, "there is no memory domain for this cipher" },
	{ EPK_R_RANDOM, "no random key" },
	{ EPK_R_NO_KEY, "no key to wrap secrets with" },
	{ EPK_R_KEY_GONE, "the secret has been used, or waited for too long" },
	{ EPK_R_DIGEST, "secrets cannot be derived with this digest" },
	{ EPK_R_DERIVATION, "this cannot be derived from a wrapped secret" },
	{ EPK_R_EXTERNAL_PSK, "PSKs that are not a session's are not supported" },
	{ EPK_R_KEY_EXCHANGE, "the key exchange was not in a domain" },
	{ EPK_R_PUBLIC_KEY, "no key exchange with this public key" },
	{ EPK_R_PRIVATE_KEY, "the private key in the domain cannot do this" },
	{ EPK_R_KEY_FILE, "this private key cannot be in a domain" },
	{ EPK_R_FOREIGN_KEY, "TLS does not use a private key that is in no domain" },
	{ EPK_R_STACK, "the stack is too small for secrets, or not known" },
	{ 0, NULL }
};

#define TEXT_MAX	320

char epkp_refusal[TEXT_MAX];

/* What goes wrong with a secret in an open domain waits: OpenSSL allocates memory for it, and takes locks. */
static __thread struct {
	unsigned int hold;
	enum epk_reason reason;
	const char *file, *func;
	int line;
	char text[TEXT_MAX];
} held_back;

static void tell(struct provider *prov, enum epk_reason reason, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	prov->vset_error(prov->core, reason, fmt, args);
	va_end(args);
}

bool epkp_raise_error(struct provider *prov, const char *file, int line, const char *func,
		      enum epk_reason reason, const char *fmt, ...)
{
	char text[TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (held_back.hold) {
		held_back.reason = reason;
		held_back.file = file;
		held_back.line = line;
		held_back.func = func;
		memcpy(held_back.text, text, sizeof(text));
		return false;
	}

	/* OpenSSL forgets the errors of a provider that does not start. */
	if (!prov->started)
		memcpy(epkp_refusal, text, sizeof(epkp_refusal));
	prov->new_error(prov->core);
	prov->set_error_debug(prov->core, file, line, func);
	tell(prov, reason, "%s", text);
	return false;
}

/* Until epkp_errors_tell() as often: the last is told. */
void epkp_errors_hold_back(void)
{
	if (!held_back.hold++)
		held_back.reason = 0;
}

void epkp_errors_tell(struct provider *prov)
{
	if (--held_back.hold)
		return;
	if (held_back.reason)
		epkp_raise_error(prov, held_back.file, held_back.line, held_back.func,
				 held_back.reason, "%s", held_back.text);
	held_back.reason = 0;
}

static OSSL_ALGORITHM algorithms[NR_CIPHERS + 2];

/* Suites without encryption: nobody gets them by way of a cipher that has no domain. */
static void *refuse_newctx(void *provctx)
{
	raise((struct provider *)provctx, EPK_R_REFUSED, "NULL: it encrypts nothing");
	return NULL;
}

static int refused_params(OSSL_PARAM params[])
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_BLOCK_SIZE);

	return !p || OSSL_PARAM_set_size_t(p, 1);
}

static void refused(void)
{
}

/* OpenSSL calls none of these without a context, and there is none. */
static const OSSL_DISPATCH refused_functions[] = {
	{ OSSL_FUNC_CIPHER_NEWCTX, (void (*)(void))refuse_newctx },
	{ OSSL_FUNC_CIPHER_FREECTX, refused },
	{ OSSL_FUNC_CIPHER_ENCRYPT_INIT, refused },
	{ OSSL_FUNC_CIPHER_DECRYPT_INIT, refused },
	{ OSSL_FUNC_CIPHER_UPDATE, refused },
	{ OSSL_FUNC_CIPHER_FINAL, refused },
	{ OSSL_FUNC_CIPHER_CIPHER, refused },
	{ OSSL_FUNC_CIPHER_GET_PARAMS, (void (*)(void))refused_params },
	{ 0, NULL }
};

static pthread_once_t listed = PTHREAD_ONCE_INIT;

/* All names that OpenSSL's own provider registers, so that ours are found. */
static void list_algorithms(void)
{
	OSSL_ALGORITHM *a = algorithms;
	size_t i;

	for (i = 0; i < NR_CIPHERS; i++)
		if (epkp_ciphers[i].names)
			*a++ = (OSSL_ALGORITHM){
				.algorithm_names = epkp_ciphers[i].names,
				.property_definition = PROPERTIES,
				.implementation = epkp_cipher_functions[i],
				.algorithm_description = "in a memory domain",
			};
	*a++ = (OSSL_ALGORITHM){
		.algorithm_names = "NULL",
		.property_definition = PROPERTIES,
		.implementation = refused_functions,
		.algorithm_description = "refused",
	};
	*a = (OSSL_ALGORITHM){ 0 };
}

#define ALGORITHM(names, functions)	{ names, PROPERTIES, functions, "in a memory domain" }
#define END				{ NULL, NULL, NULL, NULL }

static const OSSL_ALGORITHM kdfs[] = {
	ALGORITHM("TLS13-KDF", epkp_tls13_kdf_functions),
	ALGORITHM("TLS1-PRF", epkp_tls1_prf_functions),
	END
};

static const OSSL_ALGORITHM macs[] = { ALGORITHM("HMAC", epkp_hmac_functions), END };

/* Those of groups, and then those of private keys. */
static OSSL_ALGORITHM keymgmts[NR_GROUPS + NR_KEYMGMTS + 1];
static OSSL_ALGORITHM group_keymgmts[NR_GROUPS + 1], keyexchs[NR_GROUPS + 1];

/* Who looks for one of these by a name that others have does not get ours: see cipher_check.c. */
#define KEY_PROPERTIES	"provider=epk," KEY_PROPERTY "=yes"

static const OSSL_ALGORITHM signatures[] = {
	ALGORITHM("RSA", epkp_signature_functions),
	ALGORITHM("ECDSA", epkp_signature_functions),
	ALGORITHM("ED25519", epkp_signature_functions),
	ALGORITHM("ED448", epkp_signature_functions),
	ALGORITHM("DSA", epkp_signature_functions),
	END
};

static const OSSL_ALGORITHM asym_ciphers[] = { ALGORITHM("RSA", epkp_rsa_cipher_functions), END };

static const OSSL_ALGORITHM decoders[] = {
	{ "PEM", KEY_PROPERTIES ",input=pem", epkp_pem_decoder_functions, "into a memory domain" },
	END
};

static void list_keys(void)
{
	size_t i;

	for (i = 0; i < NR_KEYMGMTS; i++)
		keymgmts[NR_GROUPS + i] = (OSSL_ALGORITHM){ epkp_key_names[i], KEY_PROPERTIES,
							    epkp_key_functions[i], "in a memory domain" };
}

static void list_groups(void)
{
	size_t i;

	for (i = 0; i < NR_GROUPS; i++) {
		keymgmts[i] = (OSSL_ALGORITHM)ALGORITHM(epkp_group_algorithm(i),
							epkp_group_keymgmt_functions[i]);
		group_keymgmts[i] = keymgmts[i];
		keyexchs[i] = (OSSL_ALGORITHM)ALGORITHM(epkp_group_algorithm(i),
							epkp_group_keyexch_functions);
	}
}

static const OSSL_ALGORITHM *keymgmts_of(const struct provider *prov)
{
	if (prov->holds_keys)
		return prov->wraps ? keymgmts : keymgmts + NR_GROUPS;
	return prov->wraps ? group_keymgmts : NULL;
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
	const struct provider *prov = provctx;

	*no_cache = 0;
	if (operation == OSSL_OP_CIPHER)
		return algorithms;
	switch (operation) {
	case OSSL_OP_KDF:
		return prov->wraps ? kdfs : NULL;
	case OSSL_OP_MAC:
		return prov->wraps ? macs : NULL;
	case OSSL_OP_KEYMGMT:
		return keymgmts_of(prov);
	case OSSL_OP_KEYEXCH:
		return prov->wraps ? keyexchs : NULL;
	case OSSL_OP_SIGNATURE:
		return prov->holds_keys ? signatures : NULL;
	case OSSL_OP_ASYM_CIPHER:
		return prov->holds_keys ? asym_ciphers : NULL;
	case OSSL_OP_DECODER:
		return prov->holds_keys ? decoders : NULL;
	default:
		return NULL;
	}
}

static const OSSL_ITEM *get_reason_strings(void *provctx)
{
	(void)provctx;
	return reasons;
}

static const OSSL_PARAM *gettable_params(void *provctx)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, NULL, 0),
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, NULL, 0),
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, NULL, 0),
		OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, NULL),
		OSSL_PARAM_END
	};

	(void)provctx;
	return known;
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p;

	(void)provctx;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "EPK provider"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, PROVIDER_VERSION))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "epk " PROVIDER_VERSION))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
	return !p || OSSL_PARAM_set_int(p, 1);
}

static void teardown(void *provctx)
{
	epkp_sessions_forget(provctx);
	free(provctx);
}

const OSSL_DISPATCH epkp_provider_functions[] = {
	{ OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown },
	{ OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_params },
	{ OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params },
	{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query },
	{ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))epkp_group_capabilities },
	{ OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, (void (*)(void))get_reason_strings },
	{ 0, NULL }
};

/* In a program that is an exception. */
static const OSSL_ALGORITHM *query_nothing(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	(void)operation;
	*no_cache = 0;
	return NULL;
}

static const OSSL_DISPATCH absent_functions[] = {
	{ OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown },
	{ OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_params },
	{ OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params },
	{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query_nothing },
	{ 0, NULL }
};

/* Of the provider's section of openssl.cnf, or NULL. */
static const char *setting(const struct provider *prov, OSSL_FUNC_core_get_params_fn *get,
			   const char *name)
{
	char *value = NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_ptr(name, &value, 0),
		OSSL_PARAM_construct_end()
	};

	return get && get(prov->core, params) && value && *value ? value : NULL;
}

/* "backend = NAME", or EPK_BACKEND. */
static const char *wanted_backend(const struct provider *prov, OSSL_FUNC_core_get_params_fn *get)
{
	const char *wanted = setting(prov, get, "backend");

	if (!wanted)
		wanted = secure_getenv("EPK_BACKEND");
	return wanted && *wanted ? wanted : "auto";
}

/* One of two words, of which the first holds if there is none; -1: another. */
static int choice(struct provider *prov, OSSL_FUNC_core_get_params_fn *get, const char *name,
		  const char *usual, const char *other)
{
	const char *value = setting(prov, get, name);

	if (!value || !strcmp(value, usual))
		return 0;
	if (!strcmp(value, other))
		return 1;
	raise(prov, EPK_R_REFUSED, "%s = %s is neither \"%s\" nor \"%s\"", name, value, usual,
	      other);
	return -1;
}

static bool read_choices(struct provider *prov, OSSL_FUNC_core_get_params_fn *get)
{
	int keys_only = choice(prov, get, "secrets", "wrapped", "keys");
	int any = choice(prov, get, "key_exchange", "domain", "any");

	int any_key = choice(prov, get, "private_keys", "domain", "any");

	prov->wraps = !keys_only;
	prov->any_key_exchange = any > 0;
	prov->holds_keys = !any_key;
	return keys_only >= 0 && any >= 0 && any_key >= 0;
}

static bool start_keys(struct provider *prov)
{
	EVP_MD *md = EVP_MD_fetch(epkp_inner_libctx, "SHA512", NULL);
	const char *why;
	bool ok = epkp_heap_start(md, &why);

	EVP_MD_free(md);
	if (!ok)
		return raise(prov, EPK_R_NOT_MOVABLE, "private keys: %s", why);
	return epkp_keys_start() || raise(prov, EPK_R_MEMORY, "private keys");
}

static bool start(struct provider *prov, OSSL_FUNC_core_get_params_fn *get)
{
	if (epkp_box_setup() || !read_choices(prov, get) ||
	    !epkp_box_start(prov, wanted_backend(prov, get)) || !epkp_ciphers_learn(prov))
		return false;
	if (prov->wraps && !epkp_curves_start())
		return raise(prov, EPK_R_MEMORY, "groups");
	if (prov->holds_keys && !start_keys(prov))
		return false;
	if (!prov->wraps && !prov->holds_keys)
		return true;
	return epkp_vault_start(prov) && (!prov->wraps || epkp_mac_start(prov));
}

static void list_all(void)
{
	list_algorithms();
	list_groups();
	list_keys();
}

__attribute__((visibility("default")))
int OSSL_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in,
		       const OSSL_DISPATCH **out, void **provctx)
{
	OSSL_FUNC_core_get_params_fn *core_get_params = NULL;
	struct provider *prov;

	if (!epkp_is_of_our_libcrypto((const void *)in->function))
		return 0;
	prov = calloc(1, sizeof(*prov));
	if (!prov)
		return 0;
	prov->core = core;
	epkp_decoder_start(in);
	for (; in->function_id; in++) {
		switch (in->function_id) {
		case OSSL_FUNC_CORE_GET_PARAMS:
			core_get_params = OSSL_FUNC_core_get_params(in);
			break;
		case OSSL_FUNC_CORE_NEW_ERROR:
			prov->new_error = OSSL_FUNC_core_new_error(in);
			break;
		case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
			prov->set_error_debug = OSSL_FUNC_core_set_error_debug(in);
			break;
		case OSSL_FUNC_CORE_VSET_ERROR:
			prov->vset_error = OSSL_FUNC_core_vset_error(in);
			break;
		}
	}
	if (!prov->new_error || !prov->set_error_debug || !prov->vset_error) {
		free(prov);
		return 0;
	}
	if (epkp_note_exempt(setting(prov, core_get_params, "except"))) {
		*provctx = prov;
		*out = absent_functions;
		return 1;
	}
	if (!start(prov, core_get_params)) {
		free(prov);
		return 0;
	}
	pthread_once(&listed, list_all);
	prov->started = true;
	epkp_published.secrets = prov->wraps;
	epkp_published.any_key_exchange = prov->any_key_exchange;
	epkp_refusal[0] = 0;
	*provctx = prov;
	*out = epkp_provider_functions;
	return 1;
}
