/* SPDX-License-Identifier: MIT */
/*
 * HMAC of the two hashes that TLS derives keys with.
 *
 * All of a computation is in a struct of the caller's, which is to lie in a domain, and in
 * registers: neither on the stack, where libcrypto's SHA-2 has what follows from a key, nor
 * on the heap, where EVP has it.
 */
#ifndef HASH_H
#define HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_MAX	48
#define MESSAGE_BLOCK_MAX	128

/* What a compression function chains. */
union sha_value {
	uint32_t of256[8];
	uint64_t of512[8];
};

/* The words of a message, while it is compressed. */
struct sha_schedule {
	union {
		uint32_t of256[64];
		uint64_t of512[80];
	};
};

void epkp_sha256_compress(uint32_t value[8], const uint8_t *message_block,
			  struct sha_schedule *schedule);

struct hash {
	const char *names[3];
	size_t len;
	size_t message_block_len;
	union sha_value first;
	void (*compress)(union sha_value *v, const uint8_t *message_block,
			 struct sha_schedule *schedule);
	void (*put)(uint8_t *out, const union sha_value *v);
	uint8_t of_nothing[HASH_MAX];
};

/* The one of that name, or NULL. */
const struct hash *epkp_hash_find(const char *name);

/**
 * struct hmac - all of a computation
 * @inner: of the key, and then of the message
 * @outer: of the key
 * @value: of the message so far
 * @len: bytes of it so far
 * @message_block: those that wait
 */
struct hmac {
	const struct hash *hash;
	union sha_value inner, outer, value;
	uint64_t len;
	uint8_t message_block[MESSAGE_BLOCK_MAX];
	struct sha_schedule schedule;
	uint8_t digest[HASH_MAX];
	uint8_t chain[HASH_MAX];
	uint8_t info[520];
};

void epkp_hmac_key(struct hmac *h, const struct hash *hash, const uint8_t *key, size_t len);
/* The same key as often as there are messages. */
void epkp_hmac_begin(struct hmac *h);
void epkp_hmac_add(struct hmac *h, const void *data, size_t len);
void epkp_hmac_end(struct hmac *h, uint8_t *out);

/* What is derived from a secret for a label. */
struct derivation {
	const uint8_t *prefix, *label, *data;
	size_t prefix_len, label_len, data_len;
};

/* HKDF-Expand-Label (RFC 8446, 7.1); false if it is too long. */
bool epkp_hmac_expand_label(struct hmac *h, const struct hash *hash, const uint8_t *secret,
			    const struct derivation *d, uint8_t *out, size_t outlen);

#endif /* HASH_H */
