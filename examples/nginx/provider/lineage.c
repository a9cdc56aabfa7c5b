// SPDX-License-Identifier: MIT
/*
 * Which connection a record key is of, so that both of one go to one domain.
 *
 * A lineage is what K makes of the secret that a key exchange of TLS 1.3 gives, or of what the
 * key block of TLS 1.2 comes from: it is no secret, and two keys of one lineage are of one
 * connection, since who has the same secret has the same keys.  With TLS 1.3 it is handed on
 * to the secrets that libssl goes on with, under what K makes of a wrapped secret.
 *
 * A secret that a key exchange is not in, as a PSK alone, may be that of several connections
 * and has none.  Nor has one that is forgotten, as the table is full of newer ones: then a key
 * gets a domain of its own.
 *
 * Nobody waits for anybody, as the vault is open meanwhile.  A place that two write to at a time
 * is taken for none: its first word tells a secret only with the other two.
 */
#include <string.h>

#include "secrets.h"

#define NR_SETS	4096
#define NR_WAYS	8

static uint64_t known[NR_SETS][NR_WAYS][3];
static uint32_t next_way[NR_SETS];

enum { TWEAK_SECRET, TWEAK_WRAPPED };

void epkp_lineage_of_secret(struct opened *o, const uint8_t *secret, size_t len, struct lineage *l)
{
	const uint8_t tweak[8] = { SECRET_LINEAGE, TWEAK_SECRET, len };

	memset(l, 0, sizeof(*l));
	epkp_mix(o, tweak, secret, len, (uint8_t *)l, sizeof(*l));
}

/* Where that of a wrapped secret would be, and as what. */
static uint64_t (*set_of(struct opened *o, const uint8_t *wrapped, size_t len, uint64_t *what,
			 size_t *set))[3]
{
	const uint8_t tweak[8] = { SECRET_LINEAGE, TWEAK_WRAPPED, len };
	uint64_t made[2] = { 0 };

	epkp_mix(o, tweak, wrapped, len, (uint8_t *)made, sizeof(made));
	/* Zero is a place that nothing has been put to. */
	*what = made[0] | 1;
	*set = made[1] % NR_SETS;
	return known[*set];
}

void epkp_lineage_remember(struct opened *o, const uint8_t *wrapped, size_t len,
			   const struct lineage *l)
{
	uint64_t (*ways)[3], what, *place;
	size_t set;

	ways = set_of(o, wrapped, len, &what, &set);
	place = ways[__atomic_fetch_add(&next_way[set], 1, __ATOMIC_RELAXED) % NR_WAYS];
	__atomic_store_n(&place[0], what ^ l->id[0] ^ l->id[1], __ATOMIC_RELAXED);
	__atomic_store_n(&place[1], l->id[0], __ATOMIC_RELAXED);
	__atomic_store_n(&place[2], l->id[1], __ATOMIC_RELAXED);
}

/* None, if there is none. */
void epkp_lineage_of(struct opened *o, const uint8_t *wrapped, size_t len, struct lineage *l)
{
	uint64_t (*ways)[3], what, first;
	struct lineage found;
	size_t set;
	int i;

	memset(l, 0, sizeof(*l));
	ways = set_of(o, wrapped, len, &what, &set);
	for (i = 0; i < NR_WAYS; i++) {
		first = __atomic_load_n(&ways[i][0], __ATOMIC_RELAXED);
		found.id[0] = __atomic_load_n(&ways[i][1], __ATOMIC_RELAXED);
		found.id[1] = __atomic_load_n(&ways[i][2], __ATOMIC_RELAXED);
		if ((first ^ found.id[0] ^ found.id[1]) == what)
			*l = found;
	}
}

void epkp_lineage_hand_on(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len)
{
	struct lineage l;

	epkp_lineage_of(o, from, len, &l);
	if (lineage_is_some(&l))
		epkp_lineage_remember(o, to, len, &l);
}
