// SPDX-License-Identifier: MIT
/*
 * Which connection a record key is of, so that both of one go to one domain.
 *
 * A lineage is no secret: what K makes of what the key block of TLS 1.2 comes from; with TLS 1.3,
 * of the secret that a key exchange gives and of the messages up to the ServerHello.  The secret
 * alone does not do: a server that hands the key shares of two clients on to each other gives both
 * the same.  Two keys of one lineage are of one connection, or of its two ends.
 *
 * With TLS 1.3 it is handed on to the secrets that libssl goes on with, under what K makes of a
 * wrapped secret.
 *
 * A secret that a key exchange is not in, as a PSK alone, may be that of several connections
 * and has none.  Nor has one that is forgotten, as the table is full of newer ones: then a key
 * gets a domain of its own.  Who has connections made, or keys updated, can see to that.
 *
 * Nobody waits for anybody, as the vault is open meanwhile.  An entry that two write to at a time
 * is taken for none: its first word tells a secret only with the other two.
 */
#include <string.h>

#include "secrets.h"

#define NR_SETS	4096
#define NR_WAYS	8

static uint64_t known[NR_SETS][NR_WAYS][3];
static uint32_t next_way[NR_SETS];

/* What is known of a wrapped secret: where it is from, and what has been made of it. */
enum { TWEAK_SECRET, TWEAK_WRAPPED, TWEAK_BOUND, TWEAK_MESSAGES };

void epkp_lineage_of_secret(struct opened *o, const uint8_t *secret, size_t len, struct lineage *l)
{
	const uint8_t tweak[8] = { SECRET_LINEAGE, TWEAK_SECRET, len };

	memset(l, 0, sizeof(*l));
	epkp_mix(o, tweak, secret, len, (uint8_t *)l, sizeof(*l));
}

/* Where that of a wrapped secret would be, and as what. */
static uint64_t (*set_of(struct opened *o, int which, const uint8_t *wrapped, size_t len,
			 uint64_t *what, size_t *set))[3]
{
	const uint8_t tweak[8] = { SECRET_LINEAGE, which, len };
	uint64_t made[2] = { 0 };

	epkp_mix(o, tweak, wrapped, len, (uint8_t *)made, sizeof(made));
	/* Zero is an entry that has nothing. */
	*what = made[0] | 1;
	*set = made[1] % NR_SETS;
	return known[*set];
}

static uint64_t *find_way(uint64_t (*ways)[3], uint64_t what, struct lineage *l)
{
	uint64_t first;
	int i;

	for (i = 0; i < NR_WAYS; i++) {
		first = __atomic_load_n(&ways[i][0], __ATOMIC_RELAXED);
		l->id[0] = __atomic_load_n(&ways[i][1], __ATOMIC_RELAXED);
		l->id[1] = __atomic_load_n(&ways[i][2], __ATOMIC_RELAXED);
		if ((first ^ l->id[0] ^ l->id[1]) == what)
			return ways[i];
	}
	memset(l, 0, sizeof(*l));
	return NULL;
}

static void write_way(uint64_t *way, uint64_t what, const struct lineage *l)
{
	__atomic_store_n(&way[0], what ^ l->id[0] ^ l->id[1], __ATOMIC_RELAXED);
	__atomic_store_n(&way[1], l->id[0], __ATOMIC_RELAXED);
	__atomic_store_n(&way[2], l->id[1], __ATOMIC_RELAXED);
}

/* In place of what is known of it, or where nothing is, or of what came first. */
static void remember(struct opened *o, int which, const uint8_t *wrapped, size_t len,
		     const struct lineage *l)
{
	uint64_t (*ways)[3], what, *way;
	struct lineage before;
	size_t set;

	ways = set_of(o, which, wrapped, len, &what, &set);
	way = find_way(ways, what, &before);
	if (!way)
		way = find_way(ways, 0, &before);
	if (!way)
		way = ways[__atomic_fetch_add(&next_way[set], 1, __ATOMIC_RELAXED) % NR_WAYS];
	write_way(way, what, l);
}

/* Whether anything is known of it; that may be none. */
static bool find(struct opened *o, int which, const uint8_t *wrapped, size_t len,
		 struct lineage *l)
{
	uint64_t (*ways)[3], what;
	size_t set;

	ways = set_of(o, which, wrapped, len, &what, &set);
	return find_way(ways, what, l);
}

void epkp_lineage_remember(struct opened *o, const uint8_t *wrapped, size_t len,
			   const struct lineage *l)
{
	remember(o, TWEAK_WRAPPED, wrapped, len, l);
}

/* None, if there is none. */
void epkp_lineage_of(struct opened *o, const uint8_t *wrapped, size_t len, struct lineage *l)
{
	find(o, TWEAK_WRAPPED, wrapped, len, l);
}

/*
 * From a handshake's secret to one that its record keys come from: with the messages, of which
 * @hash is.  What comes of the secret itself has none if it is of two connections.
 */
void epkp_lineage_bind(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len,
		       const uint8_t *hash)
{
	const uint8_t tweak[8] = { SECRET_LINEAGE, TWEAK_MESSAGES, len };
	struct lineage l, before;

	epkp_lineage_of(o, from, len, &l);
	if (!lineage_is_some(&l))
		return;
	epkp_mix(o, tweak, hash, len, (uint8_t *)&l, sizeof(l));
	remember(o, TWEAK_WRAPPED, to, len, &l);
	if (find(o, TWEAK_BOUND, from, len, &before) && !lineage_is(&before, &l))
		memset(&l, 0, sizeof(l));
	remember(o, TWEAK_BOUND, from, len, &l);
}

/* From there to the master secret; if this is not known, nothing of it is. */
void epkp_lineage_inherit(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len)
{
	struct lineage l;

	find(o, TWEAK_BOUND, from, len, &l);
	remember(o, TWEAK_WRAPPED, to, len, &l);
}

void epkp_lineage_hand_on(struct opened *o, const uint8_t *from, const uint8_t *to, size_t len)
{
	struct lineage l;

	epkp_lineage_of(o, from, len, &l);
	if (lineage_is_some(&l))
		epkp_lineage_remember(o, to, len, &l);
}

/* What nothing comes of any more does not fill the table. */
void epkp_lineage_forget(struct opened *o, const uint8_t *wrapped, size_t len)
{
	static const struct lineage none;
	uint64_t (*ways)[3], what, *way;
	struct lineage l;
	size_t set;

	ways = set_of(o, TWEAK_WRAPPED, wrapped, len, &what, &set);
	way = find_way(ways, what, &l);
	if (way)
		write_way(way, 0, &none);
}
