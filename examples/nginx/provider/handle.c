// SPDX-License-Identifier: MIT
/*
 * Handles: of secrets that libssl takes from one operation and gives to the next.
 *
 * A handle is a number and what K makes of it, so that no other bytes are taken for one.
 * The secret lies in the vault until it is asked for, once.  As many as are never asked for,
 * because a handshake ended there, are overwritten by later ones, old ones first: then the
 * handle is an error, and never a key.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "secrets.h"

/*
 * A number says where the secret is and, by the higher digits, when it came there.  These of
 * now, or one of the two below; nothing in them is secret.
 *
 * Nobody waits for anybody here, as the vault is open meanwhile: who changes a number to
 * IN_HANDS has the slot to itself.
 */
static uint64_t numbers[NR_KEPT];
static uint64_t next_turn = 1;

#define NOTHING		0
#define IN_HANDS	1	/* less than any number */

/* By slots as well: of what is there with that number. */
static struct lineage lineages[NR_KEPT];

/* By bits: which slots are taken. */
static uint64_t taken[NR_KEPT / 64];

_Static_assert(NR_KEPT % 64 == 0, "whole words");

#define NR_LEN	sizeof(uint64_t)

/* What was kept is in the parent's vault, and other threads of it had slots in their hands. */
void epkp_handles_in_child(void)
{
	memset(numbers, 0, sizeof(numbers));
	memset(taken, 0, sizeof(taken));
}

static bool take_in_hands(unsigned int slot, uint64_t nr)
{
	return __atomic_compare_exchange_n(&numbers[slot], &nr, IN_HANDS, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

/* The first that is free, or -1. */
static int free_slot(void)
{
	unsigned int i, bit;
	uint64_t word;

	for (i = 0; i < NR_KEPT / 64; i++) {
		word = __atomic_load_n(&taken[i], __ATOMIC_RELAXED);
		while (~word) {
			bit = __builtin_ctzll(~word);
			if (__atomic_compare_exchange_n(&taken[i], &word, word | 1ull << bit, false,
							__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
				return i * 64 + bit;
		}
	}
	return -1;
}

/* Where to look for one that nobody has asked for. */
static uint32_t next_old;

/* Half of all that there is room for came after it. */
static bool is_old(uint64_t nr)
{
	return __atomic_load_n(&next_turn, __ATOMIC_RELAXED) - nr / NR_KEPT > NR_KEPT / 2;
}

/*
 * One that is free, or an old one, of which the next is the oldest, or nearly: they came to their
 * slots in turn.  There are more slots than threads at work, so one is in nobody's hands.
 */
static unsigned int get_slot(void)
{
	unsigned int i, tries;
	uint64_t nr;
	int slot;

	for (tries = 0;; tries++) {
		if (tries % NR_KEPT == 0) {
			slot = free_slot();
			if (slot >= 0)
				return slot;
		}
		i = __atomic_fetch_add(&next_old, 1, __ATOMIC_RELAXED) % NR_KEPT;
		nr = __atomic_load_n(&numbers[i], __ATOMIC_RELAXED);
		if (nr > IN_HANDS && (is_old(nr) || tries >= NR_KEPT) && take_in_hands(i, nr))
			return i;
	}
}

/* Nothing is in it any more. */
static void leave_slot(unsigned int slot)
{
	__atomic_store_n(&numbers[slot], NOTHING, __ATOMIC_RELAXED);
	__atomic_fetch_and(&taken[slot / 64], ~(1ull << slot % 64), __ATOMIC_RELEASE);
}

static uint64_t number_in(const uint8_t *bytes)
{
	uint64_t nr;

	memcpy(&nr, bytes, sizeof(nr));
	return nr;
}

/* Is there room for a number and for what tells it from others, and for the secret? */
bool epkp_handle_fits(size_t len)
{
	return len >= 2 * NR_LEN && len <= SHARED_MAX;
}

/* Random bytes are as small a number next to never. */
bool epkp_handle_looks_like(const uint8_t *bytes, size_t len)
{
	return epkp_handle_fits(len) &&
	       number_in(bytes) / NR_KEPT - 1 <
	       __atomic_load_n(&next_turn, __ATOMIC_RELAXED) - 1;
}

/* Up to 32 bytes that tell, and zeros.  Callers check what they get: epkp_handle_fits(). */
static void write_handle(struct opened *o, uint64_t nr, uint8_t *handle, size_t len)
{
	uint8_t tweak[8] = { SECRET_HANDLE, 0, len };
	size_t told = len - NR_LEN < 32 ? len - NR_LEN : 32;

	memset(handle, 0, len);
	memcpy(handle, &nr, sizeof(nr));
	epkp_mix(o, tweak, handle, sizeof(nr), handle + NR_LEN, told);
}

/* The slot is in our hands, and who looks meanwhile is to see that. */
static void set_lineage(unsigned int slot, const struct lineage *of)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&lineages[slot].id[0], of->id[0], __ATOMIC_RELAXED);
	__atomic_store_n(&lineages[slot].id[1], of->id[1], __ATOMIC_RELAXED);
}

/*
 * None, if there is none.  Without the vault, and so whether these bytes are a handle is not known:
 * it holds if epkp_handle_take_to_box() takes them for one.
 */
void epkp_handle_lineage(const uint8_t *handle, size_t len, struct lineage *of)
{
	unsigned int slot;
	uint64_t nr;

	memset(of, 0, sizeof(*of));
	if (!epkp_handle_looks_like(handle, len))
		return;
	nr = number_in(handle);
	slot = nr % NR_KEPT;
	if (__atomic_load_n(&numbers[slot], __ATOMIC_ACQUIRE) != nr)
		return;
	of->id[0] = __atomic_load_n(&lineages[slot].id[0], __ATOMIC_RELAXED);
	of->id[1] = __atomic_load_n(&lineages[slot].id[1], __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&numbers[slot], __ATOMIC_RELAXED) != nr)
		memset(of, 0, sizeof(*of));
}

/* @of: NULL, or of what connection it is a record key */
void epkp_handle_give(struct opened *o, uint8_t *handle, const uint8_t *secret, size_t len,
		      const struct lineage *of)
{
	static const struct lineage none;
	unsigned int slot;
	struct kept *k;
	uint64_t nr;

	if (!epkp_handle_fits(len))
		abort();
	slot = get_slot();
	nr = __atomic_fetch_add(&next_turn, 1, __ATOMIC_RELAXED) * NR_KEPT + slot;
	k = &o->vault->kept[slot];
	k->len = len;
	memcpy(k->bytes, secret, len);
	set_lineage(slot, of ? of : &none);
	__atomic_store_n(&numbers[slot], nr, __ATOMIC_RELEASE);
	write_handle(o, nr, handle, len);
}

/* The slot of what a handle names, which is in our hands then; or -1. */
static int find_kept(const struct opened *o, uint64_t nr, size_t len)
{
	unsigned int slot = nr % NR_KEPT;

	if (!take_in_hands(slot, nr))
		return -1;
	if (o->vault->kept[slot].len == len)
		return slot;
	__atomic_store_n(&numbers[slot], nr, __ATOMIC_RELEASE);
	return -1;
}

/* A slot; -1: these bytes are no handle; -2: it is gone, which is an error. */
static int find(struct provider *prov, struct opened *o, const uint8_t *handle, size_t len)
{
	int slot;

	if (!epkp_handle_looks_like(handle, len))
		return -1;
	write_handle(o, number_in(handle), o->work->permuted, len);
	if (CRYPTO_memcmp(o->work->permuted, handle, len))
		return -1;
	slot = find_kept(o, number_in(handle), len);
	if (slot >= 0)
		return slot;
	raise(prov, EPK_R_KEY_GONE, "number %llu", (unsigned long long)number_in(handle));
	return -2;
}

/* 1: it is @to's now, which lies in the vault; 0: an error; -1: these bytes are no handle. */
int epkp_handle_take(struct provider *prov, struct opened *o, uint8_t *to, const uint8_t *handle,
		     size_t len)
{
	int slot = find(prov, o, handle, len);

	if (slot < 0)
		return slot == -1 ? -1 : 0;
	memcpy(to, o->vault->kept[slot].bytes, len);
	explicit_bzero(&o->vault->kept[slot], sizeof(struct kept));
	leave_slot(slot);
	return 1;
}

/*
 * In registers alone, with both domains open.  First all that there is to do in the vault, then
 * the box: these two may lie in different EPTs, and then each return costs a fault.
 */
static void cross(uint8_t to[SHARED_MAX], uint8_t from[SHARED_MAX])
{
	_Static_assert(SHARED_MAX == 48, "three registers");

	__asm__ volatile("movdqu (%1), %%xmm0\n\tmovdqu 16(%1), %%xmm1\n\t"
			 "movdqu 32(%1), %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
			 "movdqu %%xmm3, (%1)\n\tmovdqu %%xmm3, 16(%1)\n\t"
			 "movdqu %%xmm3, 32(%1)\n\t"
			 "movdqu %%xmm0, (%0)\n\tmovdqu %%xmm1, 16(%0)\n\t"
			 "movdqu %%xmm2, 32(%0)\n\t"
			 "pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2"
			 : : "r"(to), "r"(from) : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
}

/*
 * As epkp_handle_take(), but to a box, at @to, which is open if this returns 1; then the vault's
 * slot to work in is wiped, and nobody is to go back there.
 */
int epkp_handle_take_to_box(struct provider *prov, struct opened *o, const struct box *box,
			    uint8_t to[SHARED_MAX], const uint8_t *handle, size_t len)
{
	int slot = find(prov, o, handle, len);
	struct kept *k;

	if (slot < 0)
		return slot == -1 ? -1 : 0;
	k = &o->vault->kept[slot];
	k->len = 0;
	epkp_vault_wipe(o);
	if (!epkp_box_open(prov, box)) {
		explicit_bzero(k, sizeof(*k));
		leave_slot(slot);
		return 0;
	}
	cross(to, k->bytes);
	leave_slot(slot);
	return 1;
}
