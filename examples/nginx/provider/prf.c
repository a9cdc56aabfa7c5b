// SPDX-License-Identifier: MIT
/*
 * TLS1-PRF, of which libssl gets the master secret and the key block of TLS 1.2 (RFC 5246, 5,
 * 6.3 and 8.1).
 */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include "secrets.h"

/* libssl passes its label and four seeds, empty ones too; nobody else is likely to. */
#define NR_SEEDS	5

bool epkp_prf_is_libssls(const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = params ? OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SEED) : NULL;
	int n = 0;

	for (; p; p = OSSL_PARAM_locate_const(p + 1, OSSL_KDF_PARAM_SEED))
		n++;
	return n == NR_SEEDS;
}

static void add_seeds(struct hmac *h, const OSSL_PARAM *label)
{
	const OSSL_PARAM *p;

	for (p = label; p; p = OSSL_PARAM_locate_const(p + 1, OSSL_KDF_PARAM_SEED))
		if (p->data)
			epkp_hmac_add(h, p->data, p->data_size);
}

/*
 * From @o->work->secret: A(1) in @h->chain, on which all that p_hash() gives depends, with the
 * same label and seeds.
 */
static void p_hash_begin(struct opened *o, const struct hash *hash, size_t secret_len,
			 const OSSL_PARAM *label)
{
	struct hmac *h = &o->work->hmac;

	epkp_hmac_key(h, hash, o->work->secret, secret_len);
	epkp_hmac_begin(h);
	add_seeds(h, label);
	epkp_hmac_end(h, h->chain);
}

/* @out may be in ordinary memory, and nothing else goes there. */
static void p_hash(struct opened *o, const OSSL_PARAM *label, uint8_t *out, size_t outlen)
{
	struct hmac *h = &o->work->hmac;
	size_t len = h->hash->len, done, take;

	for (done = 0; done < outlen; done += take) {
		epkp_hmac_begin(h);
		epkp_hmac_add(h, h->chain, len);
		add_seeds(h, label);
		epkp_hmac_end(h, o->work->salt);
		take = outlen - done < len ? outlen - done : len;
		memcpy(out + done, o->work->salt, take);
		epkp_hmac_begin(h);
		epkp_hmac_add(h, h->chain, len);
		epkp_hmac_end(h, h->chain);
	}
}

/*
 * The key blocks of TLS 1.2's suites, by the hash that they derive with: two keys, and two IVs of
 * which libssl uses four bytes each, or twelve.  Others begin with the keys of two MACs.
 */
static const struct key_block {
	size_t hash_len, len;
	/* 0 for suites whose MAC has a key of its own, of which libssl uses it as it is. */
	size_t key_len;
} key_blocks[] = {
	{ 32, 2 * (16 + 4), 16 },		/* GCM and CCM */
	{ 32, 2 * (32 + 4), 32 },		/* CCM */
	{ 48, 2 * (32 + 4), 32 },		/* GCM */
	{ 32, 2 * (32 + IV_LEN), 32 },		/* ChaCha20-Poly1305 */
	{ 32, 2 * (20 + 16 + 16), 0 },		/* 128 bits and SHA-1, and 3DES */
	{ 32, 2 * (20 + 32 + 16), 0 },
	{ 32, 2 * (32 + 16 + 16), 0 },
	{ 32, 2 * (32 + 32 + 16), 0 },
	{ 48, 2 * (48 + 32 + 16), 0 },
};

static const struct key_block *key_block_of(const struct hash *hash, size_t len)
{
	size_t i;

	for (i = 0; i < sizeof(key_blocks) / sizeof(key_blocks[0]); i++)
		if (key_blocks[i].hash_len == hash->len && key_blocks[i].len == len)
			return &key_blocks[i];
	return NULL;
}

static const char *const reserved[] = { "master secret", "extended master secret",
					"key expansion" };

#define RESERVED_MAX	32

/*
 * The seeds are put together, so that what an application exports with a label of its own could
 * be what libssl derives with one of these.  Nothing is exported that begins so; libssl has
 * the label alone in its first seed.
 */
static bool begins_as_reserved(const OSSL_PARAM *label)
{
	char start[RESERVED_MAX];
	const OSSL_PARAM *p;
	size_t len = 0, take, i;

	for (p = label; p; p = OSSL_PARAM_locate_const(p + 1, OSSL_KDF_PARAM_SEED)) {
		take = !p->data ? 0 : p->data_size < sizeof(start) - len ? p->data_size :
		       sizeof(start) - len;
		if (take)
			memcpy(start + len, p->data, take);
		len += take;
	}
	for (i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (len >= strlen(reserved[i]) && !memcmp(start, reserved[i], strlen(reserved[i])))
			return true;
	return false;
}

#define WHICH_LEN	32	/* of A(1), to tell it from any other */

static bool give_key_block(struct provider *prov, struct opened *o, const struct hash *hash,
			   const OSSL_PARAM *label, uint8_t *out, size_t outlen)
{
	const struct key_block *b = key_block_of(hash, outlen);
	uint8_t *derived = o->work->out;
	struct lineage of;

	if (!b)
		return raise(prov, EPK_R_DERIVATION, "a key block of %zu bytes: of no suite with %s",
			     outlen, hash->names[0]);
	/* As it is, it is for suites whose MAC keys libssl has. */
	if (!b->key_len && !prov->any_mac)
		return raise(prov, EPK_R_REFUSED, "a key block of %zu bytes: of a suite with a "
			     "-CBC cipher libssl has the MAC keys, and of a handshake all keys, in "
			     "ordinary memory; \"allow = CBC\" takes them", outlen);
	p_hash_begin(o, hash, MASTER_LEN, label);
	if (!epkp_given_once(o, o->work->hmac.chain, WHICH_LEN, outlen))
		return raise(prov, EPK_R_DERIVATION, "a key block of %zu bytes, which was of another "
			     "length before", outlen);
	if (!b->key_len) {
		p_hash(o, label, out, outlen);
		return true;
	}
	epkp_lineage_of_secret(o, o->work->hmac.chain, WHICH_LEN, &of);
	p_hash(o, label, derived, outlen);
	epkp_handle_give(o, out, derived, b->key_len, &of);
	epkp_handle_give(o, out + b->key_len, derived + b->key_len, b->key_len, &of);
	memcpy(out + 2 * b->key_len, derived + 2 * b->key_len, outlen - 2 * b->key_len);
	return true;
}

static bool is(const OSSL_PARAM *label, const char *text)
{
	return label->data && label->data_size == strlen(text) &&
	       !memcmp(label->data, text, label->data_size);
}

static bool give_master(struct provider *prov, struct opened *o, const struct hash *hash,
			const OSSL_PARAM *secret, const OSSL_PARAM *label, uint8_t *out,
			size_t outlen)
{
	if (outlen != MASTER_LEN)
		return raise(prov, EPK_R_DERIVATION, "a master secret of %zu bytes", outlen);
	if (!epkp_take_shared(prov, o, secret->data, secret->data_size))
		return false;
	p_hash_begin(o, hash, secret->data_size, label);
	p_hash(o, label, o->work->out, outlen);
	epkp_wrap(o, SECRET_MASTER, out, o->work->out, outlen);
	return true;
}

bool epkp_prf_derive(struct provider *prov, struct opened *o, const struct hash *hash, uint8_t *out,
		     size_t outlen, const OSSL_PARAM params[])
{
	const OSSL_PARAM *secret = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SECRET);
	const OSSL_PARAM *label = OSSL_PARAM_locate_const(params, OSSL_KDF_PARAM_SEED);

	if (!secret || !secret->data)
		return raise(prov, EPK_R_DERIVATION, "no secret");
	if (is(label, "master secret") || is(label, "extended master secret"))
		return give_master(prov, o, hash, secret, label, out, outlen);
	if (secret->data_size != MASTER_LEN)
		return raise(prov, EPK_R_DERIVATION, "from %zu bytes", secret->data_size);
	epkp_unwrap(o, SECRET_MASTER, o->work->secret, secret->data, MASTER_LEN);
	if (is(label, "key expansion"))
		return give_key_block(prov, o, hash, label, out, outlen);
	if (begins_as_reserved(label))
		return raise(prov, EPK_R_DERIVATION, "a label that begins as one of TLS's own");
	/* verify_data, or what an application exports. */
	p_hash_begin(o, hash, MASTER_LEN, label);
	p_hash(o, label, out, outlen);
	return true;
}
