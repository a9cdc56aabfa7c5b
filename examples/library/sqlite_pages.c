// SPDX-License-Identifier: MIT
/*
 * SQLite whose page cache lies in a domain: what it has read of the database, or is about to write, is in reach
 * of the queries alone.  Link with -lsqlite3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <epk.h>
#include <sqlite3.h>

#define ROWS	2000
#define PAGES	400
#define SECRET	"a secret of row"

static char *cache;
static size_t cache_bytes;

/* Before SQLite does anything else: SQLITE_CONFIG_PAGECACHE is memory of the caller's. */
static int give_pages(int domain)
{
	int header, page;

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
static int work(void)
{
	sqlite3 *db;
	int wrong = sqlite3_open(":memory:", &db) || fill(db) || look_up(db);

	if (wrong)
		fprintf(stderr, "sqlite_pages: %s\n", sqlite3_errmsg(db));
	return wrong || sqlite3_close(db);
}

int main(void)
{
	int domain, err, wrong = 0, used, most, there = 0;

	err = alloc_domains(1, &domain);
	if (!err)
		err = give_pages(domain);
	if (!err)
		EPK_WITH_ERROR(err, domain, PROT_READ | PROT_WRITE) {
			wrong = work();
			sqlite3_status(SQLITE_STATUS_PAGECACHE_USED, &used, &most, 0);
			there = memmem(cache, cache_bytes, SECRET, strlen(SECRET)) != NULL;
		}
	if (err) {
		fprintf(stderr, "sqlite_pages: %s\n", epk_strerror(err));
		return 1;
	}
	/* Rows are in the cache, and it is closed. */
	wrong |= !there || most < 10 || epk_may_access(cache, cache_bytes, PROT_READ) != -EACCES;
	printf("backend %s: %d rows in %d pages, %s\n", epk_backend(), ROWS, most, wrong ? "wrong" : "all well");
	return wrong || free_domains(1, &domain);
}
