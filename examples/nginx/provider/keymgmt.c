// SPDX-License-Identifier: MIT
/*
 * What OpenSSL can ask of keys that certificates have, and of their private halves.
 *
 * Keys that are made, and public ones, are the default provider's, as nobody prefers ours: see
 * cipher_check.c.  But they come here when somebody signs, because ours of the signatures are
 * preferred, and then and now because OpenSSL finds in a cache what it has looked for in this
 * provider alone.  So they are taken, kept in ordinary memory, and used by means of the
 * default provider: for all but TLS, see epkp_key_is_for_caller().
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "key.h"

const char *const epkp_key_names[NR_KEYMGMTS] = {
	[PEM_RSA] = "RSA", [PEM_EC] = "EC", [PEM_ED25519] = "ED25519", [PEM_ED448] = "ED448",
	[NR_KINDS] = "RSA-PSS", [NR_KINDS + 1] = "DSA",
};

/* A private key that is in ordinary memory is none that TLS uses. */
bool epkp_key_is_for_caller(const struct private_key *key)
{
	return key->kind || !epkp_called_by_libssl() ||
	       raise(key->prov, EPK_R_FOREIGN_KEY, "%s: it is not from a PEM file that was read "
		     "with the provider; \"private_keys = any\" takes others", key->type);
}

/* Who is told of one that was refused asks for it no more, and gets nothing out of it. */
bool epkp_key_is_there(const struct private_key *key)
{
	return key->pkey || (key->refused && raise(key->prov, EPK_R_KEY_FILE, "%s", key->refused));
}

static void *key_load(const void *vreference, size_t size)
{
	const struct key_reference *reference = vreference;

	if (size != sizeof(*reference) || reference->what != KEY_REFERENCE)
		return NULL;
	return epkp_key_hold(reference->key);
}

static void key_free(void *key)
{
	epkp_key_drop(key);
}

/* What is in a domain never changes. */
static void *key_dup(const void *vkey, int selection)
{
	const struct private_key *key = vkey;
	struct private_key *copy;

	(void)selection;
	if (key->kind || key->refused)
		return epkp_key_hold((struct private_key *)key);
	copy = epkp_key_make(key->prov, key->type);
	if (copy && key->pkey)
		copy->pkey = EVP_PKEY_dup(key->pkey);
	if (copy && !copy->pkey == !key->pkey)
		return copy;
	epkp_key_drop(copy);
	return NULL;
}

/* Asked for a number that only a private half has. */
static bool has_private(const struct private_key *key)
{
	static const char *const names[] = { OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_PRIV_KEY };
	BIGNUM *number = NULL;
	size_t i, len = 0;
	bool has = key->kind;

	ERR_set_mark();
	for (i = 0; i < 2 && !has; i++) {
		has = EVP_PKEY_get_bn_param(key->pkey, names[i], &number) > 0;
		BN_clear_free(number);
		number = NULL;
	}
	has = has || EVP_PKEY_get_raw_private_key(key->pkey, NULL, &len) > 0;
	ERR_pop_to_mark();
	return has;
}

static bool has_public(const struct private_key *key)
{
	BIGNUM *number = NULL;
	size_t len = 0;
	bool has;

	ERR_set_mark();
	has = key->kind || EVP_PKEY_get_raw_public_key(key->pkey, NULL, &len) > 0 ||
	      EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, NULL, 0, &len) ||
	      EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_N, &number) ||
	      EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, &number);
	ERR_pop_to_mark();
	BN_free(number);
	return has;
}

static int key_has(const void *vkey, int selection)
{
	const struct private_key *key = vkey;

	if (key && key->refused)
		return 1;
	return key && key->pkey &&
	       (!(selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) || has_public(key)) &&
	       (!(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || has_private(key));
}

static int key_match(const void *va, const void *vb, int selection)
{
	const struct private_key *a = va, *b = vb;

	if (!epkp_key_is_there(a) || !epkp_key_is_there(b))
		return 0;
	if (!(selection & OSSL_KEYMGMT_SELECT_KEYPAIR))
		return EVP_PKEY_parameters_eq(a->pkey, b->pkey) > 0;
	return EVP_PKEY_eq(a->pkey, b->pkey) > 0;
}

static int key_get(void *vkey, OSSL_PARAM params[])
{
	const struct private_key *key = vkey;

	return key->pkey && EVP_PKEY_get_params(key->pkey, params);
}

static int key_set(void *vkey, const OSSL_PARAM params[])
{
	const struct private_key *key = vkey;

	return !key->kind && key->pkey && EVP_PKEY_set_params(key->pkey, (OSSL_PARAM *)params);
}

static const OSSL_PARAM *key_params(void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
		OSSL_PARAM_END
	};

	(void)prov;
	return known;
}

/* Of a key in a domain, the public half. */
static int key_export(void *vkey, int selection, OSSL_CALLBACK *cb, void *arg)
{
	const struct private_key *key = vkey;

	if (!epkp_key_is_there(key))
		return 0;
	if (key->kind && selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)
		return raise(key->prov, EPK_R_PRIVATE_KEY, "it does not leave its domain");
	return EVP_PKEY_export(key->pkey, selection, cb, arg);
}

/* Who signs has its key exported whole: a public one is better off where it is. */
static bool is_public_alone(int selection, const OSSL_PARAM params[])
{
	return selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY &&
	       !OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PRIV_KEY) &&
	       !OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_RSA_D);
}

static int key_import(void *vkey, int selection, const OSSL_PARAM params[])
{
	struct private_key *key = vkey;
	EVP_PKEY_CTX *ctx;
	int ok;

	if (key->pkey || is_public_alone(selection, params))
		return 0;
	ctx = EVP_PKEY_CTX_new_from_name(epkp_inner_libctx, key->type, NULL);
	ok = ctx && EVP_PKEY_fromdata_init(ctx) > 0 &&
	     EVP_PKEY_fromdata(ctx, &key->pkey, selection, (OSSL_PARAM *)params) > 0;
	EVP_PKEY_CTX_free(ctx);
	return ok;
}

/* OpenSSL asks for no more than whether there are some. */
static const OSSL_PARAM *key_types(int selection)
{
	(void)selection;
	return key_params(NULL);
}

static int key_validate(const void *vkey, int selection, int checktype)
{
	const struct private_key *key = vkey;
	EVP_PKEY_CTX *ctx = key->pkey ? EVP_PKEY_CTX_new_from_pkey(epkp_inner_libctx, key->pkey,
								   NULL) :
			    NULL;
	int ok;

	(void)checktype;
	if (key->kind)
		selection &= ~OSSL_KEYMGMT_SELECT_PRIVATE_KEY;
	if ((selection & OSSL_KEYMGMT_SELECT_KEYPAIR) == OSSL_KEYMGMT_SELECT_KEYPAIR)
		ok = EVP_PKEY_check(ctx);
	else if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)
		ok = EVP_PKEY_private_check(ctx);
	else if (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY)
		ok = EVP_PKEY_public_check(ctx);
	else
		ok = EVP_PKEY_param_check(ctx);
	EVP_PKEY_CTX_free(ctx);
	return ok > 0;
}

/* ---- keys that programs make */

struct generation {
	struct provider *prov;
	const char *type;
	int selection;
	EVP_PKEY_CTX *ctx;
};

static int start_generation(struct generation *gen)
{
	if (!gen->ctx)
		return 0;
	return gen->selection & OSSL_KEYMGMT_SELECT_KEYPAIR ? EVP_PKEY_keygen_init(gen->ctx) :
							      EVP_PKEY_paramgen_init(gen->ctx);
}

static int gen_set(void *vgen, const OSSL_PARAM params[])
{
	struct generation *gen = vgen;

	return !params || !params->key || EVP_PKEY_CTX_set_params(gen->ctx, params) > 0;
}

static void gen_cleanup(void *vgen)
{
	struct generation *gen = vgen;

	if (gen)
		EVP_PKEY_CTX_free(gen->ctx);
	free(gen);
}

static void *gen_init(void *prov, size_t which, int selection, const OSSL_PARAM params[])
{
	struct generation *gen = calloc(1, sizeof(*gen));

	if (!gen)
		return NULL;
	*gen = (struct generation){
		prov, epkp_key_names[which], selection,
		EVP_PKEY_CTX_new_from_name(epkp_inner_libctx, epkp_key_names[which], NULL)
	};
	if (start_generation(gen) > 0 && gen_set(gen, params))
		return gen;
	gen_cleanup(gen);
	return NULL;
}

static int gen_template(void *vgen, void *vkey)
{
	struct private_key *key = vkey;
	struct generation *gen = vgen;

	if (!key->pkey)
		return 0;
	EVP_PKEY_CTX_free(gen->ctx);
	gen->ctx = EVP_PKEY_CTX_new_from_pkey(epkp_inner_libctx, key->pkey, NULL);
	return start_generation(gen) > 0;
}

static const OSSL_PARAM *gen_settable(void *vgen, void *prov)
{
	struct generation *gen = vgen;

	(void)prov;
	return EVP_PKEY_CTX_settable_params(gen->ctx);
}

static void *gen_run(void *vgen, OSSL_CALLBACK *cb, void *arg)
{
	struct generation *gen = vgen;
	struct private_key *key = epkp_key_make(gen->prov, gen->type);

	(void)cb;
	(void)arg;
	if (key && EVP_PKEY_generate(gen->ctx, &key->pkey) > 0)
		return key;
	epkp_key_drop(key);
	return NULL;
}

/* ---- */

static const char *operation_name(size_t which, int operation)
{
	if (which == PEM_EC)
		return operation == OSSL_OP_KEYEXCH ? "ECDH" : "ECDSA";
	return which == NR_KINDS ? "RSA" : epkp_key_names[which];
}

/* OpenSSL tells a function of an algorithm not which it is. */
#define KIND(i)										\
	static void *new_##i(void *prov)						\
	{										\
		return epkp_key_make(prov, epkp_key_names[i]);				\
	}										\
	static void *gen_init_##i(void *prov, int selection, const OSSL_PARAM params[])	\
	{										\
		return gen_init(prov, i, selection, params);				\
	}										\
	static const char *operation_##i(int operation)					\
	{										\
		return operation_name(i, operation);					\
	}

#define FN(id, f)	{ OSSL_FUNC_KEYMGMT_##id, (void (*)(void))(f) }

#define FUNCTIONS(i)									\
	{										\
		FN(NEW, new_##i),							\
		FN(LOAD, key_load),							\
		FN(FREE, key_free),							\
		FN(DUP, key_dup),							\
		FN(HAS, key_has),							\
		FN(MATCH, key_match),							\
		FN(VALIDATE, key_validate),						\
		FN(GET_PARAMS, key_get),						\
		FN(GETTABLE_PARAMS, key_params),					\
		FN(SET_PARAMS, key_set),						\
		FN(SETTABLE_PARAMS, key_params),					\
		FN(EXPORT, key_export),							\
		FN(EXPORT_TYPES, key_types),						\
		FN(IMPORT, key_import),							\
		FN(IMPORT_TYPES, key_types),						\
		FN(GEN_INIT, gen_init_##i),						\
		FN(GEN_SET_PARAMS, gen_set),						\
		FN(GEN_SETTABLE_PARAMS, gen_settable),					\
		FN(GEN_SET_TEMPLATE, gen_template),					\
		FN(GEN, gen_run),							\
		FN(GEN_CLEANUP, gen_cleanup),						\
		FN(QUERY_OPERATION_NAME, operation_##i),				\
		{ 0, NULL }								\
	}

KIND(0) KIND(1) KIND(2) KIND(3) KIND(4) KIND(5)

const OSSL_DISPATCH epkp_key_functions[NR_KEYMGMTS][24] = {
	FUNCTIONS(0), FUNCTIONS(1), FUNCTIONS(2), FUNCTIONS(3), FUNCTIONS(4), FUNCTIONS(5),
};
