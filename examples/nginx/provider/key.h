/* SPDX-License-Identifier: MIT */
/*
 * Private keys of long life, a server's first of all: in a domain.
 *
 * What OpenSSL holds is a struct private_key, in which nothing is secret.  The key itself is
 * sealed there, under K of the vault, and so goes through fork() with all else; who computes
 * with it unseals it in a room, and keeps that for the next time.
 */
#ifndef KEY_H
#define KEY_H

#include <openssl/evp.h>

#include "pem.h"
#include "room.h"

#define SEAL_LEN	32

struct private_key;

/**
 * struct key_kind - an algorithm
 * @name: OpenSSL's
 * @stack: bytes of it that libcrypto's code uses
 * @build: in a room: libcrypto's key, from what epkp_pem_read() found
 * @publish: in a room: the public half, in @key
 * @warm_up, @draw: in ordinary memory: have libcrypto make what outlives a computation, once
 *	for each thread, and a generator, which a thread can lose
 */
struct key_kind {
	const char *name;
	size_t stack;
	void *(*build)(const struct private_key *key, struct part secret);
	bool (*publish)(struct private_key *key, void *object, struct part secret);
	bool (*warm_up)(const struct key_kind *kind);
	bool (*draw)(void);
};

/**
 * struct private_key - what OpenSSL holds
 * @type: OpenSSL's name
 * @kind: or NULL: it is in no domain
 * @refused: why there is none: see decoder.c
 * @pkey: of the inner library context: the public half, or all of a key in no domain
 * @bytes: the public half
 * @size: of a signature, at most
 * @sealed: the secret, of @sealed_len bytes, and @seal, by which it is whole
 * @idle: rooms where it is unsealed and nobody computes
 */
struct private_key {
	struct provider *prov;
	const char *type;
	const struct key_kind *kind;
	const char *refused;
	unsigned int references;
	int curve;
	EVP_PKEY *pkey;
	struct {
		uint8_t n[1024], e[8], point[133];
		size_t n_len, e_len, point_len;
	} bytes;
	size_t size;
	uint8_t *sealed, seal[SEAL_LEN];
	size_t sealed_len;
	struct idle *idle;
};

/* What OpenSSL is told instead of where a key is; as long as no one else's is. */
struct key_reference {
	uint64_t what;
	struct private_key *key;
	uint64_t zero;
};

#define KEY_REFERENCE	0x6b65792d65706b21ull

/* key.c */
struct private_key *epkp_key_make(struct provider *prov, const char *type);
struct private_key *epkp_key_hold(struct private_key *key);
void epkp_key_drop(struct private_key *key);
/* In a room, of which @pem is. */
bool epkp_key_take(struct private_key *key, const struct pem *pem);
bool epkp_key_get_ready(struct provider *prov, const struct key_kind *kind);
bool epkp_key_use(struct private_key *key, bool (*fn)(void *object, void *arg), void *arg);

/* key_kinds.c */
#define NR_KINDS	4
extern const struct key_kind epkp_key_kinds[NR_KINDS];	/* by enum pem_type */
bool epkp_keys_start(void);
bool epkp_key_make_public(struct private_key *key);

/* keymgmt.c: those of @epkp_key_kinds, and of RSA-PSS alone and DSA, which are in no domain */
#define NR_KEYMGMTS	(NR_KINDS + 2)
extern const OSSL_DISPATCH epkp_key_functions[NR_KEYMGMTS][24];
extern const char *const epkp_key_names[NR_KEYMGMTS];
bool epkp_key_is_for_caller(const struct private_key *key);
bool epkp_key_is_there(const struct private_key *key);

/* caller.c */
bool epkp_called_by_libssl(void);
void epkp_libssl_is_there(void);

/* sign.c, decrypt.c */
extern const OSSL_DISPATCH epkp_signature_functions[], epkp_rsa_cipher_functions[];

/* decoder.c */
extern const OSSL_DISPATCH epkp_pem_decoder_functions[];
void epkp_decoder_start(const OSSL_DISPATCH *in);

#endif /* KEY_H */
