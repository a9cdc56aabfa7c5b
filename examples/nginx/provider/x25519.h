/* SPDX-License-Identifier: MIT */
#ifndef X25519_H
#define X25519_H

#include <stdbool.h>
#include <stdint.h>

#define X25519_LEN	32

/* An element of the field, in limbs of 51 bits and some that have not been carried on. */
typedef uint64_t felem[5];

/* All that a computation keeps in memory, but for what the compiler spills. */
struct x25519_work {
	uint8_t scalar[X25519_LEN];
	felem x1, x2, z2, x3, z3;
	felem a, aa, b, bb, e, da, cb;
	felem t[4];
};

/* X25519 (RFC 7748, 5), in constant time; false if what comes out is zero. */
bool epkp_x25519(struct x25519_work *w, uint8_t out[X25519_LEN], const uint8_t scalar[X25519_LEN],
		 const uint8_t point[X25519_LEN]);

#endif /* X25519_H */
