/* SPDX-License-Identifier: MIT */
/* Private keys as files have them.  All of it works on memory of the caller's alone. */
#ifndef PEM_H
#define PEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A part of what is read. */
struct part {
	const uint8_t *at;
	size_t len;
};

enum pem_verdict {
	PEM_OTHER,	/* no private key, or one that nobody signs with */
	PEM_KEY,
	PEM_REFUSED,	/* a private key that the provider does not take */
};

enum pem_type { PEM_RSA, PEM_EC, PEM_ED25519, PEM_ED448 };

/**
 * struct pem - what the first PEM block of a text is
 * @why: it is refused
 * @end: of the PEM block, from the beginning of the text
 * @type: of the key
 * @curve: of one of PEM_EC: NID
 * @secret: an RSAPrivateKey, a scalar or a seed
 */
struct pem {
	const char *why;
	size_t end;
	enum pem_type type;
	int curve;
	struct part secret;
};

/* The text is overwritten with what it encodes.  @is_all: more does not follow. */
enum pem_verdict epkp_pem_read(uint8_t *text, size_t len, bool is_all, struct pem *pem);
/* Is the first PEM block a private key?  Then it ends at @end, or with the text. */
bool epkp_pem_is_key(const uint8_t *text, size_t len, size_t *end);
/* It cannot be one: so many bytes, of which none is secret, say what it is. */
#define PEM_TELLING	22
bool epkp_pem_is_other(const uint8_t telling[PEM_TELLING]);

#define NR_RSA_NUMBERS	8	/* n, e, d, p, q, dp, dq, qinv */

bool epkp_pem_rsa_numbers(struct part key, struct part numbers[NR_RSA_NUMBERS]);

#endif /* PEM_H */
