// SPDX-License-Identifier: MIT
/*
 * Signatures: what is signed is hashed and padded in ordinary memory, and signed in the key's
 * room.  What is done with the public half is the default provider's, and all that is done
 * with a key in no domain.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "key.h"

#define NO_SALT_LEN	(-100)

/**
 * struct sign_ctx - what OpenSSL holds
 * @md, @mgf1: of @digest and for PSS, from the inner library context
 * @hash: of what is to be signed
 * @padding, @salt_len: of RSA
 * @other, @other_hash: in place of all of this, the default provider's
 */
struct sign_ctx {
	struct provider *prov;
	struct private_key *key;
	EVP_MD *md, *mgf1;
	EVP_MD_CTX *hash;
	int padding, salt_len;
	EVP_MD_CTX *other;
	EVP_PKEY_CTX *other_hash;
};

static bool is_of(const struct sign_ctx *ctx, enum pem_type type)
{
	return ctx->key->kind == &epkp_key_kinds[type];
}

static bool is_eddsa(const struct sign_ctx *ctx)
{
	return is_of(ctx, PEM_ED25519) || is_of(ctx, PEM_ED448);
}

static void *sign_new(void *prov, const char *properties)
{
	struct sign_ctx *ctx = calloc(1, sizeof(*ctx));

	(void)properties;
	if (ctx) {
		ctx->prov = prov;
		ctx->padding = RSA_PKCS1_PADDING;
		ctx->salt_len = NO_SALT_LEN;
	}
	return ctx;
}

static void forget(struct sign_ctx *ctx)
{
	EVP_MD_free(ctx->md);
	EVP_MD_free(ctx->mgf1);
	EVP_MD_CTX_free(ctx->hash);
	EVP_MD_CTX_free(ctx->other);
	EVP_PKEY_CTX_free(ctx->other_hash);
	epkp_key_drop(ctx->key);
}

static void sign_free(void *vctx)
{
	if (vctx)
		forget(vctx);
	free(vctx);
}

static EVP_MD *hold(EVP_MD *md)
{
	return md && EVP_MD_up_ref(md) ? md : NULL;
}

static EVP_MD_CTX *copy_hash(const EVP_MD_CTX *hash)
{
	EVP_MD_CTX *copy = hash ? EVP_MD_CTX_new() : NULL;

	if (copy && EVP_MD_CTX_copy_ex(copy, hash) > 0)
		return copy;
	EVP_MD_CTX_free(copy);
	return NULL;
}

static void *sign_dup(void *vctx)
{
	const struct sign_ctx *ctx = vctx;
	struct sign_ctx *copy = sign_new(ctx->prov, NULL);

	if (!copy)
		return NULL;
	copy->padding = ctx->padding;
	copy->salt_len = ctx->salt_len;
	copy->key = ctx->key ? epkp_key_hold(ctx->key) : NULL;
	copy->md = hold(ctx->md);
	copy->mgf1 = hold(ctx->mgf1);
	copy->hash = copy_hash(ctx->hash);
	copy->other = copy_hash(ctx->other);
	copy->other_hash = ctx->other_hash ? EVP_PKEY_CTX_dup(ctx->other_hash) : NULL;
	if (!copy->hash == !ctx->hash && !copy->other == !ctx->other &&
	    !copy->other_hash == !ctx->other_hash)
		return copy;
	sign_free(copy);
	return NULL;
}

/* ---- parameters */

static bool set_md(struct sign_ctx *ctx, EVP_MD **md, const char *name)
{
	EVP_MD *found = EVP_MD_fetch(epkp_inner_libctx, name, NULL);

	if (!found)
		return raise(ctx->prov, EPK_R_DIGEST, "%s", name);
	EVP_MD_free(*md);
	*md = found;
	return true;
}

static bool set_md_param(struct sign_ctx *ctx, EVP_MD **md, const OSSL_PARAM params[],
			 const char *name)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);
	char digest[64], *to = digest;

	return !p || (OSSL_PARAM_get_utf8_string(p, &to, sizeof(digest)) &&
		      set_md(ctx, md, digest));
}

struct word {
	const char *name;
	int value;
};

/* A number, or one of these words. */
static bool get_choice(const OSSL_PARAM params[], const char *name, const struct word *words,
		       int *value)
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, name);

	if (!p)
		return true;
	if (p->data_type != OSSL_PARAM_UTF8_STRING)
		return OSSL_PARAM_get_int(p, value);
	for (; words->name; words++) {
		if (!strcasecmp(p->data, words->name)) {
			*value = words->value;
			return true;
		}
	}
	*value = atoi(p->data);
	return true;
}

static const struct word paddings[] = {
	{ OSSL_PKEY_RSA_PAD_MODE_NONE, RSA_NO_PADDING },
	{ OSSL_PKEY_RSA_PAD_MODE_PKCSV15, RSA_PKCS1_PADDING },
	{ OSSL_PKEY_RSA_PAD_MODE_PSS, RSA_PKCS1_PSS_PADDING },
	{ NULL, 0 }
};

static const struct word salt_lens[] = {
	{ OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, RSA_PSS_SALTLEN_DIGEST },
	{ OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, RSA_PSS_SALTLEN_MAX },
	{ OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, RSA_PSS_SALTLEN_AUTO },
	{ NULL, 0 }
};

static int sign_set(void *vctx, const OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;

	if (!params || !params->key)
		return 1;
	if (ctx->other)
		return EVP_PKEY_CTX_set_params(EVP_MD_CTX_get_pkey_ctx(ctx->other), params);
	if (ctx->other_hash)
		return EVP_PKEY_CTX_set_params(ctx->other_hash, params);
	if (!set_md_param(ctx, &ctx->md, params, OSSL_SIGNATURE_PARAM_DIGEST) ||
	    !set_md_param(ctx, &ctx->mgf1, params, OSSL_SIGNATURE_PARAM_MGF1_DIGEST) ||
	    !get_choice(params, OSSL_SIGNATURE_PARAM_PAD_MODE, paddings, &ctx->padding) ||
	    !get_choice(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN, salt_lens, &ctx->salt_len))
		return 0;
	if (ctx->padding != RSA_NO_PADDING && ctx->padding != RSA_PKCS1_PADDING &&
	    ctx->padding != RSA_PKCS1_PSS_PADDING)
		return raise(ctx->prov, EPK_R_PRIVATE_KEY, "padding %d", ctx->padding);
	return 1;
}

static const OSSL_PARAM *sign_settable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PROPERTIES, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_PROPERTIES, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

/* As X.509 has it, for who signs requests; but for PSS, whose parameters it has too. */
static int get_algorithm(const struct sign_ctx *ctx, OSSL_PARAM *p)
{
	static const int keys[] = { [PEM_RSA] = NID_rsaEncryption,
				    [PEM_EC] = NID_X9_62_id_ecPublicKey };
	size_t kind = ctx->key->kind - epkp_key_kinds;
	int nid = kind == PEM_ED25519 ? NID_ED25519 : NID_ED448, len, ok;
	X509_ALGOR *algorithm;
	uint8_t *der = NULL;

	if (ctx->padding == RSA_PKCS1_PSS_PADDING ||
	    (!is_eddsa(ctx) && (!ctx->md || !OBJ_find_sigid_by_algs(&nid, EVP_MD_get_type(ctx->md),
								     keys[kind]))))
		return 0;
	algorithm = X509_ALGOR_new();
	ok = algorithm && X509_ALGOR_set0(algorithm, OBJ_nid2obj(nid),
					  kind == PEM_RSA ? V_ASN1_NULL : V_ASN1_UNDEF, NULL);
	len = ok ? i2d_X509_ALGOR(algorithm, &der) : 0;
	ok = len > 0 && OSSL_PARAM_set_octet_string(p, der, len);
	OPENSSL_free(der);
	X509_ALGOR_free(algorithm);
	return ok;
}

static int sign_get(void *vctx, OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID);

	if (ctx->other)
		return EVP_PKEY_CTX_get_params(EVP_MD_CTX_get_pkey_ctx(ctx->other), params);
	if (ctx->other_hash)
		return EVP_PKEY_CTX_get_params(ctx->other_hash, params);
	if (p && !get_algorithm(ctx, p))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_DIGEST);
	if (p && ctx->md && !OSSL_PARAM_set_utf8_string(p, EVP_MD_get0_name(ctx->md)))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
	return !p || p->data_type == OSSL_PARAM_UTF8_STRING ||
	       OSSL_PARAM_set_int(p, ctx->padding);
}

static const OSSL_PARAM *sign_gettable(void *ctx, void *prov)
{
	static const OSSL_PARAM known[] = {
		OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_int(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL),
		OSSL_PARAM_END
	};

	(void)ctx;
	(void)prov;
	return known;
}

/* ---- in the room */

struct signing {
	const struct sign_ctx *ctx;
	const uint8_t *data;
	size_t len;
	uint8_t *signature;
	size_t *signature_len, size;
};

static bool sign_rsa(void *rsa, void *arg)
{
	struct signing *s = arg;
	unsigned int len = s->size;
	int done;

	if (s->ctx->md && s->ctx->padding == RSA_PKCS1_PADDING) {
		if (RSA_sign(EVP_MD_get_type(s->ctx->md), s->data, s->len, s->signature, &len,
			     rsa) <= 0)
			return false;
		*s->signature_len = len;
		return true;
	}
	done = RSA_private_encrypt(s->len, s->data, s->signature, rsa,
				   s->ctx->padding == RSA_PKCS1_PSS_PADDING ? RSA_NO_PADDING :
				   s->ctx->padding);
	*s->signature_len = done;
	return done > 0;
}

static bool sign_ec(void *ec, void *arg)
{
	struct signing *s = arg;
	unsigned int len = s->size;

	if (ECDSA_sign(0, s->data, s->len, s->signature, &len, ec) <= 0)
		return false;
	*s->signature_len = len;
	return true;
}

static bool sign_ed(void *pkey, void *arg)
{
	struct signing *s = arg;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok;

	*s->signature_len = s->size;
	ok = ctx && EVP_DigestSignInit_ex(ctx, NULL, NULL, epkp_inner_libctx, NULL, pkey,
					  NULL) > 0 &&
	     EVP_DigestSign(ctx, s->signature, s->signature_len, s->data, s->len) > 0;
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* ---- */

/* With salt that is drawn: what is signed is as long as the modulus. */
static bool pad_pss(const struct sign_ctx *ctx, const uint8_t *digest, uint8_t *to)
{
	const EVP_MD *mgf1 = ctx->mgf1 ? ctx->mgf1 : ctx->md;
	int salt_len = ctx->salt_len == NO_SALT_LEN ? RSA_PSS_SALTLEN_AUTO : ctx->salt_len;
	BIGNUM *n = BN_bin2bn(ctx->key->bytes.n, ctx->key->bytes.n_len, NULL);
	BIGNUM *e = BN_bin2bn(ctx->key->bytes.e, ctx->key->bytes.e_len, NULL);
	RSA *rsa = RSA_new();
	bool ok = n && e && rsa && RSA_set0_key(rsa, n, e, NULL);

	if (!ok) {
		BN_free(n);
		BN_free(e);
	}
	ok = ok && RSA_padding_add_PKCS1_PSS_mgf1(rsa, to, digest, ctx->md, mgf1, salt_len);
	RSA_free(rsa);
	return ok;
}

static int sign_data(const struct sign_ctx *ctx, struct signing *s)
{
	uint8_t padded[sizeof(ctx->key->bytes.n)];
	size_t digest_len = ctx->md && !is_eddsa(ctx) ? EVP_MD_get_size(ctx->md) : 0;

	if (digest_len && s->len != digest_len)
		return raise(ctx->prov, EPK_R_DIGEST, "%zu bytes are none of %s", s->len,
			     EVP_MD_get0_name(ctx->md));
	if (s->size < ctx->key->size)
		return raise(ctx->prov, EPK_R_PRIVATE_KEY, "room for %zu bytes, not %zu", s->size,
			     ctx->key->size);
	if (is_eddsa(ctx))
		return epkp_key_use(ctx->key, sign_ed, s);
	if (is_of(ctx, PEM_EC))
		return epkp_key_use(ctx->key, sign_ec, s);
	if (ctx->padding == RSA_PKCS1_PSS_PADDING) {
		if (!ctx->md || !pad_pss(ctx, s->data, padded))
			return raise(ctx->prov, EPK_R_DIGEST, "PSS");
		s->data = padded;
		s->len = ctx->key->bytes.n_len;
	}
	return epkp_key_use(ctx->key, sign_rsa, s);
}

static bool set_key(struct sign_ctx *ctx, struct private_key *key)
{
	if (key) {
		epkp_key_hold(key);
		epkp_key_drop(ctx->key);
		ctx->key = key;
	}
	EVP_MD_CTX_free(ctx->other);
	EVP_PKEY_CTX_free(ctx->other_hash);
	ctx->other = NULL;
	ctx->other_hash = NULL;
	return ctx->key && epkp_key_is_there(ctx->key);
}

static bool set_other_hash(struct sign_ctx *ctx)
{
	ctx->other_hash = EVP_PKEY_CTX_new_from_pkey(epkp_inner_libctx, ctx->key->pkey, NULL);
	return ctx->other_hash;
}

static bool set_other(struct sign_ctx *ctx)
{
	ctx->other = EVP_MD_CTX_new();
	return ctx->other;
}

/* Not sooner: what is wrong with a key when libssl tries what it can do, it keeps to itself. */
static bool is_for_caller(const struct sign_ctx *ctx, const uint8_t *out)
{
	return !out || epkp_key_is_for_caller(ctx->key);
}

static int sign_init(void *vctx, void *key, const OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;

	if (!set_key(ctx, key))
		return 0;
	if (!ctx->key->kind)
		return set_other_hash(ctx) && EVP_PKEY_sign_init_ex(ctx->other_hash, params) > 0;
	return sign_set(ctx, params);
}

static int sign(void *vctx, unsigned char *out, size_t *len, size_t size,
		const unsigned char *data, size_t data_len)
{
	struct sign_ctx *ctx = vctx;
	struct signing s = { ctx, data, data_len, out, len, size };

	if (ctx->other_hash) {
		*len = size;
		return is_for_caller(ctx, out) &&
		       EVP_PKEY_sign(ctx->other_hash, out, len, data, data_len);
	}
	if (!out) {
		*len = ctx->key->size;
		return 1;
	}
	return sign_data(ctx, &s);
}

static int hash_init(void *vctx, const char *digest, void *key, const OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;

	if (!set_key(ctx, key))
		return 0;
	if (!ctx->key->kind)
		return set_other(ctx) &&
		       EVP_DigestSignInit_ex(ctx->other, NULL, digest, epkp_inner_libctx, NULL,
					     ctx->key->pkey, params) > 0;
	if (digest && *digest && is_eddsa(ctx))
		return raise(ctx->prov, EPK_R_DIGEST, "EdDSA has its own, not %s", digest);
	if (digest && *digest && !set_md(ctx, &ctx->md, digest))
		return 0;
	if (!sign_set(ctx, params))
		return 0;
	if (is_eddsa(ctx))
		return 1;
	EVP_MD_CTX_free(ctx->hash);
	ctx->hash = ctx->md ? EVP_MD_CTX_new() : NULL;
	return ctx->hash && EVP_DigestInit_ex2(ctx->hash, ctx->md, NULL);
}

static int hash_update(void *vctx, const unsigned char *data, size_t len)
{
	struct sign_ctx *ctx = vctx;

	if (ctx->other)
		return EVP_DigestSignUpdate(ctx->other, data, len);
	return ctx->hash && EVP_DigestUpdate(ctx->hash, data, len);
}

static int hash_final(void *vctx, unsigned char *out, size_t *len, size_t size)
{
	struct sign_ctx *ctx = vctx;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned int digest_len;

	if (ctx->other) {
		*len = size;
		return is_for_caller(ctx, out) && EVP_DigestSignFinal(ctx->other, out, len);
	}
	if (!out)
		return sign(ctx, NULL, len, 0, NULL, 0);
	return ctx->hash && EVP_DigestFinal_ex(ctx->hash, digest, &digest_len) &&
	       sign(ctx, out, len, size, digest, digest_len);
}

static int hash_and_sign(void *vctx, unsigned char *out, size_t *len, size_t size,
			 const unsigned char *data, size_t data_len)
{
	struct sign_ctx *ctx = vctx;

	if (ctx->other) {
		*len = size;
		return is_for_caller(ctx, out) &&
		       EVP_DigestSign(ctx->other, out, len, data, data_len);
	}
	if (!out || is_eddsa(ctx))
		return sign(ctx, out, len, size, data, data_len);
	return hash_update(ctx, data, data_len) && hash_final(ctx, out, len, size);
}

/* ---- with the public half */

static int check_init(void *vctx, void *key, const OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;

	return set_key(ctx, key) && set_other_hash(ctx) &&
	       EVP_PKEY_verify_init_ex(ctx->other_hash, params) > 0;
}

static int check(void *vctx, const unsigned char *signature, size_t len,
		 const unsigned char *data, size_t data_len)
{
	struct sign_ctx *ctx = vctx;

	return EVP_PKEY_verify(ctx->other_hash, signature, len, data, data_len);
}

static int check_hash_init(void *vctx, const char *digest, void *key, const OSSL_PARAM params[])
{
	struct sign_ctx *ctx = vctx;

	return set_key(ctx, key) && set_other(ctx) &&
	       EVP_DigestVerifyInit_ex(ctx->other, NULL, digest, epkp_inner_libctx, NULL,
				       ctx->key->pkey, params) > 0;
}

static int check_update(void *vctx, const unsigned char *data, size_t len)
{
	return EVP_DigestVerifyUpdate(((struct sign_ctx *)vctx)->other, data, len);
}

static int check_final(void *vctx, const unsigned char *signature, size_t len)
{
	return EVP_DigestVerifyFinal(((struct sign_ctx *)vctx)->other, signature, len);
}

static int hash_and_check(void *vctx, const unsigned char *signature, size_t len,
			  const unsigned char *data, size_t data_len)
{
	return EVP_DigestVerify(((struct sign_ctx *)vctx)->other, signature, len, data, data_len);
}

#define FN(id, f)	{ OSSL_FUNC_SIGNATURE_##id, (void (*)(void))(f) }

const OSSL_DISPATCH epkp_signature_functions[] = {
	FN(NEWCTX, sign_new),
	FN(FREECTX, sign_free),
	FN(DUPCTX, sign_dup),
	FN(SIGN_INIT, sign_init),
	FN(SIGN, sign),
	FN(DIGEST_SIGN_INIT, hash_init),
	FN(DIGEST_SIGN_UPDATE, hash_update),
	FN(DIGEST_SIGN_FINAL, hash_final),
	FN(DIGEST_SIGN, hash_and_sign),
	FN(VERIFY_INIT, check_init),
	FN(VERIFY, check),
	FN(DIGEST_VERIFY_INIT, check_hash_init),
	FN(DIGEST_VERIFY_UPDATE, check_update),
	FN(DIGEST_VERIFY_FINAL, check_final),
	FN(DIGEST_VERIFY, hash_and_check),
	FN(SET_CTX_PARAMS, sign_set),
	FN(SETTABLE_CTX_PARAMS, sign_settable),
	FN(GET_CTX_PARAMS, sign_get),
	FN(GETTABLE_CTX_PARAMS, sign_gettable),
	{ 0, NULL }
};
