/* SPDX-License-Identifier: MIT */
/*
 * Secrets that are looked for: each 8 bytes of them, as they are, as code for this CPU keeps the
 * words of a message to be hashed, and with what is added to these in each round.
 */
#ifndef PROVIDER_NEEDLES_H
#define PROVIDER_NEEDLES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NEEDLES_MAX	4096

/* Inverted, lest they be found here; and which of them begin so. */
static uint64_t needles[NEEDLES_MAX];
static size_t nr_needles;
static bool needle_begins[65536];

static void needles_forget(void)
{
	nr_needles = 0;
	memset(needle_begins, 0, sizeof(needle_begins));
}

static void needle_add(uint64_t bytes)
{
	if (nr_needles == NEEDLES_MAX)
		abort();
	needles[nr_needles++] = ~bytes;
	needle_begins[bytes & 0xffff] = true;
}

static inline uint8_t needle_byte(size_t i)
{
	return ~((uint8_t *)needles)[i];
}

/* FIPS 180-4, 4.2.2 and 4.2.3: the first of them. */
static const uint32_t needle_k256[16] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
};

static const uint64_t needle_k512[16] = {
	0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
	0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
	0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
	0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
};

static uint64_t two_words(uint32_t first, uint32_t second)
{
	return first | (uint64_t)second << 32;
}

/* @at: of the block, in bytes */
static void needle_add_word(uint64_t bytes, size_t at)
{
	uint32_t first = htobe32((uint32_t)bytes), second = htobe32(bytes >> 32);

	needle_add(bytes);
	needle_add(htobe64(bytes));
	needle_add(two_words(first, second));
	needle_add(two_words(first + needle_k256[at / 4 % 16],
			     second + needle_k256[(at / 4 + 1) % 16]));
	needle_add(htobe64(bytes) + needle_k512[at / 8]);
}

/* As they are alone. */
static inline void needles_add_bytes(const uint8_t *secret, size_t len)
{
	uint64_t bytes;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		memcpy(&bytes, secret + i, 8);
		needle_add(bytes);
	}
}

/* A secret; zeros are none. */
static void needles_add(const uint8_t *secret, size_t len)
{
	uint64_t bytes;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		memcpy(&bytes, secret + i, 8);
		if (!bytes)
			continue;
		needle_add(bytes);
		needle_add(htobe64(bytes));
		needle_add(two_words(htobe32((uint32_t)bytes), htobe32(bytes >> 32)));
	}
}

/*
 * One that is hashed: as the key of HMAC, as a message, and where its halves are on their
 * way through a Feistel network (wrap.c).
 */
static inline void needles_add_words(const uint8_t *secret, size_t len)
{
	static const uint64_t pads[] = { 0, 0x3636363636363636, 0x5c5c5c5c5c5c5c5c };
	uint64_t bytes;
	size_t i, pad;

	for (i = 0; i + 8 <= len; i += 8) {
		memcpy(&bytes, secret + i, 8);
		if (!bytes)
			continue;
		for (pad = 0; pad < 3; pad++)
			needle_add_word(bytes ^ pads[pad], i);
		needle_add_word(bytes, 8 + i % (len / 2));
	}
}

static size_t needles_in(const uint8_t *from, const uint8_t *to)
{
	size_t found = 0, i;
	uint64_t bytes;

	for (; from + 8 <= to; from += 4) {
		memcpy(&bytes, from, 8);
		if (!needle_begins[bytes & 0xffff])
			continue;
		for (i = 0; i < nr_needles; i++)
			found += needles[i] == ~bytes;
	}
	return found;
}

#endif /* PROVIDER_NEEDLES_H */
