/* SPDX-License-Identifier: MIT */
#ifndef CURVE_H
#define CURVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x25519.h"

#define PUBLIC_MAX	97
#define PRIVATE_MAX	48

/**
 * struct curve - an elliptic curve's arithmetic
 * @name: OpenSSL's
 * @public_len: of an encoded point
 * @private_len: of a private key, and of what two agree on
 */
struct curve {
	const char *name;
	int nid;
	size_t public_len;
	size_t private_len;
};

/* Of one exchange, in a domain that is open. */
struct curve_work {
	uint8_t private_key[PRIVATE_MAX];
	uint8_t shared[PRIVATE_MAX];
	struct x25519_work x25519;
};

bool epkp_curves_start(void);
bool epkp_curve_generate(const struct curve *c, struct curve_work *w, uint8_t *public_key);
bool epkp_curve_agree(const struct curve *c, struct curve_work *w, const uint8_t *peer);
/* What a peer has sent: nothing secret is open meanwhile. */
bool epkp_curve_has(const struct curve *c, const uint8_t *public_key);

#endif /* CURVE_H */
