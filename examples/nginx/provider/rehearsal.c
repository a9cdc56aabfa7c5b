// SPDX-License-Identifier: MIT
/*
 * What libssl does in a handshake, done by two ends in a row when the configuration is read:
 * a key exchange, the key schedule, Finished, a record, what is exported, the binder of the next
 * handshake; with each group, and with the hash of as many bits.  Each step goes the way that libssl's
 * goes, through EVP with the properties that the server is to run with.  So whatever stands in
 * the way of secrets that are wrapped is found before there is a client.  Where they are known
 * to all, what comes of them is compared with the default provider's.
 */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "rehearsal.h"
#include "secrets.h"

/* @len: of the hash, and of all secrets of the key schedule */
struct stage {
	OSSL_LIB_CTX *libctx;
	const char *properties;
	const char *digest;
	size_t len;
};

static EVP_PKEY *generate(const struct stage *s, size_t group)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(s->libctx, epkp_group_algorithm(group),
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

#define RECORD_LEN	32

/* One call of TLS13-KDF.  With a salt, or without a label, it extracts. */
struct derivation13 {
	const uint8_t *salt, *key;
	size_t key_len;
	const char *label;
	const uint8_t *data;
};

static bool derive13(const struct stage *s, const struct derivation13 *d, uint8_t *out, size_t len)
{
	int mode = d->label ? EVP_KDF_HKDF_MODE_EXPAND_ONLY : EVP_KDF_HKDF_MODE_EXTRACT_ONLY;
	OSSL_PARAM params[8], *p = params;

	*p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)s->digest, 0);
	*p++ = text(OSSL_KDF_PARAM_PREFIX, "tls13 ");
	*p++ = text(OSSL_KDF_PARAM_LABEL, d->label ? d->label : "derived");
	if (d->key)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)d->key,
							 d->key_len);
	if (d->salt)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)d->salt,
							 s->len);
	if (d->data)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_DATA, (void *)d->data,
							 s->len);
	*p = OSSL_PARAM_construct_end();
	return derive(s, "TLS13-KDF", params, out, len);
}

static bool extract13(const struct stage *s, const uint8_t *salt, const uint8_t *key,
		      size_t key_len, uint8_t *out)
{
	const struct derivation13 d = { .salt = salt, .key = key, .key_len = key_len };

	return derive13(s, &d, out, s->len);
}

/* From a secret of the key schedule, for a key. */
static bool expand13(const struct stage *s, const uint8_t *secret, const char *label,
		     uint8_t *out, size_t len)
{
	const struct derivation13 d = { .key = secret, .key_len = s->len, .label = label };

	return derive13(s, &d, out, len);
}

/* The same for another secret, of a transcript. */
static bool next13(const struct stage *s, const uint8_t *secret, const char *label, uint8_t *out)
{
	static const uint8_t hash[HASH_MAX] = "a transcript's";
	const struct derivation13 d = { .key = secret, .key_len = s->len, .label = label,
					.data = hash };

	return derive13(s, &d, out, s->len);
}

static bool prf(const struct stage *s, const uint8_t *secret, size_t secret_len,
		const char *label, uint8_t *out, size_t len)
{
	OSSL_PARAM params[8], *p = params;
	int i;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)s->digest, 0);
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
	uint8_t handshake[HASH_MAX];
	uint8_t finished[HASH_MAX];
	uint8_t record[RECORD_LEN + 16];
	uint8_t exported[HASH_MAX];
	uint8_t psk[HASH_MAX];
	uint8_t binder[HASH_MAX];
	uint8_t master[MASTER_LEN];
	uint8_t record12[RECORD_LEN + 16];
};

/* A record under the key that @key stands for, and its tag. */
static bool seal(const struct stage *s, const uint8_t *key, uint8_t out[RECORD_LEN + 16])
{
	static const uint8_t iv[IV_LEN] = { 1 }, message[RECORD_LEN] = "a record";
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(s->libctx, "AES-256-GCM", s->properties);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int len;
	bool ok = cipher && ctx && EVP_EncryptInit_ex2(ctx, cipher, NULL, NULL, NULL) > 0 &&
		  EVP_EncryptInit_ex2(ctx, NULL, key, iv, NULL) > 0 &&
		  EVP_EncryptUpdate(ctx, out, &len, message, sizeof(message)) > 0 &&
		  EVP_EncryptFinal_ex(ctx, out + len, &len) > 0 &&
		  EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + RECORD_LEN) > 0;

	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return ok;
}

/* And not what the wrapped key would give if it were the key. */
static bool finish(const struct stage *s, const uint8_t *secret, uint8_t *out)
{
	static const uint8_t hash[HASH_MAX] = "a transcript's";
	uint8_t key[HASH_MAX], wrong[HASH_MAX];
	size_t len;

	return expand13(s, secret, "finished", key, s->len) &&
	       EVP_Q_mac(s->libctx, "HMAC", s->properties, s->digest, NULL, key, s->len, hash,
			 s->len, out, s->len, &len) &&
	       EVP_Q_mac(epkp_inner_libctx, "HMAC", NULL, s->digest, NULL, key, s->len, hash,
			 s->len, wrong, s->len, &len) &&
	       CRYPTO_memcmp(out, wrong, s->len);
}

/* As SSL_export_keying_material() does. */
static bool export(const struct stage *s, const uint8_t *master, uint8_t *out)
{
	uint8_t secret[HASH_MAX], of_label[HASH_MAX];

	return next13(s, master, "exp master", secret) &&
	       next13(s, secret, "EXPORTER-rehearsal", of_label) &&
	       next13(s, of_label, "exporter", out);
}

/*
 * The early secret of a handshake without a PSK is known to all: so what is exported from it has to
 * be what the default provider has, and not what two ends agree on alone.
 */
static bool exports_what_others_do(const struct stage *s)
{
	const struct stage others = { epkp_inner_libctx, NULL, s->digest, s->len };
	uint8_t early[HASH_MAX], mine[HASH_MAX], theirs[HASH_MAX];

	return extract13(s, NULL, NULL, 0, early) && export(s, early, mine) &&
	       extract13(&others, NULL, NULL, 0, early) && export(&others, early, theirs) &&
	       !CRYPTO_memcmp(mine, theirs, s->len);
}

/* A session's PSK, and the binder of the handshake that resumes it. */
static bool bind(const struct stage *s, const uint8_t *master, struct end *end)
{
	uint8_t secret[HASH_MAX], early[HASH_MAX], binder[HASH_MAX];

	return next13(s, master, "res master", secret) &&
	       next13(s, secret, "resumption", end->psk) &&
	       extract13(s, NULL, end->psk, s->len, early) &&
	       next13(s, early, "res binder", binder) &&
	       finish(s, binder, end->binder);
}

static bool go_through_13(const struct stage *s, const uint8_t *shared, size_t len,
			  struct end *end)
{
	uint8_t early[HASH_MAX], master[HASH_MAX], key[RECORD_LEN];

	return extract13(s, NULL, NULL, 0, early) &&
	       extract13(s, early, shared, len, end->handshake) &&
	       finish(s, end->handshake, end->finished) &&
	       expand13(s, end->handshake, "key", key, sizeof(key)) &&
	       seal(s, key, end->record) &&
	       extract13(s, end->handshake, NULL, 0, master) &&
	       export(s, master, end->exported) && bind(s, master, end);
}

static bool go_through_12(const struct stage *s, const uint8_t *shared, size_t len,
			  struct end *end)
{
	uint8_t key_block[2 * (RECORD_LEN + 4)];

	return prf(s, shared, len, "master secret", end->master, MASTER_LEN) &&
	       prf(s, end->master, MASTER_LEN, "key expansion", key_block, sizeof(key_block)) &&
	       seal(s, key_block, end->record12);
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

const char *epkp_rehearse(OSSL_LIB_CTX *libctx, const char *properties)
{
	struct stage s = { libctx, properties, NULL, 0 };
	EVP_PKEY *keys[2];
	struct end ends[2];
	size_t group;
	bool ok = true;

	for (group = 0; ok && group < NR_GROUPS; group++) {
		s.len = epkp_group_secret_len(group);
		s.digest = s.len == 48 ? "SHA384" : "SHA256";
		keys[0] = generate(&s, group);
		keys[1] = generate(&s, group);
		ok = keys[0] && keys[1] && shake_hands(&s, keys, ends) &&
		     exports_what_others_do(&s);
		EVP_PKEY_free(keys[0]);
		EVP_PKEY_free(keys[1]);
	}
	return ok ? NULL : epkp_group_algorithm(group - 1);
}
