/* SPDX-License-Identifier: MIT */
/* A cipher context, as OpenSSL holds it: what of it is in no domain. */
#ifndef CIPHER_H
#define CIPHER_H

#include "epk_provider.h"

enum stage {
	STAGE_PLAIN,	/* the inner context has seen all calls */
	STAGE_BEGUN,	/* but for a message's IV, and perhaps its header and tag */
	STAGE_HEADER,	/* but for a TLS 1.2 record's header */
	STAGE_AHEAD,	/* it has ended the message, and nobody has asked for that */
	STAGE_ENDED,	/* as STAGE_PLAIN, and the message has the tag */
};

/* Nothing of it is secret: a record's IV is its number mixed with what libssl keeps. */
struct message {
	uint8_t iv[IV_LEN];
	uint8_t header[HEADER_LEN];
	uint8_t tag[TAG_LEN];
	size_t header_len;
	size_t tag_len;
	int right;
};

/**
 * struct cipher_ctx - what OpenSSL holds
 * @box: NULL until a key comes
 * @half: of the box
 * @mem: its memory, or @unkeyed
 * @unkeyed: the inner context, or NULL: it is in the box, and may have a key
 * @keyed: it has a key, and goes @sealing's way
 * @told: to find a tag of TAG_LEN bytes, and nothing else but messages since
 * @tls_mac: it may own a copy of the last record's MAC (KIND_CBC)
 * @counted: it is among the published ones; @record: with a key from the vault;
 *	@cbc: as one of a CBC suite
 * @odd: used as libssl never does; the inner context is to see all calls at once
 * @iv_len: as the inner context would tell it, or 0
 *
 * Two threads may copy one, or query it, at a time: neither writes to it, but for @iv_len.
 */
struct cipher_ctx {
	struct provider *prov;
	const struct cipher *cipher;
	struct box *box;
	unsigned int half;
	uint8_t *mem;
	uint8_t *unkeyed;
	bool keyed;
	bool sealing;
	bool told;
	bool tls_mac;
	bool counted;
	bool record;
	bool cbc;
	bool odd;
	size_t iv_len;
	enum stage stage;
	struct message message;
};

static inline void *inner(const struct cipher_ctx *ctx)
{
	return ctx->mem;
}

static inline size_t padded(size_t size)
{
	return (size + 15) & ~(size_t)15;
}

/* Of a box: the context, what is kept of it, and a key on its way. */
static inline size_t room(const struct cipher *cipher)
{
	return 2 * padded(cipher->size) + KEY_ROOM;
}

/* Where the state from before the end of a message is kept. */
static inline void *kept(const struct cipher_ctx *ctx)
{
	return ctx->mem + padded(ctx->cipher->size);
}

/* Where a key is that came from the vault, until the inner context has it. */
static inline uint8_t *fetched(const struct cipher_ctx *ctx)
{
	return ctx->mem + 2 * padded(ctx->cipher->size);
}

/* in_box.c */
void epkp_ctx_relocate(const struct cipher *c, uint8_t *bytes, const uint8_t *to,
		       const uint8_t *from);
char *epkp_ctx_enter_opened(struct cipher_ctx *ctx);
char *epkp_ctx_enter(struct cipher_ctx *ctx);
int epkp_ctx_leave(struct cipher_ctx *ctx, char *low, int ret);
void epkp_ctx_have_box(struct cipher_ctx *ctx, struct box *box, unsigned int half);
void epkp_ctx_leave_box(struct cipher_ctx *ctx);
bool epkp_ctx_copy_inner(struct cipher_ctx *to, struct cipher_ctx *from);
bool epkp_ctx_may_pair(const struct cipher_ctx *ctx, const struct lineage *of);
bool epkp_ctx_find_box(struct cipher_ctx *ctx, const struct lineage *of);
int epkp_ctx_fetch_key(struct cipher_ctx *ctx, const uint8_t *key, size_t len,
		       const struct lineage *of);

#endif /* CIPHER_H */
