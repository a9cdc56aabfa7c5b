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
 * @half: of the box
 * @mem: its memory
 * @fresh: the inner context is not in the box yet
 * @keyed: it has a key, and goes @sealing's way; @had_key: it may have one
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
	bool fresh;
	bool keyed;
	bool had_key;
	bool sealing;
	bool tls_mac;
	bool counted;
	bool record;
	bool cbc;
	bool odd;
	size_t iv_len;
	enum stage stage;
	struct message message;
};

#endif /* CIPHER_H */
