// SPDX-License-Identifier: MIT
/*
 * Memory data isolation, as the EPK paper has it: a hash table in each domain; a domain that is
 * chosen at random, and one operation on its table, half of them get and half of them put.  By the
 * number of tables and of threads, with each backend of the library.  Then the same with tables
 * that are kept in a file.
 *
 * hash_bench [quick|some]: as of micro_bench
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"
#include "hash_table.h"
#include "program.h"
#include "store.h"
#include "table.h"

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096l
/* So few that a table has one page, which is what "mpk" would move to a key. */
#define KEYS		8
#define OPERATIONS	1000
#define BATCHES		3
#define MOST_THREADS	4

static int failed;

static int ids[7680], nr_ids, used;
static struct hash_table *tables[7680];
/* If they are kept in a file, a page of it for each. */
static bool in_file;
static struct store stores[7680];
static int file;

static uint64_t value_of(int table, uint64_t key)
{
	return (uint64_t)table << 32 | key;
}

/* Both want the domain held. */

static void put(int table, uint64_t key)
{
	uint64_t value = value_of(table, key);

	if (in_file ? store_put(&stores[table], key, value) :
		      !hash_put(ids[table], tables[table], key, value))
		abort();
}

static void get(int table, uint64_t key)
{
	struct hash_item *item;
	uint64_t value;

	if (in_file) {
		if (store_get(&stores[table], key, &value))
			abort();
	} else {
		item = hash_get(tables[table], key);
		if (!item)
			abort();
		value = item->value;
	}
	if (value != value_of(table, key))
		abort();
}

static bool make_table(int table)
{
	if (in_file) {
		need(!ftruncate(file, (table + 1) * PAGE), "ftruncate");
		return !store_open(&stores[table], ids[table], file, table * PAGE,
				   PAGE / sizeof(struct store_record));
	}
	tables[table] = epk_calloc(ids[table], 1, sizeof(struct hash_table));
	return tables[table];
}

static bool make_tables(int nr)
{
	uint64_t key;

	for (; nr_ids < nr; nr_ids++) {
		if (alloc_domains(1, &ids[nr_ids]))
			return false;
		if (!make_table(nr_ids) || domain_begin(ids[nr_ids], RW))
			return false;
		for (key = 0; key < KEYS; key++)
			put(nr_ids, key);
		need(!domain_end(ids[nr_ids]), "domain_end");
	}
	used = nr;
	return true;
}

/* The same numbers in each batch.  Knuth's MMIX. */
static inline uint64_t random_at(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static __thread uint64_t state;
static __thread uint64_t thread_seed = 1;

static void operation(int i)
{
	uint64_t random, key;
	int table;

	if (!i)
		state = thread_seed;
	random = random_at(&state);
	table = random % used;
	key = random_at(&state) % KEYS;
	if (domain_begin(ids[table], RW))
		abort();
	if (random >> 30)
		put(table, key);
	else
		get(table, key);
	if (domain_end(ids[table]))
		abort();
}

/* Threads do a batch each, in turn or at once, whenever all are there. */

static pthread_barrier_t together;
static int batches;

/* What a thread's time stamp counter said when it began a batch, and when it had done it. */
static struct worker {
	pthread_t thread;
	uint64_t seed, began, ended;
} workers[MOST_THREADS];

static void *work(void *arg)
{
	struct worker *worker = arg;
	int batch, i;

	thread_seed = worker->seed;
	for (batch = 0; batch < batches; batch++) {
		pthread_barrier_wait(&together);
		worker->began = __rdtsc();
		for (i = 0; i < OPERATIONS; i++)
			operation(i);
		worker->ended = __rdtsc();
		pthread_barrier_wait(&together);
		pthread_barrier_wait(&together);
	}
	return NULL;
}

/* From when the first began to when all had done it. */
static uint64_t batch_took(int nr)
{
	uint64_t began = UINT64_MAX, ended = 0;
	int i;

	for (i = 0; i < nr; i++) {
		began = workers[i].began < began ? workers[i].began : began;
		ended = workers[i].ended > ended ? workers[i].ended : ended;
	}
	return ended - began;
}

/* For each operation, of the least of the batches. */
static double threads(int nr)
{
	uint64_t least = UINT64_MAX, took;
	int batch, i;

	batches = BATCHES + 1;
	pthread_barrier_init(&together, NULL, nr + 1);
	for (i = 0; i < nr; i++) {
		workers[i].seed = i + 1;
		need(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "pthread_create");
	}
	for (batch = 0; batch < batches; batch++) {
		pthread_barrier_wait(&together);
		pthread_barrier_wait(&together);
		took = batch_took(nr);
		if (batch && took < least)
			least = took;
		pthread_barrier_wait(&together);
	}
	for (i = 0; i < nr; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&together);
	return (double)least / nr / OPERATIONS;
}

/* The kernel has threads take turns when it will. */
#define WITHIN_OF_THREADS	3
#define WITHIN_OF_MAPPINGS	3

static void thread_rows(int tables_of)
{
	struct bench_key key = {
		.table = "hash", .name = how, .baseline = strcmp(how, "none") ? "none" : "-",
		.domains = tables_of, .within = WITHIN_OF_THREADS,
	};

	for (key.threads = 2; key.threads <= MOST_THREADS; key.threads *= 2)
		bench_figure(&key, threads(key.threads), NULL);
}

static void measure(void)
{
	static const int numbers[] = { 1, 2, 8, 15, 16, 30, 64, 256, 1024, 4096, 7680 };
	/* Also of those in files. */
	static const int few[] = { 1, 64, 1024 };
	const int *which = quick || in_file ? few : numbers;
	int nr = quick ? 2 : in_file ? 3 : sizeof(numbers) / sizeof(int), i;
	struct bench_case row = { .name = how, .baseline = "none", .run = operation };

	init_by(how, 0);
	file = memfd_create("tables", MFD_CLOEXEC);
	need(file >= 0, "memfd_create");
	if (!strcmp(how, "none"))
		row.baseline = "-";
	/* The kernel splits and joins mappings, more of which a run of all tables has left. */
	if (!strcmp(how, "mprotect"))
		row.within = WITHIN_OF_MAPPINGS;
	for (i = 0; i < nr; i++) {
		struct bench_at at = {
			.table = in_file ? "files" : "hash", .domains = which[i],
			.threads = 1, .batch = OPERATIONS,
			.batches = BATCHES, .steps = 200,
		};

		if (!make_tables(which[i])) {
			bench_no_row(&row, &at, "no place for so many");
			continue;
		}
		bench_row(&row, &at);
		if (!quick && !in_file)
			thread_rows(which[i]);
	}
}

int main(int argc, char **argv)
{
	static const char *const backends[] = { "none", "epk", "vmfunc", "mpk", "mprotect" };
	size_t i;

	bench_extent(argc, argv, NULL);
	for (i = 0; i < 2 * sizeof(backends) / sizeof(*backends); i++) {
		how = backends[i / 2];
		in_file = i % 2;
		failed |= bench_traced(measure) != 0;
	}
	return failed;
}
