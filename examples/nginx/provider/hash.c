// SPDX-License-Identifier: MIT
#define OPENSSL_SUPPRESS_DEPRECATED
#include <string.h>
#include <strings.h>

#include "hash.h"

static int sha256_init(union hash_state *s)
{
	return SHA256_Init(&s->sha256);
}

static int sha256_update(union hash_state *s, const void *data, size_t len)
{
	return SHA256_Update(&s->sha256, data, len);
}

static int sha256_final(uint8_t *out, union hash_state *s)
{
	return SHA256_Final(out, &s->sha256);
}

static int sha384_init(union hash_state *s)
{
	return SHA384_Init(&s->sha384);
}

static int sha384_update(union hash_state *s, const void *data, size_t len)
{
	return SHA384_Update(&s->sha384, data, len);
}

static int sha384_final(uint8_t *out, union hash_state *s)
{
	return SHA384_Final(out, &s->sha384);
}

static const struct hash hashes[] = {
	{
		.names = { "SHA256", "SHA2-256", "SHA-256" },
		.len = 32,
		.block = 64,
		.init = sha256_init,
		.update = sha256_update,
		.final = sha256_final,
		.of_nothing = {
			0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8,
			0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
			0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
		},
	}, {
		.names = { "SHA384", "SHA2-384", "SHA-384" },
		.len = 48,
		.block = 128,
		.init = sha384_init,
		.update = sha384_update,
		.final = sha384_final,
		.of_nothing = {
			0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38, 0x4c, 0xd9, 0x32, 0x7e,
			0xb1, 0xb1, 0xe3, 0x6a, 0x21, 0xfd, 0xb7, 0x11, 0x14, 0xbe, 0x07, 0x43,
			0x4c, 0x0c, 0xc7, 0xbf, 0x63, 0xf6, 0xe1, 0xda, 0x27, 0x4e, 0xde, 0xbf,
			0xe7, 0x6f, 0x65, 0xfb, 0xd5, 0x1a, 0xd2, 0xf1, 0x48, 0x98, 0xb9, 0x5b,
		},
	},
};

const struct hash *hash_find(const char *name)
{
	size_t i, n;

	for (i = 0; name && i < sizeof(hashes) / sizeof(hashes[0]); i++)
		for (n = 0; n < 3; n++)
			if (!strcasecmp(name, hashes[i].names[n]))
				return &hashes[i];
	return NULL;
}

static void absorb_pad(struct hmac *h, union hash_state *s, uint8_t with)
{
	size_t i;

	for (i = 0; i < h->hash->block; i++)
		h->pad[i] ^= with;
	h->hash->init(s);
	h->hash->update(s, h->pad, h->hash->block);
	for (i = 0; i < h->hash->block; i++)
		h->pad[i] ^= with;
}

void hmac_key(struct hmac *h, const struct hash *hash, const uint8_t *key, size_t len)
{
	h->hash = hash;
	memset(h->pad, 0, sizeof(h->pad));
	if (len > hash->block) {
		hash->init(&h->running);
		hash->update(&h->running, key, len);
		hash->final(h->pad, &h->running);
	} else if (len) {
		memcpy(h->pad, key, len);
	}
	absorb_pad(h, &h->inner, 0x36);
	absorb_pad(h, &h->outer, 0x5c);
}

void hmac_begin(struct hmac *h)
{
	h->running = h->inner;
}

void hmac_add(struct hmac *h, const void *data, size_t len)
{
	if (len)
		h->hash->update(&h->running, data, len);
}

void hmac_end(struct hmac *h, uint8_t *out)
{
	h->hash->final(h->digest, &h->running);
	h->running = h->outer;
	h->hash->update(&h->running, h->digest, h->hash->len);
	h->hash->final(out, &h->running);
}

static size_t put(uint8_t *to, size_t at, const uint8_t *from, size_t len)
{
	if (len)
		memcpy(to + at, from, len);
	return at + len;
}

bool hmac_expand_label(struct hmac *h, const struct hash *hash, const uint8_t *secret,
		       const struct derivation *d, uint8_t *out, size_t outlen)
{
	size_t len = 3, done, take;
	uint8_t i;

	if (d->prefix_len > 255 || d->label_len > 255 - d->prefix_len || d->data_len > 255 ||
	    outlen > 255 * hash->len)
		return false;
	h->info[0] = outlen >> 8;
	h->info[1] = outlen;
	h->info[2] = d->prefix_len + d->label_len;
	len = put(h->info, len, d->prefix, d->prefix_len);
	len = put(h->info, len, d->label, d->label_len);
	h->info[len++] = d->data_len;
	len = put(h->info, len, d->data, d->data_len);

	hmac_key(h, hash, secret, hash->len);
	for (i = 1, done = 0; done < outlen; i++, done += take) {
		hmac_begin(h);
		hmac_add(h, h->chain, i > 1 ? hash->len : 0);
		hmac_add(h, h->info, len);
		hmac_add(h, &i, 1);
		hmac_end(h, h->chain);
		take = outlen - done < hash->len ? outlen - done : hash->len;
		memcpy(out + done, h->chain, take);
	}
	return true;
}
