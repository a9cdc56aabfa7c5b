/* SPDX-License-Identifier: MIT */
/*
 * A room: memory in a domain of its own in which libcrypto computes with a private key.
 */
#ifndef ROOM_H
#define ROOM_H

#include "heap.h"
#include "secrets.h"

/**
 * struct room - what ordinary memory knows of it
 * @mem, @size: in @dom
 * @object: what lies there: libcrypto's key
 * @generation: of the process that made it, see box.c
 */
struct room {
	struct provider *prov;
	struct arena *arena;
	void *mem;
	size_t size;
	int dom;
	unsigned int generation;
	void *object;
};

/**
 * struct inside - being in a room
 * @cancels: whether the thread could be cancelled before
 */
struct inside {
	struct room *room;
	char *low;
	int cancels;
};

struct room *epkp_room_make(struct provider *prov, size_t size);
bool epkp_room_enter(struct room *room, struct inside *in, size_t stack);
bool epkp_room_leave(struct inside *in);
void epkp_room_free(struct room *room);

#define NR_IDLE	16

/* Rooms of one key, as many as NR_IDLE, that nobody is in. */
struct idle;

struct idle *epkp_idle_make(void);
struct room *epkp_idle_take(struct idle *idle);
/* Or else it is freed. */
void epkp_idle_put(struct idle *idle, struct room *room);
void epkp_idle_free(struct idle *idle);

#endif /* ROOM_H */
