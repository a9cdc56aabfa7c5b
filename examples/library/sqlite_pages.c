// SPDX-License-Identifier: MIT
/*
 * SQLite whose page cache and heap lie in a domain: pages, what it has read of the database or is about to
 * write, and values, of which it makes copies elsewhere than in pages, are in reach of the queries alone.  What
 * these leave on the stack, or copy out, is ordinary memory.  Link with -lsqlite3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <epk.h>
#include <sqlite3.h>

#include "stray.h"

#define ROWS	2000
#define PAGES	400
#define SECRET	"a secret of row"

static char *cache;
static size_t cache_bytes;

static void *heap_get(int bytes)
{
	return epk_malloc_here(bytes);
}

static void *heap_resize(void *ptr, int bytes)
{
	return epk_realloc_here(ptr, bytes);
}

static int heap_size(void *ptr)
{
	return epk_usable_size_here(ptr);
}

static int heap_round_up(int bytes)
{
	return (bytes + 7) & ~7;
}

static int heap_begins(void *unused)
{
	(void)unused;
	return SQLITE_OK;
}

static void heap_ends(void *unused)
{
	(void)unused;
}

/* Of the domain that the thread holds when SQLite wants memory: pages that have no room in the cache, too. */
static sqlite3_mem_methods heap = {
	heap_get, epk_free_here, heap_resize, heap_size, heap_round_up, heap_begins, heap_ends, NULL
};

/* Before SQLite does anything else: SQLITE_CONFIG_PAGECACHE is memory of the caller's. */
static int give_memory(int domain)
{
	int header, page;

	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &heap))
		return -EINVAL;

	sqlite3_config(SQLITE_CONFIG_PCACHE_HDRSZ, &header);
	page = (4096 + header + 7) & ~7;
	cache_bytes = (size_t)page * PAGES;
	cache = domain_mmap(domain, NULL, cache_bytes, PROT_READ | PROT_WRITE, 0);
	if (cache == MAP_FAILED)
		return -errno;
	return sqlite3_config(SQLITE_CONFIG_PAGECACHE, cache, page, PAGES) ? -EINVAL : 0;
}

static int fill(sqlite3 *db)
{
	sqlite3_stmt *insert;
	char text[64];
	int row, wrong;

	wrong = sqlite3_exec(db, "create table t(id integer primary key, v text); begin", NULL, NULL, NULL) ||
		sqlite3_prepare_v2(db, "insert into t values(?, ?)", -1, &insert, NULL);
	for (row = 0; row < ROWS && !wrong; row++) {
		snprintf(text, sizeof(text), SECRET " %d", row);
		wrong = sqlite3_bind_int(insert, 1, row) ||
			sqlite3_bind_text(insert, 2, text, -1, SQLITE_TRANSIENT) ||
			sqlite3_step(insert) != SQLITE_DONE || sqlite3_reset(insert);
	}
	return wrong || sqlite3_finalize(insert) || sqlite3_exec(db, "commit", NULL, NULL, NULL);
}

static int look_up(sqlite3 *db)
{
	sqlite3_stmt *select;
	char text[64];
	int row, wrong;

	wrong = sqlite3_prepare_v2(db, "select v from t where id = ?", -1, &select, NULL);
	for (row = 0; row < ROWS && !wrong; row++) {
		snprintf(text, sizeof(text), SECRET " %d", row);
		wrong = sqlite3_bind_int(select, 1, row) || sqlite3_step(select) != SQLITE_ROW ||
			strcmp((const char *)sqlite3_column_text(select, 0), text) ||
			sqlite3_reset(select);
	}
	return wrong || sqlite3_finalize(select);
}

/* With the domain held: a database in memory, all of which is pages. */
static int work(int domain)
{
	sqlite3 *db;
	int wrong = sqlite3_open(":memory:", &db) || fill(db) || look_up(db);

	if (wrong)
		fprintf(stderr, "sqlite_pages: %s\n", sqlite3_errmsg(db));
	wrong |= epk_domain_at(db) != domain;
	return wrong || sqlite3_close(db);
}

int main(void)
{
	int domain, err, wrong = 0, used, most, there = 0;
	bool stray;

	err = alloc_domains(1, &domain);
	if (!err)
		err = give_memory(domain);
	if (!err)
		EPK_WITH_ERROR(err, domain, PROT_READ | PROT_WRITE) {
			wrong = work(domain);
			sqlite3_status(SQLITE_STATUS_PAGECACHE_USED, &used, &most, 0);
			there = memmem(cache, cache_bytes, SECRET, strlen(SECRET)) != NULL;
			sqlite3_shutdown();
		}
	if (err) {
		fprintf(stderr, "sqlite_pages: %s\n", epk_strerror(err));
		return 1;
	}
	/* Rows are in the cache, and it is closed. */
	stray = stray_read(cache);
	wrong |= !there || most < 10;
	printf("backend %s: %d rows in %d pages, %s; a stray read of them %s\n", epk_backend(), ROWS, most,
	       wrong ? "wrong" : "all well", stray_says(stray));
	return wrong || !stray_is_as_it_should_be(stray) || free_domains(1, &domain);
}
