/* SPDX-License-Identifier: MIT */
/*
 * Secrets that libssl carries from one operation of a provider to another.
 *
 * libssl never looks at them.  So what it gets is not the secret but something of the same
 * length that stands for it, and each operation that takes one turns it back, in a domain:
 *
 *	- what lives as long as a session or a connection is wrapped (wrap.c): permuted under
 *	  a key K that lies in the vault.  Nothing is stored, so that tickets and sessions
 *	  work in every process that has K;
 *	- what is used at once, and once, is kept in the vault, and a handle names it
 *	  (handle.c): nothing else tells a record key of libssl from one of an application.
 */
#ifndef SECRETS_H
#define SECRETS_H

#include <sys/types.h>

#include "epk_provider.h"
#include "hash.h"

#define MASTER_LEN	48	/* of TLS 1.2 */
#define SHARED_MAX	48	/* the longest of a group, a hash and that */

/* What a wrapped secret is: one that is taken for another comes out as nonsense. */
enum secret_kind {
	SECRET_SCHEDULE = 1,	/* of the key schedule of TLS 1.3 */
	SECRET_PSK,		/* what a session of TLS 1.3 is resumed with */
	SECRET_MASTER,		/* of a session of TLS 1.2 */
	SECRET_FINISHED,	/* the key of a Finished message or a binder */
	SECRET_PRIVATE,		/* an ephemeral private key */
	SECRET_HANDLE,		/* none: what tells handles from other bytes */
	SECRET_CHECK,		/* none: what tells K from other bytes */
	SECRET_LONG_LIVED,	/* a private key of a certificate's, in key.c */
	SECRET_INDEX,		/* none: the key of a table's order */
	SECRET_KEY_BLOCK,	/* none: what tells one key block from others */
	SECRET_LINEAGE,		/* none: what tells one connection from others */
};

/* What a key exchange has agreed on, when it is asked for. */
enum taken { TAKEN_NOT, TAKEN_OURS, TAKEN_FOREIGN };

/* A secret that a handle names. */
struct kept {
	size_t len;
	uint8_t bytes[SHARED_MAX];
};

/*
 * As many as may wait at a time: with TLS 1.2 one of each handshake does, from the server's
 * half until the client's is there.
 */
#define NR_KEPT		4096
#define NR_WORKS	16

/**
 * struct work - where a thread computes with secrets
 * @mix, @permuted: of wrap.c, which uses the schedule of @hmac as well
 */
struct work {
	struct hmac hmac;
	struct {
		uint32_t value[8];
		uint8_t message_block[64];
	} mix;
	uint8_t secret[1024];
	uint8_t salt[HASH_MAX];
	uint8_t permuted[SHARED_MAX];
	uint8_t out[128];
};

#define CHECK_LEN	16

/* What lies in the vault's domain. */
struct vault {
	uint32_t key[8];
	uint8_t check[CHECK_LEN];
	struct kept kept[NR_KEPT];
	struct work works[NR_WORKS];
};

/* As they go through a fork. */
#define KEY_AND_CHECK	(ssize_t)(sizeof(((struct vault *)0)->key) + CHECK_LEN)

_Static_assert(!offsetof(struct vault, key) &&
	       offsetof(struct vault, check) == sizeof(((struct vault *)0)->key), "in a row");

/**
 * struct opened - the vault, opened by this thread
 * @vault: its memory
 * @slot: which part of it is reserved for this thread
 * @work: that part
 * @wiped: it is
 */
struct opened {
	struct vault *vault;
	unsigned int slot;
	struct work *work;
	bool wiped;
	char *low;
};

/* vault.c */
bool epkp_vault_start(struct provider *prov);
void epkp_vault_reserve(struct opened *o);
bool epkp_vault_try_reserve(struct opened *o);
void epkp_vault_leave(struct opened *o);
bool epkp_vault_enter(struct provider *prov, struct opened *o, char *watched);
bool epkp_vault_open(struct provider *prov, struct opened *o);
void epkp_vault_wipe(struct opened *o);
bool epkp_vault_close(struct provider *prov, struct opened *o);
void epkp_vault_before_fork(void);
void epkp_vault_after_fork(void);
void epkp_vault_in_child(int err);

/* wrap.c; @to and @from may be the same. */
void epkp_wrap(struct opened *o, enum secret_kind kind, uint8_t *to, const uint8_t *from,
	       size_t len);
void epkp_unwrap(struct opened *o, enum secret_kind kind, uint8_t *to, const uint8_t *from,
		 size_t len);
void epkp_mix(struct opened *o, const uint8_t tweak[8], const uint8_t *in, size_t inl, uint8_t *out,
	      size_t outl);

/* handle.c */
bool epkp_handle_fits(size_t len);
bool epkp_handle_looks_like(const uint8_t *bytes, size_t len);
void epkp_handle_give(struct opened *o, uint8_t *handle, const uint8_t *secret, size_t len,
		      const struct lineage *of);
void epkp_handle_lineage(const uint8_t *handle, size_t len, struct lineage *of);
int epkp_handle_take(struct provider *prov, struct opened *o, uint8_t *to, const uint8_t *handle,
		     size_t len);
int epkp_handle_take_to_box(struct provider *prov, struct opened *o, const struct box *box,
			    uint8_t to[SHARED_MAX], const uint8_t *handle, size_t len);
void epkp_handles_in_child(void);

/* lineage.c */
void epkp_lineage_of_secret(struct opened *o, const uint8_t *secret, size_t len, struct lineage *l);
void epkp_lineage_remember(struct opened *o, const uint8_t *wrapped, size_t len,
			   const struct lineage *l);
void epkp_lineage_of(struct opened *o, const uint8_t *wrapped, size_t len, struct lineage *l);
void epkp_lineage_bind(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len,
		       const uint8_t *hash);
void epkp_lineage_inherit(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len);
void epkp_lineage_hand_on(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len);
void epkp_lineage_forget(struct opened *o, const uint8_t *wrapped, size_t len);

/* given.c */
bool epkp_given_once(struct opened *o, const uint8_t *start, size_t len, size_t key_block_len);

/* mac.c */
bool epkp_mac_start(struct provider *prov);
void epkp_mac_remember(const uint8_t *wrapped, size_t len);
extern const OSSL_DISPATCH epkp_hmac_functions[];

/* kdf.c */
enum taken epkp_take_shared(struct provider *prov, struct opened *o, const uint8_t *from,
			    size_t len);
extern const OSSL_DISPATCH epkp_tls13_kdf_functions[], epkp_tls1_prf_functions[];

/* kdf13.c and prf.c */
bool epkp_tls13_derive(struct provider *prov, struct opened *o, const struct hash *hash,
		       uint8_t *out, size_t outlen, const OSSL_PARAM params[]);
bool epkp_prf_derive(struct provider *prov, struct opened *o, const struct hash *hash, uint8_t *out,
		     size_t outlen, const OSSL_PARAM params[]);
bool epkp_prf_is_libssls(const OSSL_PARAM params[]);

/* group.c */
#define NR_GROUPS	3
extern const OSSL_DISPATCH epkp_group_keymgmt_functions[NR_GROUPS][16];
extern const OSSL_DISPATCH epkp_group_keyexch_functions[];
const char *epkp_group_algorithm(size_t i);
size_t epkp_group_secret_len(size_t i);
int epkp_group_capabilities(void *provctx, const char *capability, OSSL_CALLBACK *cb, void *arg);

/* cipher_check.c: what it looks for groups with, so that it is not taken for libssl */
int epkp_cipher_check_sees_group(const OSSL_PARAM params[], void *arg);

#endif /* SECRETS_H */
