// SPDX-License-Identifier: MIT
/*
 * A room is entered by one thread at a time.  What libcrypto allocates meanwhile lies there;
 * the registers and the stack are wiped before the domain closes.  A room that is no longer
 * needed is zeroed.  When there is no memory or domain for another, those that wait are given up.
 *
 * libcrypto's errors stay outside, and are forgotten: they say where, not why, and who calls
 * has an error of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include <epk.h>

#include "room.h"

#define PAGE	4096

/* ---- those that wait for their next use: never freed, so that nobody needs a lock */

struct idle {
	struct idle *next;
	bool taken;
	struct room *rooms[NR_IDLE];
};

static struct idle *all_idle;

struct idle *epkp_idle_make(void)
{
	struct idle *idle;

	for (idle = __atomic_load_n(&all_idle, __ATOMIC_ACQUIRE); idle; idle = idle->next)
		if (!__atomic_exchange_n(&idle->taken, true, __ATOMIC_ACQUIRE))
			return idle;
	idle = calloc(1, sizeof(*idle));
	if (!idle)
		return NULL;
	idle->taken = true;
	idle->next = __atomic_load_n(&all_idle, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&all_idle, &idle->next, idle, false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return idle;
}

static bool is_ours(const struct room *room)
{
	return room->generation == epkp_box_generation();
}

struct room *epkp_idle_take(struct idle *idle)
{
	struct room *room;
	int i;

	for (i = 0; i < NR_IDLE; i++) {
		room = __atomic_exchange_n(&idle->rooms[i], NULL, __ATOMIC_ACQUIRE);
		if (room && is_ours(room))
			return room;
		epkp_room_free(room);
	}
	return NULL;
}

void epkp_idle_put(struct idle *idle, struct room *room)
{
	struct room *none;
	int i;

	for (i = 0; i < NR_IDLE; i++) {
		none = NULL;
		if (__atomic_compare_exchange_n(&idle->rooms[i], &none, room, false,
						__ATOMIC_RELEASE, __ATOMIC_RELAXED))
			return;
	}
	epkp_room_free(room);
}

static bool empty(struct idle *idle)
{
	struct room *room = epkp_idle_take(idle);
	bool any = room;

	for (; room; room = epkp_idle_take(idle))
		epkp_room_free(room);
	return any;
}

void epkp_idle_free(struct idle *idle)
{
	if (!idle)
		return;
	empty(idle);
	__atomic_store_n(&idle->taken, false, __ATOMIC_RELEASE);
}

/* Of all keys. */
static bool give_up_idle(void)
{
	struct idle *idle = __atomic_load_n(&all_idle, __ATOMIC_ACQUIRE);
	bool any = false;

	for (; idle; idle = idle->next)
		any |= empty(idle);
	return any;
}

/* ---- */

static struct room *make_room(struct provider *prov, size_t size)
{
	struct room *room = calloc(1, sizeof(*room));
	int err;

	if (!room) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*room));
		return NULL;
	}
	room->prov = prov;
	room->size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
	err = alloc_domains(1, &room->dom);
	if (err) {
		raise(prov, EPK_R_NO_DOMAIN, "for a private key: %s", epk_strerror(err));
		goto free_room;
	}
	room->mem = domain_mmap(room->dom, NULL, room->size, PROT_READ | PROT_WRITE, 0);
	if (room->mem == MAP_FAILED) {
		raise(prov, EPK_R_NO_DOMAIN, "%zu KiB for a private key: %s", room->size / 1024,
		      epk_strerror(-errno));
		goto free_domain;
	}
	room->generation = epkp_box_generation();
	return room;

free_domain:
	free_domains(1, &room->dom);
free_room:
	free(room);
	return NULL;
}

/* What others may want again makes room for what is wanted now. */
struct room *epkp_room_make(struct provider *prov, size_t size)
{
	struct room *room;

	ERR_set_mark();
	room = make_room(prov, size);
	if (!room && give_up_idle()) {
		ERR_pop_to_mark();
		ERR_set_mark();
		room = make_room(prov, size);
	}
	ERR_clear_last_mark();
	return room;
}

bool epkp_room_enter(struct room *room, struct inside *in, size_t stack)
{
	int err;

	if (!is_ours(room))
		return raise(room->prov, EPK_R_FORKED, "made before fork()");
	if (!epkp_stack_suffices(room->prov, stack))
		return false;
	/* Numbers that libcrypto takes for secret would lie there. */
	if (CRYPTO_secure_malloc_initialized())
		return raise(room->prov, EPK_R_PRIVATE_KEY,
			     "the program has given OpenSSL a secure heap, which is no domain");
	err = domain_begin(room->dom, PROT_READ | PROT_WRITE);
	if (err)
		return raise(room->prov, EPK_R_DOMAIN_BEGIN, "domain %#x: %s", room->dom,
			     epk_strerror(err));
	in->cancels = epkp_cancel_later();
	if (!room->arena)
		room->arena = epkp_arena_make(room->mem, room->size);
	in->room = room;
	ERR_set_mark();
	in->low = epkp_watch(stack);
	epkp_heap_enter(room->arena);
	return true;
}

bool epkp_room_leave(struct inside *in)
{
	struct room *room = in->room;
	int err;

	epkp_heap_leave();
	epkp_scrub(in->low);
	ERR_pop_to_mark();
	err = domain_end(room->dom);
	epkp_cancel_as(in->cancels);
	return !err || raise(room->prov, EPK_R_DOMAIN_END, "domain %#x: %s", room->dom,
			     epk_strerror(err));
}

/* Nothing that lies there has to be freed by libcrypto first: it holds no more than memory. */
void epkp_room_free(struct room *room)
{
	int err;

	if (room && is_ours(room)) {
		if (!domain_begin(room->dom, PROT_READ | PROT_WRITE)) {
			if (room->arena)
				explicit_bzero(room->mem, epkp_arena_used(room->arena));
			domain_end(room->dom);
		}
		err = free_domains(1, &room->dom);
		if (err)
			raise(room->prov, EPK_R_DOMAIN_FREE, "free_domains: %s",
			      epk_strerror(err));
	}
	free(room);
}
