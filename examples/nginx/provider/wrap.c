// SPDX-License-Identifier: MIT
/*
 * The permutation under which libssl gets to see secrets: what kind of secret it is, and
 * how long, decide which.
 *
 * Four rounds of a Feistel network (Luby and Rackoff: as good as a random permutation if
 * the round function is as good as a random function).  The round function is one call of
 * SHA-256's compression function, keyed with K in place of the chaining value, as in NMAC,
 * on one message block: so no input is another's beginning.  It needs no table and no branch that
 * depends on a secret, and nothing of it comes to the stack (hash.h).
 */
#include <stdlib.h>
#include <string.h>

#include "secrets.h"

#define ROUNDS		4
#define HALF_MAX	32

_Static_assert((SHARED_MAX + 1) / 2 <= HALF_MAX, "a half comes from one compression");
_Static_assert(sizeof(((union sha_value *)0)->of256) == sizeof(((struct vault *)0)->key),
	       "K is a chaining value");

/* @out is combined with what @in gives under this tweak. */
void epkp_mix(struct opened *o, const uint8_t tweak[8], const uint8_t *in, size_t inl, uint8_t *out,
	      size_t outl)
{
	uint32_t *value = o->work->mix.value;
	uint8_t *message_block = o->work->mix.message_block;
	size_t i;

	memcpy(value, o->vault->key, sizeof(o->work->mix.value));
	memset(message_block, 0, sizeof(o->work->mix.message_block));
	memcpy(message_block, tweak, 8);
	if (inl)
		memcpy(message_block + 8, in, inl);
	epkp_sha256_compress(value, message_block, &o->work->hmac.schedule);
	for (i = 0; i < outl; i++)
		out[i] ^= ((uint8_t *)value)[i];
}

static void one_round(struct opened *o, enum secret_kind kind, uint8_t round, uint8_t *bytes,
		      size_t len)
{
	uint8_t tweak[8] = { kind, round, len };
	size_t left = len / 2, right = len - left;

	if (round % 2)
		epkp_mix(o, tweak, bytes + left, right, bytes, left);
	else
		epkp_mix(o, tweak, bytes, left, bytes + left, right);
}

/* Works in the vault: @to sees none of what lies between. */
static void permute(struct opened *o, enum secret_kind kind, uint8_t *to, const uint8_t *from,
		    size_t len, bool back)
{
	uint8_t *bytes = o->work->permuted;
	uint8_t i;

	if (len > sizeof(o->work->permuted))
		abort();
	memcpy(bytes, from, len);
	for (i = 0; i < ROUNDS; i++)
		one_round(o, kind, back ? ROUNDS - 1 - i : i, bytes, len);
	memcpy(to, bytes, len);
}

void epkp_wrap(struct opened *o, enum secret_kind kind, uint8_t *to, const uint8_t *from,
	       size_t len)
{
	permute(o, kind, to, from, len, false);
}

void epkp_unwrap(struct opened *o, enum secret_kind kind, uint8_t *to, const uint8_t *from,
		 size_t len)
{
	permute(o, kind, to, from, len, true);
}
