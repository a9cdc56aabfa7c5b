/* SPDX-License-Identifier: MIT */
/*
 * HMAC of the two hashes that TLS derives keys with.
 *
 * libcrypto's SHA-2 with contexts of the caller's: they are to lie in a domain, and those
 * of EVP lie where OpenSSL wants.
 */
#ifndef HASH_H
#define HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef OPENSSL_SUPPRESS_DEPRECATED
#define OPENSSL_SUPPRESS_DEPRECATED
#endif
#include <openssl/sha.h>

#define HASH_MAX	48
#define HASH_BLOCK_MAX	128

union hash_state {
	SHA256_CTX sha256;
	SHA512_CTX sha384;
};

struct hash {
	const char *names[3];
	size_t len;
	size_t block;
	int (*init)(union hash_state *s);
	int (*update)(union hash_state *s, const void *data, size_t len);
	int (*final)(uint8_t *out, union hash_state *s);
	uint8_t of_nothing[HASH_MAX];
};

/* The one of that name, or NULL. */
const struct hash *hash_find(const char *name);

/**
 * struct hmac - all of a computation
 * @inner: of the key, and then of the message
 * @outer: of the key
 * @running: those of the message
 */
struct hmac {
	const struct hash *hash;
	union hash_state inner, outer, running;
	uint8_t pad[HASH_BLOCK_MAX];
	uint8_t digest[HASH_MAX];
	uint8_t chain[HASH_MAX];
	uint8_t info[520];
};

void hmac_key(struct hmac *h, const struct hash *hash, const uint8_t *key, size_t len);
/* The same key as often as there are messages. */
void hmac_begin(struct hmac *h);
void hmac_add(struct hmac *h, const void *data, size_t len);
void hmac_end(struct hmac *h, uint8_t *out);

/* What is derived from a secret for a label. */
struct derivation {
	const uint8_t *prefix, *label, *data;
	size_t prefix_len, label_len, data_len;
};

/* HKDF-Expand-Label (RFC 8446, 7.1); false if it is too long. */
bool hmac_expand_label(struct hmac *h, const struct hash *hash, const uint8_t *secret,
		       const struct derivation *d, uint8_t *out, size_t outlen);

#endif /* HASH_H */
