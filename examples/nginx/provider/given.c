// SPDX-License-Identifier: MIT
/*
 * How long each key block of TLS 1.2 was that has been given out.
 *
 * The beginning of a longer key block is the shorter one, and how long it is says what of it is
 * keys: who asked for the same key block as that of another suite would get for an IV what is a
 * part of a key, and with "allow = CBC" all keys.  So the length that is asked for first, by
 * libssl, is the only one.
 *
 * What is remembered is what K makes of a key block, which is no secret.  As many as there is room
 * for are, the oldest of a set is forgotten first: see docs/tls.md.  Nobody waits for anybody,
 * as the vault is open meanwhile.
 */
#include <string.h>

#include "secrets.h"

#define NR_SETS	8192
#define NR_WAYS	8

static uint64_t given[NR_SETS][NR_WAYS];
static uint32_t next_way[NR_SETS];

/* The lengths are those of prf.c, all of them smaller. */
#define LEN_MASK	0xffull

/* Has it been given with this length; with another one? */
static void look(const uint64_t *ways, uint64_t what, bool *same, bool *other)
{
	uint64_t found;
	int i;

	*same = *other = false;
	for (i = 0; i < NR_WAYS; i++) {
		found = __atomic_load_n(&ways[i], __ATOMIC_SEQ_CST);
		*same |= found == what;
		*other |= found != what && !((found ^ what) & ~LEN_MASK);
	}
}

/* @start: the first @len bytes of what the key block comes from.  Of two at a time one gets it, or none. */
bool epkp_given_once(struct opened *o, const uint8_t *start, size_t len, size_t key_block_len)
{
	const uint8_t tweak[8] = { SECRET_KEY_BLOCK };
	uint64_t made[2] = { 0 }, what, *ways;
	bool same, other;
	uint32_t way;

	epkp_mix(o, tweak, start, len, (uint8_t *)made, sizeof(made));
	what = (made[0] & ~LEN_MASK) | key_block_len;
	ways = given[made[1] % NR_SETS];
	look(ways, what, &same, &other);
	if (!same && !other) {
		way = __atomic_fetch_add(&next_way[made[1] % NR_SETS], 1, __ATOMIC_RELAXED);
		__atomic_store_n(&ways[way % NR_WAYS], what, __ATOMIC_SEQ_CST);
		look(ways, what, &same, &other);
	}
	return !other;
}
