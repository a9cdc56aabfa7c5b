// SPDX-License-Identifier: MIT
/*
 * Handles: of secrets that libssl takes from one operation and gives to the next.
 *
 * A handle is a number and what K makes of it, so that no other bytes are taken for one.
 * The secret lies in the vault until it is asked for, once.  As many as are never asked for,
 * because a handshake ended there, are overwritten by later ones, the oldest first: then the
 * handle is an error, and never a key.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "secrets.h"

/*
 * A number says where the secret is and, by the higher digits, when it came there.  These of
 * now, or 0; nothing in them is secret.
 */
static uint64_t numbers[NR_KEPT];
static uint64_t next_turn = 1;

static unsigned int unused[NR_KEPT], nr_unused;
static bool started;

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

#define NR_LEN	sizeof(uint64_t)

/* What was kept is in the parent's vault; another thread of it may have had the lock. */
void handles_in_child(void)
{
	pthread_mutex_init(&kept_lock, NULL);
	started = false;
}

/* With the lock. */
static void start_once(void)
{
	if (started)
		return;
	memset(numbers, 0, sizeof(numbers));
	for (nr_unused = 0; nr_unused < NR_KEPT; nr_unused++)
		unused[nr_unused] = nr_unused;
	started = true;
}

/* With the lock. */
static unsigned int get_place(void)
{
	unsigned int i, oldest = 0;

	start_once();
	if (nr_unused)
		return unused[--nr_unused];
	for (i = 1; i < NR_KEPT; i++)
		if (numbers[i] < numbers[oldest])
			oldest = i;
	return oldest;
}

static uint64_t number_in(const uint8_t *bytes)
{
	uint64_t nr;

	memcpy(&nr, bytes, sizeof(nr));
	return nr;
}

/* Is there room for a number and for what tells it from others, and for the secret? */
bool handle_fits(size_t len)
{
	return len >= 2 * NR_LEN && len <= SHARED_MAX;
}

/* Random bytes are as small a number next to never. */
bool handle_looks_like(const uint8_t *bytes, size_t len)
{
	return handle_fits(len) &&
	       number_in(bytes) / NR_KEPT - 1 <
	       __atomic_load_n(&next_turn, __ATOMIC_RELAXED) - 1;
}

/* Up to 32 bytes that tell, and zeros.  Callers check what they are given: see handle_fits(). */
static void write_handle(struct opened *o, uint64_t nr, uint8_t *handle, size_t len)
{
	uint8_t tweak[8] = { SECRET_HANDLE, 0, len };
	size_t told = len - NR_LEN < 32 ? len - NR_LEN : 32;

	memset(handle, 0, len);
	memcpy(handle, &nr, sizeof(nr));
	mix(o, tweak, handle, sizeof(nr), handle + NR_LEN, told);
}

void handle_give(struct opened *o, uint8_t *handle, const uint8_t *secret, size_t len)
{
	unsigned int place;
	struct kept *k;
	uint64_t nr;

	if (!handle_fits(len))
		abort();
	pthread_mutex_lock(&kept_lock);
	place = get_place();
	nr = __atomic_fetch_add(&next_turn, 1, __ATOMIC_RELAXED) * NR_KEPT + place;
	numbers[place] = nr;
	k = &o->vault->kept[place];
	k->len = len;
	memcpy(k->bytes, secret, len);
	pthread_mutex_unlock(&kept_lock);
	write_handle(o, nr, handle, len);
}

static bool move_kept(struct opened *o, uint64_t nr, uint8_t *to, size_t len)
{
	unsigned int place = nr % NR_KEPT;
	struct kept *k = &o->vault->kept[place];
	bool there;

	pthread_mutex_lock(&kept_lock);
	start_once();
	there = numbers[place] == nr && k->len == len;
	if (there) {
		memcpy(to, k->bytes, len);
		explicit_bzero(k, sizeof(*k));
		numbers[place] = 0;
		unused[nr_unused++] = place;
	}
	pthread_mutex_unlock(&kept_lock);
	return there;
}

/* 1: it is @to's now; 0: it is gone, which is an error; -1: these bytes are no handle. */
int handle_take(struct provider *prov, struct opened *o, uint8_t *to, const uint8_t *handle,
		size_t len)
{
	if (!handle_looks_like(handle, len))
		return -1;
	write_handle(o, number_in(handle), o->work->permuted, len);
	if (CRYPTO_memcmp(o->work->permuted, handle, len))
		return -1;
	if (move_kept(o, number_in(handle), to, len))
		return 1;
	raise(prov, EPK_R_KEY_GONE, "number %llu", (unsigned long long)number_in(handle));
	return 0;
}
