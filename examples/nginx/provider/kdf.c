// SPDX-License-Identifier: MIT
/*
 * The two KDFs of libssl, as OpenSSL calls them.
 *
 * The label says what comes out: a secret that libssl carries on, which it gets wrapped or
 * as a handle, or something that it uses itself (an IV, verify_data, what an application
 * exports), which is what it is.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "secrets.h"

/**
 * struct kdf_ctx - what OpenSSL holds
 * @is_prf: TLS1-PRF, not TLS13-KDF
 * @inner: the default provider's, for an application that sets parameters before
 */
struct kdf_ctx {
	struct provider *prov;
	bool is_prf;
	EVP_KDF_CTX *inner;
};

/*
 * What a key exchange has agreed on.  Groups of ours give a handle; anything else stood in
 * ordinary memory, as the private keys that it came from did.
 */
enum taken epkp_take_shared(struct provider *prov, struct opened *o, const uint8_t *from,
			    size_t len)
{
	int taken = epkp_handle_take(prov, o, o->work->secret, from, len);

	if (taken >= 0)
		return taken ? TAKEN_OURS : TAKEN_NOT;
	if (!prov->any_key_exchange || len > sizeof(o->work->secret))
		return raise(prov, EPK_R_KEY_EXCHANGE,
			     "with x25519, secp256r1 and secp384r1 alone it is in a domain; "
			     "\"key_exchange = any\" takes others");
	memcpy(o->work->secret, from, len);
	return TAKEN_FOREIGN;
}

static void *kdf_new(void *prov, bool is_prf)
{
	struct kdf_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx) {
		raise((struct provider *)prov, EPK_R_MEMORY, "%zu bytes", sizeof(*ctx));
		return NULL;
	}
	ctx->prov = prov;
	ctx->is_prf = is_prf;
	return ctx;
}

static void *tls13_new(void *prov)
{
	return kdf_new(prov, false);
}

static void *prf_new(void *prov)
{
	return kdf_new(prov, true);
}

static void kdf_reset(void *vctx)
{
	struct kdf_ctx *ctx = vctx;

	EVP_KDF_CTX_free(ctx->inner);
	ctx->inner = NULL;
}

static void kdf_free(void *ctx)
{
	if (ctx)
		kdf_reset(ctx);
	free(ctx);
}

/* For an application's own PRF, with secrets of its own. */
static bool have_inner(struct kdf_ctx *ctx)
{
	EVP_KDF *kdf = ctx->inner ? NULL : EVP_KDF_fetch(epkp_inner_libctx, "TLS1-PRF", NULL);

	if (kdf)
		ctx->inner = EVP_KDF_CTX_new(kdf);
	EVP_KDF_free(kdf);
	return ctx->inner;
}

/* libssl sets nothing before it derives. */
static int kdf_set(void *vctx, const OSSL_PARAM params[])
{
	struct kdf_ctx *ctx = vctx;

	if (!params || !params->key)
		return 1;
	if (!ctx->is_prf)
		return raise(ctx->prov, EPK_R_DERIVATION, "TLS13-KDF is for libssl alone");
	return have_inner(ctx) && EVP_KDF_CTX_set_params(ctx->inner, params) > 0;
}

static const struct hash *hash_of(struct provider *prov, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_DIGEST);
	const char *name = p && p->data_type == OSSL_PARAM_UTF8_STRING ? p->data : NULL;
	const struct hash *hash = epkp_hash_find(name);

	if (!hash)
		raise(prov, EPK_R_DIGEST, "%s, which TLS 1.2 and 1.3 do not derive with",
		      name ? name : "none");
	return hash;
}

static int kdf_derive(void *vctx, unsigned char *out, size_t outlen, const OSSL_PARAM params[])
{
	struct kdf_ctx *ctx = vctx;
	const struct hash *hash;
	struct opened o;
	bool ok;

	if (ctx->is_prf && (ctx->inner || !epkp_prf_is_libssls(params)))
		return have_inner(ctx) && EVP_KDF_derive(ctx->inner, out, outlen, params) > 0;
	hash = params ? hash_of(ctx->prov, params) : NULL;
	if (!hash || !epkp_vault_open(ctx->prov, &o))
		return 0;
	ok = (ctx->is_prf ? epkp_prf_derive : epkp_tls13_derive)(ctx->prov, &o, hash, out, outlen,
								 params);
	return epkp_vault_close(ctx->prov, &o) && ok;
}

static const OSSL_PARAM *kdf_settable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_PROPERTIES, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_int(OSSL_KDF_PARAM_MODE, NULL),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_PREFIX, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_LABEL, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_DATA, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SECRET, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SEED, NULL, 0),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

static int kdf_get(void *ctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_KDF_PARAM_SIZE);

	(void)ctx;
	return !p || OSSL_PARAM_set_size_t(p, SIZE_MAX);
}

static const OSSL_PARAM *kdf_gettable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_size_t(OSSL_KDF_PARAM_SIZE, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

#define FN(id, f)	{ OSSL_FUNC_KDF_##id, (void (*)(void))(f) }

#define FUNCTIONS(new)									\
	{										\
		FN(NEWCTX, new),							\
		FN(FREECTX, kdf_free),							\
		FN(RESET, kdf_reset),							\
		FN(DERIVE, kdf_derive),							\
		FN(SET_CTX_PARAMS, kdf_set),						\
		FN(SETTABLE_CTX_PARAMS, kdf_settable),					\
		FN(GET_CTX_PARAMS, kdf_get),						\
		FN(GETTABLE_CTX_PARAMS, kdf_gettable),					\
		{ 0, NULL }								\
	}

const OSSL_DISPATCH epkp_tls13_kdf_functions[] = FUNCTIONS(tls13_new);
const OSSL_DISPATCH epkp_tls1_prf_functions[] = FUNCTIONS(prf_new);
