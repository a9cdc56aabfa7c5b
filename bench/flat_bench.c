// SPDX-License-Identifier: MIT
/*
 * Does what domain_begin() + domain_end() and epk_malloc() + epk_free() take stay the same: with
 * few domains and thousands, for 1, 8 and 64 threads at once, each with a domain of its own, after
 * domains have been moved and evicted, beside protection keys of the program's own; and for one of
 * 10,000 allocations, in whatever order they are freed?
 *
 * As in switch_bench, the time stamp counter counts instructions in the emulator.  Threads take turns,
 * and with two CPUs two run at a time, so that a lock of all would show.
 *
 * flat_bench [BACKEND [limits]]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"
#include "figure.h"
#include "program.h"

#define BATCH		50
#define BATCHES		31
#define MOST_THREADS	64
#define MANY		10000
#define FREES		3
#define RW		(PROT_READ | PROT_WRITE)

/* By how much what is measured may be more than with one thread and one domain. */
#define PAIR_PERCENT	2
#define HEAP_PERCENT	10
/* Of lists by length the right one is looked for, and there are more chunks. */
#define FREE_PERCENT	20
/* And from one run to another, as threads take turns when the kernel has them. */
#define WITHIN		3

static const char *backend;
static bool failed;
static double one_pair;

static int new_domain(void)
{
	int id;

	need(!alloc_domains(1, &id), "alloc_domains");
	return id;
}

static void malloc_and_free(int id)
{
	void *mem = epk_malloc(id, 64);

	if (!mem || epk_free(id, mem))
		abort();
}

static int compare(const void *a, const void *b)
{
	const uint64_t *one = a, *other = b;

	return *one < *other ? -1 : *one > *other;
}

/* Of each batch, others having had their turns before.  @least: else the median. */
static double measure(void (*what)(int), int id, bool least)
{
	uint64_t took[BATCHES], start;
	int batch, i;

	what(id);
	for (batch = 0; batch < BATCHES; batch++) {
		sched_yield();
		start = __rdtsc();
		for (i = 0; i < BATCH; i++)
			what(id);
		took[batch] = __rdtsc() - start;
	}
	qsort(took, BATCHES, sizeof(*took), compare);
	return (double)took[least ? 0 : BATCHES / 2] / BATCH;
}

static const char one_pair_name[] = "begin + end, of 1 domain";

/* @whose: the row that @than is of. */
static void row(const char *what, double value, const char *whose, double than, int percent)
{
	struct bench_key key = { .name = what, .baseline = whose, .within = WITHIN };
	char table[32];

	snprintf(table, sizeof(table), "flat %s", epk_backend());
	key.table = table;
	printf("%-52s %10.1f\n", what, value);
	bench_figure(&key, value, NULL);
	if (than && value > than * (1 + percent / 100.0)) {
		printf("limit: %.1f is over %d %% more\n", than, percent);
		failed = true;
	}
}

/* From call to return. */
static double pair_of(int id)
{
	return measure(libepk_pair, id, true) - measure(no_pair, id, true) + NO_CALLS;
}

static double pair(const char *what, int id)
{
	double value = pair_of(id);

	row(what, value, one_pair ? one_pair_name : "-", one_pair, PAIR_PERCENT);
	return value;
}

/**
 * struct worker - a thread
 * @heap: what it measures: whatever the batch, not the least
 * @id: with a domain of its own
 * @took: what that takes
 * @thread: libc's
 */
struct worker {
	bool heap;
	int id;
	double took;
	pthread_t thread;
};

static pthread_barrier_t together;

static void *work(void *arg)
{
	struct worker *worker = arg;

	pthread_barrier_wait(&together);
	if (worker->heap)
		worker->took = measure(malloc_and_free, worker->id, false);
	else
		worker->took = pair_of(worker->id);
	pthread_barrier_wait(&together);
	return NULL;
}

/* The worst of the threads, or where they may wait the mean. */
static double run_threads(int nr, bool heap)
{
	struct worker workers[MOST_THREADS];
	double sum = 0, most = 0;
	int i;

	pthread_barrier_init(&together, NULL, nr);
	for (i = 0; i < nr; i++) {
		workers[i] = (struct worker) { .heap = heap, .id = new_domain() };
		need(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "pthread_create");
	}
	for (i = 0; i < nr; i++) {
		need(!pthread_join(workers[i].thread, NULL), "pthread_join");
		need(!free_domains(1, &workers[i].id), "free_domains");
		sum += workers[i].took;
		if (workers[i].took > most)
			most = workers[i].took;
	}
	pthread_barrier_destroy(&together);
	return heap ? sum / nr : most;
}

/* Under "mpk" more would take each other's keys. */
static void threads(const char *name, bool heap, int percent)
{
	int most = strcmp(epk_backend(), "mpk") ? MOST_THREADS : 8;
	double one = run_threads(1, heap);
	char text[80], first[80];
	int nr;

	for (nr = 1; nr <= most; nr *= 8) {
		snprintf(text, sizeof(text), "%s, %d thread%s", name, nr, nr == 1 ? "" : "s");
		if (nr == 1)
			snprintf(first, sizeof(first), "%s", text);
		row(text, nr == 1 ? one : run_threads(nr, heap), nr == 1 ? "-" : first, one, percent);
	}
}

/* @nr of them, in the order that @step makes: what one takes to free. */
static double free_once(int id, unsigned int nr, unsigned int step)
{
	static void *mem[MANY];
	unsigned int i, at = 0;
	uint64_t start;

	need(!domain_begin(id, RW), "domain_begin");
	for (i = 0; i < nr; i++) {
		mem[i] = epk_malloc(id, 16 + i % 300);
		need(mem[i], "epk_malloc");
	}
	start = __rdtsc();
	for (i = 0; i < nr; i++) {
		if (epk_free(id, mem[at]))
			abort();
		at = (at + step) % nr;
	}
	start = __rdtsc() - start;
	need(!domain_end(id), "domain_end");
	return (double)start / nr;
}

/* The least of a few: once the kernel has had something else to do meanwhile. */
static double freeing(int id, unsigned int nr, unsigned int step)
{
	double least = free_once(id, nr, step), took;
	int i;

	for (i = 1; i < FREES; i++) {
		took = free_once(id, nr, step);
		least = took < least ? took : least;
	}
	return least;
}

static void heaps(void)
{
	/* Without a common factor with 100 and with MANY. */
	static const unsigned int steps[] = { 1, MANY - 1, 3001, 9973 };
	int id = new_domain();
	double few, many;
	char text[80], one[80];
	size_t i;

	threads("epk_malloc + epk_free", true, HEAP_PERCENT);
	freeing(id, MANY, 1);
	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		few = freeing(id, 100, steps[i] % 100);
		many = freeing(id, MANY, steps[i]);
		snprintf(one, sizeof(one), "epk_free of one of 100, step %u", steps[i]);
		row(one, few, "-", 0, 0);
		snprintf(text, sizeof(text), "epk_free of one of %d, step %u", MANY, steps[i]);
		row(text, many, one, few, FREE_PERCENT);
	}
	need(!free_domains(1, &id), "free_domains");
}

/* One instruction after the other wants both, until they lie together. */
static bool bring_together(volatile char *one, volatile char *other, int ids[2])
{
	int epts[2], i;

	need(!domain_begin(ids[0], RW) && !domain_begin(ids[1], RW), "domain_begin");
	for (i = 0; i < 10; i++) {
		++*one;
		++*other;
	}
	need(!domain_end(ids[0]) && !domain_end(ids[1]), "domain_end");
	epk_domain_place(ids[0], &epts[0], NULL);
	epk_domain_place(ids[1], &epts[1], NULL);
	return epts[0] == epts[1];
}

static void moves(void)
{
	int group[15], apart[2], epts[2] = { 0 }, first, i, moved = 0;
	char *mem[2];

	for (i = 0; i < 20; i++) {
		apart[0] = new_domain();
		epk_domain_place(apart[0], &epts[0], NULL);
		need(!alloc_domains(15, group), "alloc_domains");
		apart[1] = group[14];
		epk_domain_place(apart[1], &epts[1], NULL);
		if (epts[0] == epts[1])
			break;
		for (first = 0; first < 2; first++) {
			mem[first] = domain_mmap(apart[first], NULL, 4096, RW, 0);
			need(mem[first] != MAP_FAILED, "domain_mmap");
		}
		moved += bring_together(mem[0], mem[1], apart);
	}
	if (i < 20)
		return;
	need(moved == 20, "domains that are used together do not come together");
	pair("begin + end, of one that was moved", apart[0]);
	pair("begin + end, of one that others came to", apart[1]);
}

static void evictions(void)
{
	int *more = calloc(MANY, sizeof(*more)), i, pkey, evicted = 0;

	need(more && !alloc_domains(MANY, more), "alloc_domains");
	for (i = 0; i < MANY; i += 10)
		libepk_pair(more[i]);
	for (i = MANY - 1; i > 0; i -= 10)
		libepk_pair(more[i]);
	for (i = 0; i < MANY; i++)
		evicted += !epk_domain_place(more[i], NULL, &pkey) && !pkey;
	need(evicted > 1000, "domains have not been evicted");
	pair("begin + end, with evictions", more[0]);
	need(!free_domains(MANY, more), "free_domains");
	free(more);
}

static void init(void)
{
	struct epk_options options = { .size = sizeof(options), .backend = backend };

	need(!epk_init(&options), "epk_init");
}

static void few_and_many(void)
{
	static int more[7680];
	static const int steps[] = { 15, 240, 7600 };
	int id, nr = 1, i;
	char text[80];

	init();
	id = new_domain();
	one_pair = pair(one_pair_name, id);
	for (i = 0; i < 3; i++) {
		for (; nr < steps[i]; nr++)
			more[nr] = new_domain();
		snprintf(text, sizeof(text), "begin + end, of %d domains", nr);
		pair(text, id);
		snprintf(text, sizeof(text), "begin + end, the last of %d domains", nr);
		pair(text, more[nr - 1]);
	}
	while (--nr)
		need(!free_domains(1, &more[nr]), "free_domains");
	threads("begin + end", false, PAIR_PERCENT);
	heaps();
	moves();
	if (strcmp(epk_backend(), "none") && strcmp(epk_backend(), "mprotect"))
		evictions();
}

/* Of its keys one is open, one is closed, one has memory. */
static void beside_keys(void)
{
	int keys[3], i;
	double value;
	char *mem;

	for (i = 0; i < 3; i++) {
		keys[i] = pkey_alloc(0, i ? PKEY_DISABLE_ACCESS : 0);
		if (keys[i] < 0)
			return;
	}
	mem = mmap(NULL, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(mem != MAP_FAILED && !pkey_mprotect(mem, 4096, RW, keys[0]), "pkey_mprotect");
	init();
	*(volatile char *)mem = 1;
	value = pair_of(new_domain());
	row("begin + end, beside 3 keys of the program's", value, one_pair_name,
	    one_pair > HELD_LIMIT ? one_pair : HELD_LIMIT, 0);
	threads("begin + end, beside these keys", false, PAIR_PERCENT);
	need(!pkey_get(keys[0]) && pkey_get(keys[1]) == PKEY_DISABLE_ACCESS, "keys have changed");
}

/* A process that has done neither. */
static void in_child(void (*body)(void), double *left)
{
	int ends[2], status;
	pid_t pid;

	need(!pipe(ends), "pipe");
	fflush(NULL);
	pid = fork();
	need(pid >= 0, "fork");
	if (!pid) {
		body();
		need(write(ends[1], left, sizeof(*left)) == sizeof(*left), "write");
		exit(failed ? 2 : 0);
	}
	need(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "waitpid");
	if (WEXITSTATUS(status) == 1)
		exit(1);
	failed |= WEXITSTATUS(status) == 2;
	need(read(ends[0], left, sizeof(*left)) == sizeof(*left), "read");
	close(ends[0]);
	close(ends[1]);
}

int main(int argc, char **argv)
{
	bool limits = bench_limits(argc, argv);

	backend = argc > 1 ? argv[1] : NULL;
	in_child(few_and_many, &one_pair);
	in_child(beside_keys, &one_pair);
	if (!limits)
		return 0;
	printf("limits: %s\n", failed ? "broken" : "all kept");
	return failed;
}
