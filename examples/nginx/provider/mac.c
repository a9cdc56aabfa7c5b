// SPDX-License-Identifier: MIT
/*
 * HMAC.
 *
 * libssl takes the keys of Finished messages and of binders from TLS13-KDF, which gives them
 * wrapped and has them remembered here: as nothing in their bytes tells them from the keys
 * of others, for which the default provider does the work.
 *
 * What is remembered is what a keyed hash makes of a wrapped key, which is no secret.  The keys
 * of others are looked up as well, and who sees which line of the cache that touches, another
 * process on the same core perhaps, learns nothing of them without that hash's key.  As the
 * table is full of newer ones, the key of a handshake that waits for its peer's Finished is
 * forgotten: then it is used as it stands, which is not what the peer has, and the handshake
 * fails.
 */
#ifndef OPENSSL_SUPPRESS_DEPRECATED
#define OPENSSL_SUPPRESS_DEPRECATED
#endif
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/sha.h>

#include "secrets.h"

#define NR_SETS	8192
#define NR_WAYS	8

static uint64_t remembered[NR_SETS][NR_WAYS];
static uint32_t next_way[NR_SETS];

/* Of that hash: what K makes of nothing, so that forked children have the same. */
static uint32_t index_key[8];

bool epkp_mac_start(struct provider *prov)
{
	const uint8_t tweak[8] = { SECRET_INDEX };
	uint8_t made[sizeof(index_key)] = { 0 };
	struct opened o;

	if (!epkp_vault_open(prov, &o))
		return false;
	epkp_mix(&o, tweak, NULL, 0, made, sizeof(made));
	if (!epkp_vault_close(prov, &o))
		return false;
	memcpy(index_key, made, sizeof(made));
	return true;
}

/* Where a key of 32 or 48 bytes would be, and as what.  One compression: no table, no branch. */
static uint64_t *set_of(const uint8_t *key, size_t len, uint64_t *what, size_t *set)
{
	uint8_t message_block[64] = { 0 };
	SHA256_CTX hash;

	memcpy(hash.h, index_key, sizeof(index_key));
	memcpy(message_block, key, len);
	SHA256_Transform(&hash, message_block);
	memcpy(what, hash.h, sizeof(*what));
	*set = hash.h[2] % NR_SETS;
	OPENSSL_cleanse(message_block, sizeof(message_block));
	OPENSSL_cleanse(&hash, sizeof(hash));
	return remembered[*set];
}

void epkp_mac_remember(const uint8_t *wrapped, size_t len)
{
	uint64_t what, *ways;
	uint32_t way;
	size_t set;

	ways = set_of(wrapped, len, &what, &set);
	way = __atomic_fetch_add(&next_way[set], 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ways[way % NR_WAYS], what, __ATOMIC_RELAXED);
}

static bool is_remembered(const uint8_t *key, size_t len)
{
	uint64_t what, *ways;
	bool found = false;
	size_t set;
	int i;

	if (len != 32 && len != 48)
		return false;
	ways = set_of(key, len, &what, &set);
	/* All of them: how many are compared tells nothing of a key. */
	for (i = 0; i < NR_WAYS; i++)
		found |= __atomic_load_n(&ways[i], __ATOMIC_RELAXED) == what;
	/* Zero is an entry that nothing has been put to. */
	return found && what;
}

/**
 * struct mac_ctx - what OpenSSL holds
 * @inner: the default provider's
 * @wrapped: its key is, and @key; then what is to be authenticated, a hash, waits in @data
 */
struct mac_ctx {
	struct provider *prov;
	EVP_MAC_CTX *inner;
	bool wrapped;
	char digest[32];
	uint8_t key[HASH_MAX], data[2 * HASH_MAX];
	size_t key_len, data_len;
};

static void *mac_new(void *prov)
{
	struct mac_ctx *ctx = calloc(1, sizeof(*ctx));
	EVP_MAC *mac = EVP_MAC_fetch(epkp_inner_libctx, "HMAC", NULL);

	if (ctx) {
		ctx->prov = prov;
		ctx->inner = mac ? EVP_MAC_CTX_new(mac) : NULL;
	}
	EVP_MAC_free(mac);
	if (ctx && ctx->inner)
		return ctx;
	free(ctx);
	raise((struct provider *)prov, EPK_R_MEMORY, "HMAC");
	return NULL;
}

static void mac_free(void *vctx)
{
	struct mac_ctx *ctx = vctx;

	if (ctx)
		EVP_MAC_CTX_free(ctx->inner);
	free(ctx);
}

static void *mac_dup(void *vctx)
{
	struct mac_ctx *ctx = vctx, *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *ctx;
	copy->inner = EVP_MAC_CTX_dup(ctx->inner);
	if (copy->inner)
		return copy;
	free(copy);
	return NULL;
}

static bool set_digest(struct mac_ctx *ctx, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_MAC_PARAM_DIGEST);
	char *to = ctx->digest;

	return !p || OSSL_PARAM_get_utf8_string(p, &to, sizeof(ctx->digest)) ||
	       raise(ctx->prov, EPK_R_DIGEST, "with a long name");
}

static bool set_key(struct mac_ctx *ctx, const uint8_t *key, size_t len)
{
	ctx->wrapped = is_remembered(key, len);
	if (ctx->wrapped) {
		memcpy(ctx->key, key, len);
		ctx->key_len = len;
	}
	return ctx->wrapped;
}

/* Other providers are not to be had in the inner library context. */
static int set_inner(struct mac_ctx *ctx, const OSSL_PARAM params[])
{
	OSSL_PARAM kept[16];
	size_t n = 0;

	for (; params->key; params++) {
		if (!strcmp(params->key, OSSL_MAC_PARAM_PROPERTIES) ||
		    (ctx->wrapped && !strcmp(params->key, OSSL_MAC_PARAM_KEY)))
			continue;
		if (n == sizeof(kept) / sizeof(kept[0]) - 1)
			return raise(ctx->prov, EPK_R_DERIVATION, "HMAC with more than %zu parameters",
				     n);
		kept[n++] = *params;
	}
	kept[n] = OSSL_PARAM_construct_end();
	return EVP_MAC_CTX_set_params(ctx->inner, kept);
}

static int mac_set(void *vctx, const OSSL_PARAM params[])
{
	struct mac_ctx *ctx = vctx;
	const OSSL_PARAM *p;

	if (!params || !params->key)
		return 1;
	p = OSSL_PARAM_locate_const(params, OSSL_MAC_PARAM_KEY);
	if (p && p->data && p->data_type == OSSL_PARAM_OCTET_STRING)
		set_key(ctx, p->data, p->data_size);
	return set_digest(ctx, params) && set_inner(ctx, params);
}

static int mac_init(void *vctx, const unsigned char *key, size_t len, const OSSL_PARAM params[])
{
	struct mac_ctx *ctx = vctx;

	ctx->data_len = 0;
	if (!mac_set(ctx, params))
		return 0;
	if (key ? set_key(ctx, key, len) : ctx->wrapped)
		return 1;
	return EVP_MAC_init(ctx->inner, key, len, NULL);
}

static int mac_update(void *vctx, const unsigned char *data, size_t len)
{
	struct mac_ctx *ctx = vctx;

	if (!ctx->wrapped)
		return EVP_MAC_update(ctx->inner, data, len);
	if (len > sizeof(ctx->data) - ctx->data_len)
		return raise(ctx->prov, EPK_R_DERIVATION, "a Finished key is for a hash, not %zu bytes",
			     len);
	memcpy(ctx->data + ctx->data_len, data, len);
	ctx->data_len += len;
	return 1;
}

static bool finish(struct mac_ctx *ctx, uint8_t *out)
{
	const struct hash *hash = epkp_hash_find(ctx->digest);
	struct opened o;

	if (!hash || hash->len != ctx->key_len)
		return raise(ctx->prov, EPK_R_DIGEST, "%s with a key of %zu bytes", ctx->digest,
			     ctx->key_len);
	if (!epkp_vault_open(ctx->prov, &o))
		return false;
	epkp_unwrap(&o, SECRET_FINISHED, o.work->secret, ctx->key, ctx->key_len);
	epkp_hmac_key(&o.work->hmac, hash, o.work->secret, ctx->key_len);
	epkp_hmac_begin(&o.work->hmac);
	epkp_hmac_add(&o.work->hmac, ctx->data, ctx->data_len);
	epkp_hmac_end(&o.work->hmac, out);
	return epkp_vault_close(ctx->prov, &o);
}

static int mac_final(void *vctx, unsigned char *out, size_t *outl, size_t outsize)
{
	struct mac_ctx *ctx = vctx;

	if (!ctx->wrapped)
		return EVP_MAC_final(ctx->inner, out, outl, outsize);
	*outl = ctx->key_len;
	return !out || (outsize >= ctx->key_len && finish(ctx, out));
}

static int mac_get(void *vctx, OSSL_PARAM params[])
{
	struct mac_ctx *ctx = vctx;
	OSSL_PARAM *p;

	if (!ctx->wrapped)
		return EVP_MAC_CTX_get_params(ctx->inner, params);
	p = OSSL_PARAM_locate(params, OSSL_MAC_PARAM_SIZE);
	if (p && !OSSL_PARAM_set_size_t(p, ctx->key_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_MAC_PARAM_BLOCK_SIZE);
	return !p || OSSL_PARAM_set_size_t(p, ctx->key_len == 32 ? 64 : 128);
}

static const OSSL_PARAM *mac_gettable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_size_t(OSSL_MAC_PARAM_SIZE, NULL),
		OSSL_PARAM_size_t(OSSL_MAC_PARAM_BLOCK_SIZE, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

static const OSSL_PARAM *mac_settable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_PROPERTIES, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_MAC_PARAM_KEY, NULL, 0),
		OSSL_PARAM_int(OSSL_MAC_PARAM_DIGEST_NOINIT, NULL),
		OSSL_PARAM_int(OSSL_MAC_PARAM_DIGEST_ONESHOT, NULL),
		OSSL_PARAM_size_t(OSSL_MAC_PARAM_TLS_DATA_SIZE, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

#define FN(id, f)	{ OSSL_FUNC_MAC_##id, (void (*)(void))(f) }

const OSSL_DISPATCH epkp_hmac_functions[] = {
	FN(NEWCTX, mac_new),
	FN(DUPCTX, mac_dup),
	FN(FREECTX, mac_free),
	FN(INIT, mac_init),
	FN(UPDATE, mac_update),
	FN(FINAL, mac_final),
	FN(GET_CTX_PARAMS, mac_get),
	FN(GETTABLE_CTX_PARAMS, mac_gettable),
	FN(SET_CTX_PARAMS, mac_set),
	FN(SETTABLE_CTX_PARAMS, mac_settable),
	{ 0, NULL }
};
