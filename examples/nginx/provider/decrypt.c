// SPDX-License-Identifier: MIT
/*
 * RSA decryption.
 *
 * Of a TLS key exchange with RSA, the premaster secret stays in the domain: libssl gets a
 * handle.  Whether what a client has sent is well formed nobody learns, by no error and by no
 * time that it takes: if it is not, the secret is one that has been drawn (RFC 5246, 7.4.7.1).
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/prov_ssl.h>
#include <openssl/rsa.h>

#include "key.h"

/**
 * struct decrypt_ctx - what OpenSSL holds
 * @padding: RSA_...
 * @oaep, @mgf1: digests
 * @version, @other_version: of TLS, that the premaster secret may begin with
 * @other: in place of all of this, the default provider's
 */
struct decrypt_ctx {
	struct provider *prov;
	struct private_key *key;
	int padding;
	EVP_MD *oaep, *mgf1;
	unsigned int version, other_version;
	EVP_PKEY_CTX *other;
};

static void *decrypt_new(void *prov)
{
	struct decrypt_ctx *ctx = calloc(1, sizeof(*ctx));

	if (ctx) {
		ctx->prov = prov;
		ctx->padding = RSA_PKCS1_PADDING;
	}
	return ctx;
}

static void decrypt_free(void *vctx)
{
	struct decrypt_ctx *ctx = vctx;

	if (!ctx)
		return;
	EVP_MD_free(ctx->oaep);
	EVP_MD_free(ctx->mgf1);
	EVP_PKEY_CTX_free(ctx->other);
	epkp_key_drop(ctx->key);
	free(ctx);
}

static bool set_md(struct decrypt_ctx *ctx, EVP_MD **md, const OSSL_PARAM params[],
		   const char *name)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);
	char digest[64], *to = digest;

	if (!p)
		return true;
	if (!OSSL_PARAM_get_utf8_string(p, &to, sizeof(digest)))
		return false;
	EVP_MD_free(*md);
	*md = EVP_MD_fetch(epkp_inner_libctx, digest, NULL);
	return *md || raise(ctx->prov, EPK_R_DIGEST, "%s", digest);
}

static bool set_padding(struct decrypt_ctx *ctx, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_ASYM_CIPHER_PARAM_PAD_MODE);

	if (p && p->data_type != OSSL_PARAM_UTF8_STRING) {
		if (!OSSL_PARAM_get_int(p, &ctx->padding))
			return false;
	} else if (p) {
		ctx->padding = !strcasecmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) ?
			       RSA_PKCS1_PADDING :
			       !strcasecmp(p->data, OSSL_PKEY_RSA_PAD_MODE_OAEP) ?
			       RSA_PKCS1_OAEP_PADDING : -1;
	}
	return ctx->padding == RSA_PKCS1_PADDING || ctx->padding == RSA_PKCS1_OAEP_PADDING ||
	       ctx->padding == RSA_PKCS1_WITH_TLS_PADDING ||
	       raise(ctx->prov, EPK_R_PRIVATE_KEY, "padding %d", ctx->padding);
}

static int decrypt_set(void *vctx, const OSSL_PARAM params[])
{
	struct decrypt_ctx *ctx = vctx;
	const OSSL_PARAM *p;

	if (!params || !params->key)
		return 1;
	if (ctx->other)
		return EVP_PKEY_CTX_set_params(ctx->other, params);
	p = OSSL_PARAM_locate_const(params, OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION);
	if (p && !OSSL_PARAM_get_uint(p, &ctx->version))
		return 0;
	p = OSSL_PARAM_locate_const(params, OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION);
	if (p && !OSSL_PARAM_get_uint(p, &ctx->other_version))
		return 0;
	return set_padding(ctx, params) &&
	       set_md(ctx, &ctx->oaep, params, OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST) &&
	       set_md(ctx, &ctx->mgf1, params, OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST);
}

static const OSSL_PARAM *decrypt_settable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, NULL, 0),
		OSSL_PARAM_uint(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, NULL),
		OSSL_PARAM_uint(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

static int decrypt_get(void *vctx, OSSL_PARAM params[])
{
	struct decrypt_ctx *ctx = vctx;
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_ASYM_CIPHER_PARAM_PAD_MODE);

	if (ctx->other)
		return EVP_PKEY_CTX_get_params(ctx->other, params);
	return !p || p->data_type == OSSL_PARAM_UTF8_STRING ||
	       OSSL_PARAM_set_int(p, ctx->padding);
}

static const OSSL_PARAM *decrypt_gettable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_int(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

static bool set_key(struct decrypt_ctx *ctx, struct private_key *key)
{
	if (key) {
		epkp_key_hold(key);
		epkp_key_drop(ctx->key);
		ctx->key = key;
	}
	EVP_PKEY_CTX_free(ctx->other);
	ctx->other = NULL;
	return ctx->key && epkp_key_is_there(ctx->key);
}

static bool set_other(struct decrypt_ctx *ctx)
{
	ctx->other = EVP_PKEY_CTX_new_from_pkey(epkp_inner_libctx, ctx->key->pkey, NULL);
	return ctx->other;
}

/* ---- in the room */

struct decryption {
	const struct decrypt_ctx *ctx;
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t *out_len, size;
};

/* All ones if @a and @b are the same. */
static uint32_t same(uint32_t a, uint32_t b)
{
	uint32_t differ = a ^ b;

	return ((differ | -differ) >> 31) - 1;
}

/* All ones if @message is 00 02, bytes that are not zero, 00 and a premaster secret. */
static uint32_t is_premaster(const struct decrypt_ctx *ctx, const uint8_t *message, size_t len)
{
	const uint8_t *secret = message + len - MASTER_LEN;
	uint32_t good = same(message[0], 0) & same(message[1], 2) & same(secret[-1], 0), version;
	size_t i;

	for (i = 2; i < len - MASTER_LEN - 1; i++)
		good &= ~same(message[i], 0);
	version = same(secret[0], ctx->version >> 8 & 0xff) & same(secret[1], ctx->version & 0xff);
	if (ctx->other_version)
		version |= same(secret[0], ctx->other_version >> 8 & 0xff) &
			   same(secret[1], ctx->other_version & 0xff);
	return good & version;
}

static bool give(const struct decryption *d, const uint8_t *secret)
{
	struct provider *prov = d->ctx->prov;
	struct opened o;

	*d->out_len = MASTER_LEN;
	if (!prov->wraps) {
		memcpy(d->out, secret, MASTER_LEN);
		return true;
	}
	if (!epkp_vault_open(prov, &o))
		return false;
	epkp_handle_give(&o, d->out, secret, MASTER_LEN, NULL);
	return epkp_vault_close(prov, &o);
}

static bool decrypt_premaster(void *rsa, struct decryption *d)
{
	size_t len = RSA_size(rsa), i;
	uint8_t *message = OPENSSL_malloc(len), *drawn = OPENSSL_malloc(MASTER_LEN);
	uint8_t *secret = message + len - MASTER_LEN;
	uint32_t good;
	bool ok = message && drawn && getrandom(drawn, MASTER_LEN, 0) == MASTER_LEN &&
		  RSA_private_decrypt(d->in_len, d->in, message, rsa, RSA_NO_PADDING) == (int)len;

	if (ok) {
		good = is_premaster(d->ctx, message, len);
		for (i = 0; i < MASTER_LEN; i++)
			secret[i] = (secret[i] & good) | (drawn[i] & ~good);
		ok = give(d, secret);
	}
	OPENSSL_clear_free(message, len);
	OPENSSL_clear_free(drawn, MASTER_LEN);
	return ok;
}

static bool decrypt_oaep(void *rsa, struct decryption *d)
{
	size_t len = RSA_size(rsa);
	uint8_t *message = OPENSSL_malloc(len);
	int got = -1;

	if (message &&
	    RSA_private_decrypt(d->in_len, d->in, message, rsa, RSA_NO_PADDING) == (int)len)
		got = RSA_padding_check_PKCS1_OAEP_mgf1(d->out, d->size, message, len, len, NULL, 0,
							d->ctx->oaep, d->ctx->mgf1);
	OPENSSL_clear_free(message, len);
	*d->out_len = got;
	return got >= 0;
}

static bool decrypt_in_room(void *rsa, void *arg)
{
	struct decryption *d = arg;
	int got;

	if (d->ctx->padding == RSA_PKCS1_WITH_TLS_PADDING)
		return decrypt_premaster(rsa, d);
	if (d->ctx->padding == RSA_PKCS1_OAEP_PADDING)
		return decrypt_oaep(rsa, d);
	got = RSA_private_decrypt(d->in_len, d->in, d->out, rsa, RSA_PKCS1_PADDING);
	*d->out_len = got;
	return got >= 0;
}

/* ---- */

static int decrypt_init(void *vctx, void *key, const OSSL_PARAM params[])
{
	struct decrypt_ctx *ctx = vctx;

	if (!set_key(ctx, key))
		return 0;
	if (!ctx->key->kind)
		return set_other(ctx) && EVP_PKEY_decrypt_init_ex(ctx->other, params) > 0;
	return decrypt_set(ctx, params);
}

static int decrypt(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		   const unsigned char *in, size_t in_len)
{
	struct decrypt_ctx *ctx = vctx;
	struct decryption d = { ctx, in, in_len, out, out_len, size };
	size_t wanted = ctx->padding == RSA_PKCS1_WITH_TLS_PADDING ? MASTER_LEN : ctx->key->size;

	if (ctx->other) {
		*out_len = size;
		return (!out || epkp_key_is_for_caller(ctx->key)) &&
		       EVP_PKEY_decrypt(ctx->other, out, out_len, in, in_len);
	}
	*out_len = wanted;
	if (!out)
		return 1;
	if (size < wanted)
		return raise(ctx->prov, EPK_R_PRIVATE_KEY, "room for %zu bytes, not %zu", size,
			     wanted);
	if (ctx->padding == RSA_PKCS1_OAEP_PADDING && !ctx->oaep) {
		ctx->oaep = EVP_MD_fetch(epkp_inner_libctx, "SHA1", NULL);
		if (!ctx->oaep)
			return 0;
	}
	return epkp_key_use(ctx->key, decrypt_in_room, &d);
}

static int encrypt_init(void *vctx, void *key, const OSSL_PARAM params[])
{
	struct decrypt_ctx *ctx = vctx;

	return set_key(ctx, key) && set_other(ctx) &&
	       EVP_PKEY_encrypt_init_ex(ctx->other, params) > 0;
}

static int encrypt(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		   const unsigned char *in, size_t in_len)
{
	struct decrypt_ctx *ctx = vctx;

	*out_len = size;
	return EVP_PKEY_encrypt(ctx->other, out, out_len, in, in_len);
}

#define FN(id, f)	{ OSSL_FUNC_ASYM_CIPHER_##id, (void (*)(void))(f) }

const OSSL_DISPATCH epkp_rsa_cipher_functions[] = {
	FN(NEWCTX, decrypt_new),
	FN(FREECTX, decrypt_free),
	FN(DECRYPT_INIT, decrypt_init),
	FN(DECRYPT, decrypt),
	FN(ENCRYPT_INIT, encrypt_init),
	FN(ENCRYPT, encrypt),
	FN(SET_CTX_PARAMS, decrypt_set),
	FN(SETTABLE_CTX_PARAMS, decrypt_settable),
	FN(GET_CTX_PARAMS, decrypt_get),
	FN(GETTABLE_CTX_PARAMS, decrypt_gettable),
	{ 0, NULL }
};
