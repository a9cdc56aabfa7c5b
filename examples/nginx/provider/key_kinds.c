// SPDX-License-Identifier: MIT
/*
 * libcrypto's keys, made in a room of its simplest parts.
 *
 * RSA and EC keys are what libcrypto has computed with before there were providers: as little
 * as possible lies between them and the arithmetic, and what there is allocates nothing that
 * outlives a computation.  EdDSA there is by way of the default provider alone.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include "key.h"

/* Twice what libcrypto was seen to use: most with RSA-2048 and a processor's wide vectors. */
#define RSA_STACK	24576
#define EC_STACK	8192
#define ED_STACK	8192

#define RSA_BYTES_MIN	128
#define RSA_BYTES_MAX	1024

/* ---- RSA */

static BIGNUM *number(struct part part)
{
	return BN_bin2bn(part.at, part.len, NULL);
}

/* The room is given back if this fails: nothing has to be freed. */
static void *rsa_build(const struct private_key *key, struct part secret)
{
	struct part numbers[NR_RSA_NUMBERS];
	BIGNUM *n[NR_RSA_NUMBERS];
	RSA *rsa = RSA_new();
	int i;

	(void)key;
	if (!rsa || !epkp_pem_rsa_numbers(secret, numbers) || numbers[0].len < RSA_BYTES_MIN ||
	    numbers[0].len > RSA_BYTES_MAX)
		return NULL;
	/* No engine's. */
	RSA_set_method(rsa, RSA_PKCS1_OpenSSL());
	for (i = 0; i < NR_RSA_NUMBERS; i++) {
		n[i] = number(numbers[i]);
		if (!n[i])
			return NULL;
	}
	return RSA_set0_key(rsa, n[0], n[1], n[2]) && RSA_set0_factors(rsa, n[3], n[4]) &&
	       RSA_set0_crt_params(rsa, n[5], n[6], n[7]) ? rsa : NULL;
}

static size_t publish_number(uint8_t *to, size_t size, const BIGNUM *n)
{
	size_t len = BN_num_bytes(n);

	return len <= size && BN_bn2binpad(n, to, len) == (int)len ? len : 0;
}

static bool rsa_publish(struct private_key *key, void *object, struct part secret)
{
	(void)secret;
	key->bytes.n_len = publish_number(key->bytes.n, sizeof(key->bytes.n),
					  RSA_get0_n(object));
	key->bytes.e_len = publish_number(key->bytes.e, sizeof(key->bytes.e),
					  RSA_get0_e(object));
	return key->bytes.n_len && key->bytes.e_len;
}

/* Blinding factors are drawn from the default library context. */
static bool rsa_draw(void)
{
	uint8_t byte;

	return RAND_priv_bytes(&byte, 1) > 0;
}

/* ---- EC */

static EC_KEY *ec_new(int curve)
{
	EC_KEY *ec = EC_KEY_new_by_curve_name_ex(epkp_inner_libctx, NULL, curve);

	if (ec)
		EC_KEY_set_method(ec, EC_KEY_OpenSSL());
	return ec;
}

static void *ec_build(const struct private_key *key, struct part secret)
{
	EC_KEY *ec = ec_new(key->curve);
	BIGNUM *scalar = number(secret);

	if (!ec || !scalar || BN_is_zero(scalar) ||
	    BN_cmp(scalar, EC_GROUP_get0_order(EC_KEY_get0_group(ec))) >= 0)
		return NULL;
	BN_set_flags(scalar, BN_FLG_CONSTTIME);
	return EC_KEY_set_private_key(ec, scalar) ? ec : NULL;
}

static bool ec_publish(struct private_key *key, void *object, struct part secret)
{
	const EC_GROUP *group = EC_KEY_get0_group(object);
	EC_POINT *point = EC_POINT_new(group);
	/* It draws, too. */
	BN_CTX *ctx = BN_CTX_new_ex(epkp_inner_libctx);

	(void)secret;
	key->bytes.point_len = point && ctx &&
			       EC_POINT_mul(group, point, EC_KEY_get0_private_key(object), NULL,
					    NULL, ctx) ?
			       EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED,
						  key->bytes.point, sizeof(key->bytes.point),
						  ctx) : 0;
	return key->bytes.point_len;
}

static bool ec_draw(void)
{
	uint8_t byte;

	return RAND_priv_bytes_ex(epkp_inner_libctx, &byte, 1, 0) > 0;
}

static bool ec_warm_up(const struct key_kind *kind)
{
	static const uint8_t digest[32] = { 1 };
	uint8_t signature[160];
	unsigned int len = sizeof(signature);
	EC_KEY *ec = ec_new(NID_X9_62_prime256v1);
	bool ok = ec && EC_KEY_generate_key(ec) &&
		  ECDSA_sign(0, digest, sizeof(digest), signature, &len, ec);

	(void)kind;
	EC_KEY_free(ec);
	return ok;
}

/* ---- EdDSA */

static void *ed_build(const struct private_key *key, struct part secret)
{
	return EVP_PKEY_new_raw_private_key_ex(epkp_inner_libctx, key->kind->name, NULL, secret.at,
					       secret.len);
}

static bool ed_publish(struct private_key *key, void *object, struct part secret)
{
	(void)secret;
	key->bytes.point_len = sizeof(key->bytes.point);
	return EVP_PKEY_get_raw_public_key(object, key->bytes.point, &key->bytes.point_len);
}

static bool ed_warm_up(const struct key_kind *kind)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(epkp_inner_libctx, NULL, kind->name);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t signature[128], message[1] = { 0 };
	size_t len = sizeof(signature);
	bool ok = pkey && ctx &&
		  EVP_DigestSignInit_ex(ctx, NULL, NULL, epkp_inner_libctx, NULL, pkey, NULL) &&
		  EVP_DigestSign(ctx, signature, &len, message, sizeof(message));

	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	return ok;
}

/* Before anyone is in a room, and while there is a way to libraries' files. */
bool epkp_keys_start(void)
{
	RSA *rsa = RSA_new();
	EC_KEY *ec = EC_KEY_new();
	bool ok = rsa && ec;

	RSA_free(rsa);
	EC_KEY_free(ec);
	epkp_called_by_libssl();
	return ok;
}

const struct key_kind epkp_key_kinds[NR_KINDS] = {
	[PEM_RSA] = { "RSA", RSA_STACK, rsa_build, rsa_publish, NULL, rsa_draw },
	[PEM_EC] = { "EC", EC_STACK, ec_build, ec_publish, ec_warm_up, ec_draw },
	[PEM_ED25519] = { "ED25519", ED_STACK, ed_build, ed_publish, ed_warm_up, NULL },
	[PEM_ED448] = { "ED448", ED_STACK, ed_build, ed_publish, ed_warm_up, NULL },
};

/* ---- the public half, for everybody */

static bool describe(const struct private_key *key, OSSL_PARAM_BLD *bld, BIGNUM **n, BIGNUM **e)
{
	if (key->kind == &epkp_key_kinds[PEM_RSA]) {
		*n = BN_bin2bn(key->bytes.n, key->bytes.n_len, NULL);
		*e = BN_bin2bn(key->bytes.e, key->bytes.e_len, NULL);
		return *n && *e && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, *n) &&
		       OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, *e);
	}
	return (!key->curve ||
		OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME,
						OBJ_nid2sn(key->curve), 0)) &&
	       OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, key->bytes.point,
						key->bytes.point_len);
}

bool epkp_key_make_public(struct private_key *key)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(epkp_inner_libctx, key->kind->name, NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params = NULL;
	BIGNUM *n = NULL, *e = NULL;
	int size;

	if (ctx && bld && describe(key, bld, &n, &e))
		params = OSSL_PARAM_BLD_to_param(bld);
	if (params && EVP_PKEY_fromdata_init(ctx) > 0)
		EVP_PKEY_fromdata(ctx, &key->pkey, EVP_PKEY_PUBLIC_KEY, params);
	size = key->pkey ? EVP_PKEY_get_size(key->pkey) : 0;
	key->size = size > 0 ? size : 0;
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	BN_free(n);
	BN_free(e);
	EVP_PKEY_CTX_free(ctx);
	return key->size || raise(key->prov, EPK_R_PRIVATE_KEY, "%s has no such public key",
				  key->kind->name);
}
