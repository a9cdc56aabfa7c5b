// SPDX-License-Identifier: MIT
#include <cpuid.h>
#include <endian.h>
#include <string.h>
#include <strings.h>

#include "hash.h"

#include "sha2.h"

/* The instructions for SHA-256, which libcrypto uses as well. */
static bool has_sha_ni;

__attribute__((constructor)) static void ask_cpu(void)
{
	unsigned int a, b, c, d;

	/* SSSE3 and SSE4.1, of which that code makes use. */
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return;
	has_sha_ni = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

void epkp_sha256_compress(uint32_t value[8], const uint8_t *message_block,
			  struct sha_schedule *schedule)
{
	if (has_sha_ni)
		epkp_sha256_ni(value, message_block);
	else
		epkp_sha256_plain(value, message_block, schedule->of256);
}

static void compress256(union sha_value *v, const uint8_t *message_block,
			struct sha_schedule *schedule)
{
	epkp_sha256_compress(v->of256, message_block, schedule);
}

static void compress512(union sha_value *v, const uint8_t *message_block,
			struct sha_schedule *schedule)
{
	epkp_sha512_plain(v->of512, message_block, schedule->of512);
}

static void put256(uint8_t *out, const union sha_value *v)
{
	uint32_t word;
	int i;

	for (i = 0; i < 8; i++) {
		word = htobe32(v->of256[i]);
		memcpy(out + 4 * i, &word, 4);
	}
}

static void put384(uint8_t *out, const union sha_value *v)
{
	uint64_t word;
	int i;

	for (i = 0; i < 6; i++) {
		word = htobe64(v->of512[i]);
		memcpy(out + 8 * i, &word, 8);
	}
}

static const struct hash hashes[] = {
	{
		.names = { "SHA256", "SHA2-256", "SHA-256" },
		.len = 32,
		.message_block_len = 64,
		.compress = compress256,
		.put = put256,
		.first.of256 = {
			0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
		},
		.of_nothing = {
			0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8,
			0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
			0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
		},
	}, {
		.names = { "SHA384", "SHA2-384", "SHA-384" },
		.len = 48,
		.message_block_len = 128,
		.compress = compress512,
		.put = put384,
		.first.of512 = {
			0xcbbb9d5dc1059ed8, 0x629a292a367cd507,
			0x9159015a3070dd17, 0x152fecd8f70e5939,
			0x67332667ffc00b31, 0x8eb44a8768581511,
			0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
		},
		.of_nothing = {
			0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38, 0x4c, 0xd9, 0x32, 0x7e,
			0xb1, 0xb1, 0xe3, 0x6a, 0x21, 0xfd, 0xb7, 0x11, 0x14, 0xbe, 0x07, 0x43,
			0x4c, 0x0c, 0xc7, 0xbf, 0x63, 0xf6, 0xe1, 0xda, 0x27, 0x4e, 0xde, 0xbf,
			0xe7, 0x6f, 0x65, 0xfb, 0xd5, 0x1a, 0xd2, 0xf1, 0x48, 0x98, 0xb9, 0x5b,
		},
	},
};

const struct hash *epkp_hash_find(const char *name)
{
	size_t i, n;

	for (i = 0; name && i < sizeof(hashes) / sizeof(hashes[0]); i++)
		for (n = 0; n < 3; n++)
			if (!strcasecmp(name, hashes[i].names[n]))
				return &hashes[i];
	return NULL;
}

/* ---- one message after another */

static void start(struct hmac *h, const union sha_value *from, uint64_t len)
{
	h->value = *from;
	h->len = len;
}

static void compress(struct hmac *h)
{
	h->hash->compress(&h->value, h->message_block, &h->schedule);
}

static void absorb(struct hmac *h, const uint8_t *data, size_t len)
{
	size_t full = h->hash->message_block_len, at = h->len % full, take;

	for (h->len += len; len; data += take, len -= take, at = 0) {
		take = len < full - at ? len : full - at;
		memcpy(h->message_block + at, data, take);
		if (at + take == full)
			compress(h);
	}
}

/* One bit, zeros, and the length in bits, for which there are two of its 16 words. */
static void finish_hash(struct hmac *h, uint8_t *out)
{
	size_t full = h->hash->message_block_len, at = h->len % full;
	uint64_t bits = htobe64(h->len * 8);

	h->message_block[at++] = 0x80;
	if (at > full - full / 8) {
		memset(h->message_block + at, 0, full - at);
		compress(h);
		at = 0;
	}
	memset(h->message_block + at, 0, full - at);
	memcpy(h->message_block + full - sizeof(bits), &bits, sizeof(bits));
	compress(h);
	h->hash->put(out, &h->value);
}

/* What the key in @h->message_block, combined with that byte, makes of the first value. */
static void absorb_pad(struct hmac *h, uint8_t with, union sha_value *to)
{
	size_t i;

	*to = h->hash->first;
	for (i = 0; i < h->hash->message_block_len; i++)
		h->message_block[i] ^= with;
	h->hash->compress(to, h->message_block, &h->schedule);
}

void epkp_hmac_key(struct hmac *h, const struct hash *hash, const uint8_t *key, size_t len)
{
	h->hash = hash;
	if (len > hash->message_block_len) {
		start(h, &hash->first, 0);
		absorb(h, key, len);
		finish_hash(h, h->digest);
		key = h->digest;
		len = hash->len;
	}
	memset(h->message_block, 0, sizeof(h->message_block));
	if (len)
		memcpy(h->message_block, key, len);
	absorb_pad(h, 0x36, &h->inner);
	absorb_pad(h, 0x36 ^ 0x5c, &h->outer);
}

void epkp_hmac_begin(struct hmac *h)
{
	start(h, &h->inner, h->hash->message_block_len);
}

void epkp_hmac_add(struct hmac *h, const void *data, size_t len)
{
	if (len)
		absorb(h, data, len);
}

void epkp_hmac_end(struct hmac *h, uint8_t *out)
{
	finish_hash(h, h->digest);
	start(h, &h->outer, h->hash->message_block_len);
	absorb(h, h->digest, h->hash->len);
	finish_hash(h, out);
}

static size_t put(uint8_t *to, size_t at, const uint8_t *from, size_t len)
{
	if (len)
		memcpy(to + at, from, len);
	return at + len;
}

bool epkp_hmac_expand_label(struct hmac *h, const struct hash *hash, const uint8_t *secret,
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

	epkp_hmac_key(h, hash, secret, hash->len);
	for (i = 1, done = 0; done < outlen; i++, done += take) {
		epkp_hmac_begin(h);
		epkp_hmac_add(h, h->chain, i > 1 ? hash->len : 0);
		epkp_hmac_add(h, h->info, len);
		epkp_hmac_add(h, &i, 1);
		epkp_hmac_end(h, h->chain);
		take = outlen - done < hash->len ? outlen - done : hash->len;
		memcpy(out + done, h->chain, take);
	}
	return true;
}
