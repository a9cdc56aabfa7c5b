// SPDX-License-Identifier: MIT
/*
 * X25519 with all its numbers where the caller wants them: in a domain.  libcrypto's has a
 * heap and stack of its own.  No branch and no address depends on a secret.
 */
#include <string.h>

#include "x25519.h"

typedef unsigned __int128 uint128_t;

#define LIMB_BITS	51
#define LIMB_MASK	((1ull << LIMB_BITS) - 1)

static uint64_t load(const uint8_t *from)
{
	uint64_t word;

	memcpy(&word, from, sizeof(word));
	return word;
}

/* The highest bit does not count. */
static void unpack(felem to, const uint8_t *from)
{
	to[0] = load(from) & LIMB_MASK;
	to[1] = load(from + 6) >> 3 & LIMB_MASK;
	to[2] = load(from + 12) >> 6 & LIMB_MASK;
	to[3] = load(from + 19) >> 1 & LIMB_MASK;
	to[4] = load(from + 24) >> 12 & LIMB_MASK;
}

static void carry(felem f)
{
	int i;

	for (i = 0; i < 4; i++) {
		f[i + 1] += f[i] >> LIMB_BITS;
		f[i] &= LIMB_MASK;
	}
	f[0] += 19 * (f[4] >> LIMB_BITS);
	f[4] &= LIMB_MASK;
}

/* Less than the prime 2^255 - 19. */
static void pack(uint8_t *to, felem f)
{
	uint64_t word;
	int i;

	carry(f);
	carry(f);
	/* Now at most 2^255 - 1: with 19 more, its bit 255 tells whether the prime fits in. */
	f[0] += 19;
	carry(f);
	f[0] += (1ull << LIMB_BITS) - 19;
	for (i = 1; i < 5; i++)
		f[i] += LIMB_MASK;
	for (i = 0; i < 4; i++) {
		f[i + 1] += f[i] >> LIMB_BITS;
		f[i] &= LIMB_MASK;
	}
	f[4] &= LIMB_MASK;
	for (i = 0; i < 4; i++) {
		static const int shift[] = { 0, 13, 26, 39 };

		word = f[i] >> shift[i] | f[i + 1] << (LIMB_BITS - shift[i]);
		memcpy(to + 8 * i, &word, sizeof(word));
	}
}

static inline void add(felem to, const felem a, const felem b)
{
	int i;

	for (i = 0; i < 5; i++)
		to[i] = a[i] + b[i];
}

/* @b is a product, less than 2^51 + 2^13 in each limb: twice the prime keeps this positive. */
static inline void subtract(felem to, const felem a, const felem b)
{
	int i;

	to[0] = a[0] + 2 * (LIMB_MASK - 18) - b[0];
	for (i = 1; i < 5; i++)
		to[i] = a[i] + 2 * LIMB_MASK - b[i];
}

/* The highest sum less than 2^110, so that what is carried round fits in a word. */
static inline void reduce(felem to, uint128_t s0, uint128_t s1, uint128_t s2, uint128_t s3,
			  uint128_t s4)
{
	uint64_t r0, r1;

	s1 += s0 >> LIMB_BITS;
	s2 += s1 >> LIMB_BITS;
	s3 += s2 >> LIMB_BITS;
	s4 += s3 >> LIMB_BITS;
	r0 = ((uint64_t)s0 & LIMB_MASK) + 19 * (uint64_t)(s4 >> LIMB_BITS);
	r1 = ((uint64_t)s1 & LIMB_MASK) + (r0 >> LIMB_BITS);
	to[0] = r0 & LIMB_MASK;
	to[1] = r1;
	to[2] = (uint64_t)s2 & LIMB_MASK;
	to[3] = (uint64_t)s3 & LIMB_MASK;
	to[4] = (uint64_t)s4 & LIMB_MASK;
}

/* Of sums or differences of products: less than 2^53 in each limb. */
static inline void multiply(felem to, const felem a, const felem b)
{
	uint64_t a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4];
	uint64_t b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3], b4 = b[4];
	uint64_t c1 = 19 * b1, c2 = 19 * b2, c3 = 19 * b3, c4 = 19 * b4;

#define M(x, y)	((uint128_t)(x) * (y))
	reduce(to, M(a0, b0) + M(a1, c4) + M(a2, c3) + M(a3, c2) + M(a4, c1),
	       M(a0, b1) + M(a1, b0) + M(a2, c4) + M(a3, c3) + M(a4, c2),
	       M(a0, b2) + M(a1, b1) + M(a2, b0) + M(a3, c4) + M(a4, c3),
	       M(a0, b3) + M(a1, b2) + M(a2, b1) + M(a3, b0) + M(a4, c4),
	       M(a0, b4) + M(a1, b3) + M(a2, b2) + M(a3, b1) + M(a4, b0));
}

static inline void square(felem to, const felem a)
{
	uint64_t a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4];
	uint64_t d0 = 2 * a0, d1 = 2 * a1, d2 = 2 * a2, c3 = 19 * a3, c4 = 19 * a4;

	reduce(to, M(a0, a0) + M(d1, c4) + M(d2, c3), M(d0, a1) + M(d2, c4) + M(a3, c3),
	       M(d0, a2) + M(a1, a1) + M(2 * a3, c4), M(d0, a3) + M(d1, a2) + M(a4, c4),
	       M(d0, a4) + M(d1, a3) + M(a2, a2));
#undef M
}

/* (A - 2) / 4 of the curve. */
#define A24	121665

static inline void multiply_a24(felem to, const felem a)
{
	reduce(to, (uint128_t)a[0] * A24, (uint128_t)a[1] * A24, (uint128_t)a[2] * A24,
	       (uint128_t)a[3] * A24, (uint128_t)a[4] * A24);
}

static void square_times(felem to, const felem a, int times)
{
	square(to, a);
	while (--times)
		square(to, to);
}

/* To the power of the prime less 2: 2^255 - 21. */
static void invert(felem out, const felem z, felem t[4])
{
	square_times(t[0], z, 1);
	square_times(t[1], t[0], 2);
	multiply(t[1], z, t[1]);		/* 9 */
	multiply(t[0], t[0], t[1]);		/* 11 */
	square_times(t[2], t[0], 1);
	multiply(t[1], t[1], t[2]);		/* 2^5 - 1 */
	square_times(t[2], t[1], 5);
	multiply(t[1], t[2], t[1]);		/* 2^10 - 1 */
	square_times(t[2], t[1], 10);
	multiply(t[2], t[2], t[1]);		/* 2^20 - 1 */
	square_times(t[3], t[2], 20);
	multiply(t[2], t[3], t[2]);		/* 2^40 - 1 */
	square_times(t[2], t[2], 10);
	multiply(t[1], t[2], t[1]);		/* 2^50 - 1 */
	square_times(t[2], t[1], 50);
	multiply(t[2], t[2], t[1]);		/* 2^100 - 1 */
	square_times(t[3], t[2], 100);
	multiply(t[2], t[3], t[2]);		/* 2^200 - 1 */
	square_times(t[2], t[2], 50);
	multiply(t[1], t[2], t[1]);		/* 2^250 - 1 */
	square_times(t[1], t[1], 5);
	multiply(out, t[1], t[0]);
}

static inline void swap_if(uint64_t swap, felem a, felem b)
{
	uint64_t mask = -swap, differ;
	int i;

	for (i = 0; i < 5; i++) {
		differ = mask & (a[i] ^ b[i]);
		a[i] ^= differ;
		b[i] ^= differ;
	}
}

/* One step of the ladder, with the names of RFC 7748. */
static void ladder_step(struct x25519_work *w)
{
	add(w->a, w->x2, w->z2);
	square(w->aa, w->a);
	subtract(w->b, w->x2, w->z2);
	square(w->bb, w->b);
	subtract(w->e, w->aa, w->bb);
	add(w->t[0], w->x3, w->z3);
	subtract(w->t[1], w->x3, w->z3);
	multiply(w->da, w->t[1], w->a);
	multiply(w->cb, w->t[0], w->b);
	add(w->t[0], w->da, w->cb);
	square(w->x3, w->t[0]);
	subtract(w->t[1], w->da, w->cb);
	square(w->t[1], w->t[1]);
	multiply(w->z3, w->x1, w->t[1]);
	multiply(w->x2, w->aa, w->bb);
	multiply_a24(w->t[2], w->e);
	add(w->t[2], w->t[2], w->aa);
	multiply(w->z2, w->e, w->t[2]);
}

bool epkp_x25519(struct x25519_work *w, uint8_t out[X25519_LEN], const uint8_t scalar[X25519_LEN],
		 const uint8_t point[X25519_LEN])
{
	uint64_t bit, swap = 0;
	uint8_t any = 0;
	int i;

	memset(w, 0, sizeof(*w));
	memcpy(w->scalar, scalar, X25519_LEN);
	w->scalar[0] &= 248;
	w->scalar[31] = (w->scalar[31] & 127) | 64;
	unpack(w->x1, point);
	memcpy(w->x3, w->x1, sizeof(felem));
	w->x2[0] = w->z3[0] = 1;
	for (i = 254; i >= 0; i--) {
		bit = w->scalar[i / 8] >> (i % 8) & 1;
		swap ^= bit;
		swap_if(swap, w->x2, w->x3);
		swap_if(swap, w->z2, w->z3);
		swap = bit;
		ladder_step(w);
	}
	swap_if(swap, w->x2, w->x3);
	swap_if(swap, w->z2, w->z3);
	invert(w->z2, w->z2, w->t);
	multiply(w->x2, w->x2, w->z2);
	pack(out, w->x2);
	for (i = 0; i < X25519_LEN; i++)
		any |= out[i];
	return any;
}
