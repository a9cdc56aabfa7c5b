// SPDX-License-Identifier: MIT
/*
 * SQLite's files and its page cache, in domains: who issues SQL can read and write neither, nor can what
 * SQLite runs for a statement touch files or the cache's books, and no request has a part harm itself.
 *
 * sqlite_test BACKEND
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#include "require.h"
#include "sqlite_storage.h"
#include "../tests/try.h"

#define PAGE	4096
#define SECRET	"the quick brown fox, known to nobody"

static bool gates;
static int failed;

static void check(bool well, const char *what)
{
	printf("%-4s %s\n", well ? "ok" : "FAIL", what);
	failed |= !well;
}

/* How many pages of memory can be read, and how many written to, as they were. */
static int reached(const char *memory, size_t bytes)
{
	int nr = 0;
	size_t at;
	char was;

	for (at = 0; at < bytes; at += PAGE) {
		if (!try_read(memory + at, &was))
			was = 0;
		else
			nr++;
		/* What could not be read, there is nothing to keep of. */
		nr += try_write((char *)memory + at, was);
	}
	return nr;
}

#define ALL_PAGES	(CACHE_SLOTS * (size_t)STORAGE_FRAME)

static bool has_secret(void)
{
	return memmem(storage_pages(), ALL_PAGES, SECRET, strlen(SECRET));
}

static int from_statement = -1;

/* A function of SQL, which runs within a statement. */
static void attack(sqlite3_context *context, int nr, sqlite3_value **values)
{
	(void)nr;
	(void)values;
	from_statement = reached(storage_files(), files_bytes()) + reached(storage_cache(), cache_bytes());
	sqlite3_result_int(context, from_statement);
}

static int answer(void *to, int nr, char **values, char **names)
{
	(void)nr;
	(void)names;
	snprintf(to, 80, "%s", values[0]);
	return 0;
}

static void sql(sqlite3 *db, const char *text, char *result)
{
	storage_enter();
	if (sqlite3_exec(db, text, answer, result, NULL)) {
		fprintf(stderr, "sqlite_test: %s: %s\n", text, sqlite3_errmsg(db));
		_exit(1);
	}
	storage_leave();
}

/* That a part is told to read or write what is its own. */
static void deputies(void)
{
	struct part_request to_itself[] = {
		{ .op = FILE_READ, .len = 64, .data = storage_files() },
		{ .op = FILE_WRITE, .len = 64, .data = storage_cache() },
		{ .op = FILE_READ, .a = -64, .len = 64, .data = storage_pages() },
		{ .op = FILE_READ, .handle = -1, .len = 64, .data = storage_pages() },
		{ .op = FILE_WRITE, .a = FILE_MOST, .len = 64, .data = storage_pages() },
		{ .op = FILE_WRITE, .a = 64, .len = FILE_MOST, .data = storage_pages() },
		{ .op = FILE_WRITE, .len = 64 },
		{ .op = FILE_OPEN, .len = 4 },
		{ .op = CACHE_UNPIN, .a = CACHE_SLOTS },
		{ .op = CACHE_REKEY, .a = -1 },
		{ .op = CACHE_FETCH, .handle = CACHES },
	};
	bool well = true;
	size_t i;

	storage_enter();
	/* Those that have wrong data the shim would put right; it is no part of what protects. */
	for (i = gates ? 0 : 2; i < sizeof(to_itself) / sizeof(*to_itself); i++)
		well &= storage_send(&to_itself[i]) == -1;
	storage_leave();
	check(well, "requests that make no sense, or would harm a part, are refused");
}

int main(int argc, char **argv)
{
	struct epk_options options = { .size = sizeof(options), .backend = argc > 1 ? argv[1] : NULL };
	char text[80] = "";
	int ids[3], err;
	sqlite3 *db;

	err = epk_init(&options);
	if (err == -ENODEV) {
		printf("there is no %s\n", options.backend);
		return 77;
	}
	REQUIRE(!err && !alloc_domains(3, ids));
	gates = !strcmp(epk_backend(), "epk");
	storage_start(gates ? STORAGE_GATES : STORAGE_HELD,
		      &(struct storage_domains) { ids[0], ids[1], ids[2] });
	storage_enter();
	REQUIRE(!sqlite3_open("database", &db));
	REQUIRE(!sqlite3_create_function(db, "attack", 0, SQLITE_UTF8, NULL, attack, NULL, NULL));
	storage_leave();
	sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)", NULL);
	sql(db, "INSERT INTO t VALUES(1, '" SECRET "')", NULL);

	/* The test can see what there is to see. */
	storage_enter();
	REQUIRE(has_secret());
	storage_leave();
	check(!reached(storage_pages(), ALL_PAGES), "who issues SQL reaches no page of the cache");
	check(!reached(storage_cache(), cache_bytes()), "nor what it knows of them");
	check(!reached(storage_files(), files_bytes()), "nor the files");
	sql(db, "SELECT attack()", text);
	check(!from_statement, "nor does what a statement runs reach files and books");
	deputies();
	if (gates)
		check(domain_begin(ids[1], PROT_READ) == -EPERM && domain_begin(ids[2], PROT_READ) == -EPERM,
		      "nobody begins a part's domain");
	sql(db, "SELECT b FROM t", text);
	check(!strcmp(text, SECRET), "the row is as it was");
	sql(db, "PRAGMA integrity_check", text);
	check(!strcmp(text, "ok"), "so is the database");
	return failed;
}
