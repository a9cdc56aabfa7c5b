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

bool prf_is_libssls(const OSSL_PARAM params[])
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
			hmac_add(h, p->data, p->data_size);
}

/* Of @o->work->secret.  @out may be in ordinary memory, and nothing else goes there. */
static void p_hash(struct opened *o, const struct hash *hash, size_t secret_len,
		   const OSSL_PARAM *label, uint8_t *out, size_t outlen)
{
	struct hmac *h = &o->work->hmac;
	size_t done, take;

	hmac_key(h, hash, o->work->secret, secret_len);
	hmac_begin(h);
	add_seeds(h, label);
	hmac_end(h, h->chain);
	for (done = 0; done < outlen; done += take) {
		hmac_begin(h);
		hmac_add(h, h->chain, hash->len);
		add_seeds(h, label);
		hmac_end(h, o->work->salt);
		take = outlen - done < hash->len ? outlen - done : hash->len;
		memcpy(out + done, o->work->salt, take);
		hmac_begin(h);
		hmac_add(h, h->chain, hash->len);
		hmac_end(h, h->chain);
	}
}

/*
 * Of the key block's length, that of a key; 0 for suites whose MAC has a key of its own, of
 * which libssl uses the block as it is.
 */
static size_t key_len_of(size_t block)
{
	switch (block) {
	case 2 * (16 + 4):
		return 16;
	case 2 * (32 + 4):	/* GCM and CCM */
	case 2 * (32 + IV_LEN):	/* ChaCha20-Poly1305 */
		return 32;
	default:
		return 0;
	}
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

/* Two keys, then two IVs. */
static bool give_key_block(struct provider *prov, struct opened *o, const struct hash *hash,
			   const OSSL_PARAM *label, uint8_t *out, size_t outlen)
{
	size_t len = key_len_of(outlen);
	uint8_t *block = o->work->out;

	/* As it is, it is for suites whose MAC keys libssl has. */
	if (!len && !prov->any_mac)
		return raise(prov, EPK_R_REFUSED, "a key block of %zu bytes: of a suite with a "
			     "-CBC cipher libssl has the MAC keys, and of a handshake all keys, in "
			     "ordinary memory; \"allow = CBC\" takes them", outlen);
	if (!len) {
		p_hash(o, hash, MASTER_LEN, label, out, outlen);
		return true;
	}
	if (outlen > sizeof(o->work->out))
		return raise(prov, EPK_R_DERIVATION, "a key block of %zu bytes", outlen);
	p_hash(o, hash, MASTER_LEN, label, block, outlen);
	handle_give(o, out, block, len);
	handle_give(o, out + len, block + len, len);
	memcpy(out + 2 * len, block + 2 * len, outlen - 2 * len);
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
	if (!take_shared(prov, o, secret->data, secret->data_size))
		return false;
	p_hash(o, hash, secret->data_size, label, o->work->out, outlen);
	wrap(o, SECRET_MASTER, out, o->work->out, outlen);
	return true;
}

bool prf_derive(struct provider *prov, struct opened *o, const struct hash *hash, uint8_t *out,
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
	unwrap(o, SECRET_MASTER, o->work->secret, secret->data, MASTER_LEN);
	if (is(label, "key expansion"))
		return give_key_block(prov, o, hash, label, out, outlen);
	if (begins_as_reserved(label))
		return raise(prov, EPK_R_DERIVATION, "a label that begins as one of TLS's own");
	/* verify_data, or what an application exports. */
	p_hash(o, hash, MASTER_LEN, label, out, outlen);
	return true;
}
