// SPDX-License-Identifier: MIT
/*
 * A database server as VDom has MySQL: all data of tables in memory in one domain, which is open
 * while the engine runs; and the stack of each client's thread in a domain of its own, which it
 * holds.  Here SQLite is the engine.  A transaction is that of sysbench's oltp_read_write without
 * range queries: ten selections by key, two updates, a deletion and an insertion, each of which
 * comes as text by a socket and is answered by one.
 *
 * Threads take turns by transactions, each of which opens its stack and closes it.  What they get
 * from the engine passes through ordinary memory.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sqlite3.h>

#include "peers.h"

#define STEP		17
#define ENGINE		0	/* its group; the threads' follow */
#define ENGINE_BYTES	(4l << 20)
#define STACK_BYTES	(16 * PEERS_PAGE)
#define ROWS		1000
#define MOST_TEXT	512

static sqlite3 *db;
static int nr_threads, ends[2];

/* The engine's heap: powers of two, from 16 bytes on, each with its size before it. */
#define CLASSES		24

static struct free_block {
	struct free_block *next;
} *free_blocks[CLASSES];
static size_t heap_used;

static int class_of(int len)
{
	int class = 4;

	while (1l << class < len + 16)
		class++;
	return class;
}

static void *heap_get(int len)
{
	int class = class_of(len);
	struct free_block *block = free_blocks[class];
	char *mem;

	if (block) {
		free_blocks[class] = block->next;
		mem = (char *)block;
	} else {
		if (heap_used + (1l << class) > ENGINE_BYTES)
			return NULL;
		mem = peers_groups[ENGINE].mem + heap_used;
		heap_used += 1l << class;
	}
	*(int *)mem = class;
	return mem + 16;
}

static void heap_put(void *mem)
{
	struct free_block *block = (void *)((char *)mem - 16);
	int class = *(int *)block;

	block->next = free_blocks[class];
	free_blocks[class] = block;
}

static int heap_size(void *mem)
{
	return (1 << *(int *)((char *)mem - 16)) - 16;
}

static void *heap_change(void *mem, int len)
{
	void *new = heap_get(len);
	int old = heap_size(mem);

	if (new) {
		memcpy(new, mem, old < len ? old : len);
		heap_put(mem);
	}
	return new;
}

static int heap_round(int len)
{
	return (1 << class_of(len)) - 16;
}

static int heap_init(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void heap_end(void *arg)
{
	(void)arg;
}

static void fill(void)
{
	char text[MOST_TEXT];
	int i;

	peers_need(!sqlite3_exec(db, "CREATE TABLE sbtest(id INTEGER PRIMARY KEY, k INTEGER, c TEXT, pad TEXT);"
				 "CREATE INDEX k ON sbtest(k); BEGIN", NULL, NULL, NULL), "CREATE TABLE");
	for (i = 0; i < ROWS; i++) {
		snprintf(text, sizeof(text), "INSERT INTO sbtest VALUES(%d, %d, '%0119d', '%059d')",
			 i, i * 7 % ROWS, i, i);
		peers_need(!sqlite3_exec(db, text, NULL, NULL, NULL), "INSERT");
	}
	peers_need(!sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), "COMMIT");
}

static void start_engine(void)
{
	static const sqlite3_mem_methods heap = {
		.xMalloc = heap_get, .xFree = heap_put, .xRealloc = heap_change,
		.xSize = heap_size, .xRoundup = heap_round, .xInit = heap_init,
		.xShutdown = heap_end,
	};

	peers_need(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
	peers_need(peers_make_everywhere(ENGINE_BYTES), "a group for the engine");
	peers_need(!sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) &&
		   !sqlite3_config(SQLITE_CONFIG_MALLOC, &heap) &&
		   !sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) &&
		   !sqlite3_open(":memory:", &db), "sqlite3_open");
	fill();
	peers_close(ENGINE);
}

bool sql_make(int threads)
{
	if (!db)
		start_engine();
	for (; nr_threads < threads; nr_threads++) {
		if (!peers_make(STACK_BYTES))
			return false;
		peers_close(peers_nr - 1);
	}
	return true;
}

/* There and back by the socket, as a client and its thread have it. */
static void message(const char *text, char *copy)
{
	size_t len = strlen(text) + 1;

	if (write(ends[0], text, len) != (ssize_t)len || read(ends[1], copy, MOST_TEXT) != (ssize_t)len)
		abort();
}

/* The engine is opened twice: to run a statement, and for what it has found. */
static void statement(const char *text, char *stack)
{
	static char reply[MOST_TEXT], found[MOST_TEXT];
	sqlite3_stmt *compiled;
	int what;

	message(text, stack);
	memcpy(reply, stack, MOST_TEXT);
	peers_open(ENGINE, RW);
	if (sqlite3_prepare_v2(db, reply, -1, &compiled, NULL))
		abort();
	what = sqlite3_step(compiled);
	peers_close(ENGINE);
	strcpy(found, "done");
	peers_open(ENGINE, RW);
	if (what == SQLITE_ROW)
		strncpy(found, (const char *)sqlite3_column_text(compiled, 0), MOST_TEXT - 1);
	else if (what != SQLITE_DONE)
		abort();
	if (sqlite3_finalize(compiled))
		abort();
	peers_close(ENGINE);
	strcpy(stack + MOST_TEXT, found);
	message(stack + MOST_TEXT, reply);
}

static int chosen;

static int row(void)
{
	chosen = (chosen * 1103515245u + 12345u) >> 1;
	return chosen % ROWS;
}

void sql_transaction(int i)
{
	int thread = 1 + (long)i * STEP % nr_threads, n, id;
	char *stack = peers_groups[thread].mem + STACK_BYTES / 2;
	char text[MOST_TEXT];

	chosen = i;
	peers_open(thread, RW);
	statement("BEGIN", stack);
	for (n = 0; n < 10; n++) {
		snprintf(text, sizeof(text), "SELECT c FROM sbtest WHERE id=%d", row());
		statement(text, stack);
	}
	snprintf(text, sizeof(text), "UPDATE sbtest SET k=k+1 WHERE id=%d", row());
	statement(text, stack);
	snprintf(text, sizeof(text), "UPDATE sbtest SET c='%0119d' WHERE id=%d", i, row());
	statement(text, stack);
	id = row();
	snprintf(text, sizeof(text), "DELETE FROM sbtest WHERE id=%d", id);
	statement(text, stack);
	snprintf(text, sizeof(text), "INSERT INTO sbtest VALUES(%d, %d, '%0119d', '%059d')", id, id,
		 id, id);
	statement(text, stack);
	statement("COMMIT", stack);
	peers_close(thread);
}
