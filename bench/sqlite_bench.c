// SPDX-License-Identifier: MIT
/*
 * SQLite with its file system and its page cache as parts of their own: what an insert, a select by
 * index, an update and a delete take, 25 in a transaction, of a table that is larger than the cache.
 * Against plain SQLite, against the same parts by function calls, and against the same parts in a
 * process behind a Unix socket, one message a call; or all of SQLite in one, one message a statement.
 *
 * The other processes' system calls are not counted, their instructions are.
 *
 * sqlite_bench [quick|some]: as of micro_bench
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"
#include "program.h"
#include "sqlite_storage.h"
#include "table.h"

/* By how many per cent another run may differ: where pages and rows lie is of the machine. */
#define WITHIN	3

#define ROWS		2000
#define CACHED_PAGES	32
#define A_TRANSACTION	25
#define A_RANGE		10
#define BATCH		100
#define EPT_KEYS	15

static int failed;

/* The load. */

static sqlite3 *db;
static sqlite3_stmt *begin, *commit, *insert, *selects, *update, *removal;
static long last, next_removed = 1;

static void prepare(const char *sql, sqlite3_stmt **stmt)
{
	need(!sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL), sql);
}

static void run(sqlite3_stmt *stmt)
{
	while (sqlite3_step(stmt) == SQLITE_ROW)
		;
	if (sqlite3_reset(stmt)) {
		fprintf(stderr, "sqlite_bench: %s\n", sqlite3_errmsg(db));
		abort();
	}
}

static void give(sqlite3_stmt *stmt, int at, long value)
{
	if (sqlite3_bind_int64(stmt, at, value))
		abort();
}

/* Spread over the table, each once in ROWS. */
static long spread(long i)
{
	return i * 701 % ROWS;
}

static void insert_next(void)
{
	char text[80];
	long value = spread(++last);

	snprintf(text, sizeof(text), "%064lx", value * 2654435761u);
	give(insert, 1, last);
	give(insert, 2, value);
	if (sqlite3_bind_text(insert, 3, text, -1, SQLITE_STATIC))
		abort();
	run(insert);
}

static void select_range(int i)
{
	give(selects, 1, spread(i));
	give(selects, 2, spread(i) + A_RANGE - 1);
	run(selects);
}

static void update_one(int i)
{
	give(update, 1, 1 + spread(i));
	run(update);
}

static void remove_next(void)
{
	give(removal, 1, next_removed++);
	run(removal);
}

static void statement(int kind, int i)
{
	storage_enter();
	if (i % A_TRANSACTION == 0)
		run(begin);
	switch (kind) {
	case 0:
		insert_next();
		break;
	case 1:
		select_range(i);
		break;
	case 2:
		update_one(i);
		break;
	default:
		remove_next();
	}
	if (i % A_TRANSACTION == A_TRANSACTION - 1)
		run(commit);
	storage_leave();
}

static void do_sql(const char *format, int number)
{
	char *sql = sqlite3_mprintf(format, number);

	need(!sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
	sqlite3_free(sql);
}

static void open_database(const char *file)
{
	storage_enter();
	need(!sqlite3_open(file, &db), "sqlite3_open");
	do_sql("PRAGMA cache_size = %d", CACHED_PAGES);
	do_sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER, c TEXT)", 0);
	do_sql("CREATE INDEX i ON t(b)", 0);
	prepare("BEGIN", &begin);
	prepare("COMMIT", &commit);
	prepare("INSERT INTO t VALUES(?1, ?2, ?3)", &insert);
	prepare("SELECT count(*), avg(b), sum(length(c)) FROM t WHERE b BETWEEN ?1 AND ?2", &selects);
	prepare("UPDATE t SET b = b + 1 WHERE a = ?1", &update);
	prepare("DELETE FROM t WHERE a = ?1", &removal);
	run(begin);
	while (last < ROWS)
		insert_next();
	run(commit);
	storage_leave();
}

/* Every row that there is to be is there, by the index, too. */
static void check_database(void)
{
	sqlite3_stmt *count;

	storage_enter();
	prepare("SELECT count(*), (SELECT count(*) FROM t WHERE b >= 0), "
		"(SELECT * FROM pragma_integrity_check()) = 'ok' FROM t NOT INDEXED", &count);
	need(sqlite3_step(count) == SQLITE_ROW, "the rows");
	need(sqlite3_column_int64(count, 0) == last - next_removed + 1, "the number of rows");
	need(sqlite3_column_int64(count, 1) == last - next_removed + 1, "the rows by index");
	need(sqlite3_column_int(count, 2), "the database");
	sqlite3_finalize(count);
	storage_leave();
}

/* All of SQLite in a process: what is to be done is a message. */

static int server = -1;

struct order {
	int kind, i;
};

static void serve(int fd)
{
	struct order order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(fd, &order, sizeof(order)) == sizeof(order)) {
		statement(order.kind, order.i);
		if (write(fd, &order, sizeof(order)) != sizeof(order))
			break;
	}
	_exit(0);
}

static void do_statement(int kind, int i)
{
	struct order order = { kind, i };

	if (server < 0) {
		statement(kind, i);
		return;
	}
	if (write(server, &order, sizeof(order)) != sizeof(order) ||
	    read(server, &order, sizeof(order)) != sizeof(order))
		abort();
}

static void one_insert(int i)
{
	do_statement(0, i);
}

static void one_select(int i)
{
	do_statement(1, i);
}

static void one_update(int i)
{
	do_statement(2, i);
}

static void one_delete(int i)
{
	do_statement(3, i);
}

/* How it is set up. */

/**
 * struct set_up - a way to have it
 * @name: of the row
 * @backend: of the library, or NULL: without it
 * @way: of requests; where there is no backend
 * @plain: SQLite's own file system and cache
 * @server: all of SQLite in a process
 * @apart: the domains that follow each other in a call lie in two EPTs
 */
static const struct set_up {
	const char *name, *backend;
	enum storage_way way;
	bool plain, server, apart;
} set_ups[] = {
	{ .name = "function calls", .way = STORAGE_CALLS },
	{ .name = "plain SQLite", .plain = true },
	{ .name = "epk, gates", .backend = "epk", .way = STORAGE_GATES },
	{ .name = "epk, gates across EPTs", .backend = "epk", .way = STORAGE_GATES, .apart = true },
	{ .name = "epk, begin and end", .backend = "epk", .way = STORAGE_HELD },
	{ .name = "vmfunc", .backend = "vmfunc", .way = STORAGE_HELD },
	{ .name = "mpk", .backend = "mpk", .way = STORAGE_HELD },
	{ .name = "mprotect", .backend = "mprotect", .way = STORAGE_HELD },
	{ .name = "Unix socket, a message a call", .way = STORAGE_SOCKET },
	{ .name = "Unix socket, a message a statement", .way = STORAGE_CALLS, .server = true },
};

static const struct set_up *this;

static struct storage_domains choose_domains(void)
{
	int groups[2][EPT_KEYS], epts[2];

	need(!alloc_domains(EPT_KEYS, groups[0]), "alloc_domains");
	if (!this->apart)
		return (struct storage_domains) { groups[0][0], groups[0][1], groups[0][2] };
	need(!alloc_domains(EPT_KEYS, groups[1]), "alloc_domains");
	epk_domain_place(groups[0][0], &epts[0], NULL);
	epk_domain_place(groups[1][0], &epts[1], NULL);
	if (some && epts[0] == epts[1])
		exit(0);
	errno = 0;
	need(epts[0] != epts[1], "two EPTs");
	return (struct storage_domains) { groups[0][0], groups[1][0], groups[1][1] };
}

/* Where no disk is, if there is such a place.  SQLite writes to none that has no name any more. */
static char own_file[] = "/dev/shm/sqlite-bench-XXXXXX";

static void remove_own_file(void)
{
	unlink(own_file);
}

static void set_up(void)
{
	struct storage_domains domains = { 0 };

	if (this->backend) {
		init_by(this->backend, 0);
		domains = choose_domains();
	}
	if (this->plain) {
		if (access("/dev/shm", W_OK))
			strcpy(own_file, "/tmp/sqlite-bench-XXXXXX");
		need(mkstemp(own_file) >= 0, "mkstemp");
		atexit(remove_own_file);
		open_database(own_file);
	} else {
		storage_start(this->way, &domains);
		open_database("database");
	}
	if (this->server)
		server = storage_fork(serve);
}

static void measure(void)
{
	static void (*const kinds[])(int i) = { one_insert, one_select, one_update, one_delete };
	static const char *const names[] = { "insert", "select", "update", "delete" };
	bool processes = this->server || this->way == STORAGE_SOCKET;
	struct bench_at at = {
		.table = "sqlite", .batch = BATCH, .batches = 5, .steps = A_TRANSACTION,
	};
	char name[80], baseline[80];
	int i;

	set_up();
	for (i = 0; i < 4; i++) {
		struct bench_case row = {
			.name = name, .baseline = "-", .run = kinds[i], .within = WITHIN,
		};
		struct bench_key key = { .table = at.table, .name = name, .within = WITHIN };

		snprintf(name, sizeof(name), "%s: %s", this->name, names[i]);
		snprintf(baseline, sizeof(baseline), "%s: %s", set_ups[0].name, names[i]);
		if (this != set_ups)
			row.baseline = baseline;
		key.baseline = row.baseline;
		if (processes)
			bench_figure(&key, bench_measure(&row, &at), NULL);
		else
			bench_row(&row, &at);
	}
	if (!this->server)
		check_database();
}

int main(int argc, char **argv)
{
	size_t i;

	bench_extent(argc, argv, NULL);
	for (i = 0; i < sizeof(set_ups) / sizeof(*set_ups); i++) {
		this = &set_ups[i];
		how = this->backend ? this->backend : this->name;
		/* The quick ones are what the rest is measured against, and what it is for. */
		if (!quick || i < 3)
			failed |= bench_traced(measure) != 0;
	}
	return failed;
}
