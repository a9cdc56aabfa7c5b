// SPDX-License-Identifier: MIT
/*
 * What libssl does in a handshake, done by two ends in a row when the configuration is read:
 * a key exchange, the key schedule, Finished, a record.  Each step goes the way that libssl's
 * goes, through EVP with the properties that the server is to run with.  So whatever stands in
 * the way of secrets that are wrapped is found before there is a client.
 */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "rehearsal.h"
#include "secrets.h"

struct stage {
	OSSL_LIB_CTX *libctx;
	const char *properties;
};

static EVP_PKEY *generate(const struct stage *s, size_t group)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(s->libctx, group_algorithm(group),
						       s->properties);
	EVP_PKEY *pkey = NULL;

	if (!ctx || EVP_PKEY_keygen_init(ctx) <= 0 || EVP_PKEY_keygen(ctx, &pkey) <= 0)
		pkey = NULL;
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

/* The peer's half as it comes. */
static EVP_PKEY *public_half(EVP_PKEY *pkey)
{
	EVP_PKEY *half = EVP_PKEY_new();
	uint8_t *point = NULL;
	size_t len = EVP_PKEY_get1_encoded_public_key(pkey, &point);
	bool ok = half && len && EVP_PKEY_copy_parameters(half, pkey) > 0 &&
		  EVP_PKEY_set1_encoded_public_key(half, point, len) > 0;

	OPENSSL_free(point);
	if (ok)
		return half;
	EVP_PKEY_free(half);
	return NULL;
}

static bool agree(const struct stage *s, EVP_PKEY *mine, EVP_PKEY *theirs, uint8_t *shared,
		  size_t *len)
{
	EVP_PKEY *peer = public_half(theirs);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(s->libctx, mine, s->properties);
	bool ok = peer && ctx && EVP_PKEY_derive_init(ctx) > 0 &&
		  EVP_PKEY_derive_set_peer(ctx, peer) > 0 &&
		  EVP_PKEY_derive(ctx, shared, len) > 0;

	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer);
	return ok;
}

/* ---- the KDFs */

static bool derive(const struct stage *s, const char *name, const OSSL_PARAM params[],
		   uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(s->libctx, name, s->properties);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool ok = ctx && EVP_KDF_derive(ctx, out, len, params) > 0;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

static OSSL_PARAM text(const char *name, const char *value)
{
	return OSSL_PARAM_construct_octet_string(name, (char *)value, strlen(value));
}

#define SECRET_LEN	32

static bool derive13(const struct stage *s, int mode, const uint8_t *salt, const uint8_t *key,
		     size_t key_len, const char *label, uint8_t out[SECRET_LEN])
{
	OSSL_PARAM params[7], *p = params;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0);
	*p++ = text(OSSL_KDF_PARAM_PREFIX, "tls13 ");
	*p++ = text(OSSL_KDF_PARAM_LABEL, label);
	if (key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, key_len);
	if (salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt,
							 SECRET_LEN);
	*p = OSSL_PARAM_construct_end();
	return derive(s, "TLS13-KDF", params, out, SECRET_LEN);
}

static bool prf(const struct stage *s, const uint8_t *secret, size_t secret_len,
		const char *label, uint8_t *out, size_t len)
{
	OSSL_PARAM params[8], *p = params;
	int i;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, (void *)secret, secret_len);
	*p++ = text(OSSL_KDF_PARAM_SEED, label);
	for (i = 0; i < 4; i++)
		*p++ = text(OSSL_KDF_PARAM_SEED, "");
	*p = OSSL_PARAM_construct_end();
	return derive(s, "TLS1-PRF", params, out, len);
}

/* ---- what comes of them */

/* What an end has when the handshake is over. */
struct end {
	uint8_t handshake[SECRET_LEN];
	uint8_t finished[SECRET_LEN];
	uint8_t record[SECRET_LEN + 16];
	uint8_t master[MASTER_LEN];
	uint8_t record12[SECRET_LEN + 16];
};

/* A record under the key that @key stands for, and its tag. */
static bool seal(const struct stage *s, const uint8_t *key, uint8_t out[SECRET_LEN + 16])
{
	static const uint8_t iv[IV_LEN] = { 1 }, message[SECRET_LEN] = "a record";
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(s->libctx, "AES-256-GCM", s->properties);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int len;
	bool ok = cipher && ctx && EVP_EncryptInit_ex2(ctx, cipher, NULL, NULL, NULL) > 0 &&
		  EVP_EncryptInit_ex2(ctx, NULL, key, iv, NULL) > 0 &&
		  EVP_EncryptUpdate(ctx, out, &len, message, sizeof(message)) > 0 &&
		  EVP_EncryptFinal_ex(ctx, out + len, &len) > 0 &&
		  EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + SECRET_LEN) > 0;

	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return ok;
}

/* And not what the wrapped key would give if it were the key. */
static bool finish(const struct stage *s, const uint8_t *key, uint8_t out[SECRET_LEN])
{
	static const uint8_t hash[SECRET_LEN] = "a transcript's";
	uint8_t wrong[SECRET_LEN];
	size_t len;

	return EVP_Q_mac(s->libctx, "HMAC", s->properties, "SHA256", NULL, key, SECRET_LEN, hash,
			 sizeof(hash), out, SECRET_LEN, &len) &&
	       EVP_Q_mac(inner_libctx, "HMAC", NULL, "SHA256", NULL, key, SECRET_LEN, hash,
			 sizeof(hash), wrong, SECRET_LEN, &len) &&
	       CRYPTO_memcmp(out, wrong, SECRET_LEN);
}

static bool go_through_13(const struct stage *s, const uint8_t *shared, size_t len,
			  struct end *end)
{
	uint8_t early[SECRET_LEN], key[SECRET_LEN];

	return derive13(s, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, NULL, NULL, 0, "derived", early) &&
	       derive13(s, EVP_KDF_HKDF_MODE_EXTRACT_ONLY, early, shared, len, "derived",
			end->handshake) &&
	       derive13(s, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, end->handshake, SECRET_LEN,
			"finished", key) &&
	       finish(s, key, end->finished) &&
	       derive13(s, EVP_KDF_HKDF_MODE_EXPAND_ONLY, NULL, end->handshake, SECRET_LEN, "key",
			key) &&
	       seal(s, key, end->record);
}

static bool go_through_12(const struct stage *s, const uint8_t *shared, size_t len,
			  struct end *end)
{
	uint8_t block[2 * (SECRET_LEN + 4)];

	return prf(s, shared, len, "master secret", end->master, MASTER_LEN) &&
	       prf(s, end->master, MASTER_LEN, "key expansion", block, sizeof(block)) &&
	       seal(s, block, end->record12);
}

/* With the same two keys twice, as what they agree on is good for one use. */
static bool shake_hands(const struct stage *s, EVP_PKEY *const keys[2], struct end ends[2])
{
	uint8_t shared[SHARED_MAX];
	size_t len;
	int i;

	memset(ends, 0, 2 * sizeof(*ends));
	for (i = 0; i < 2; i++) {
		len = sizeof(shared);
		if (!agree(s, keys[i], keys[!i], shared, &len) ||
		    !go_through_13(s, shared, len, &ends[i]))
			return false;
		len = sizeof(shared);
		if (!agree(s, keys[i], keys[!i], shared, &len) ||
		    !go_through_12(s, shared, len, &ends[i]))
			return false;
	}
	return !CRYPTO_memcmp(&ends[0], &ends[1], sizeof(*ends));
}

const char *rehearse(OSSL_LIB_CTX *libctx, const char *properties)
{
	const struct stage s = { libctx, properties };
	EVP_PKEY *keys[2];
	struct end ends[2];
	size_t group;
	bool ok = true;

	for (group = 0; ok && group < NR_GROUPS; group++) {
		keys[0] = generate(&s, group);
		keys[1] = generate(&s, group);
		ok = keys[0] && keys[1] && shake_hands(&s, keys, ends);
		EVP_PKEY_free(keys[0]);
		EVP_PKEY_free(keys[1]);
	}
	return ok ? NULL : group_algorithm(group - 1);
}
