// SPDX-License-Identifier: MIT
/*
 * Whether what threads and processes do independently of each other stays independent: 1 to 64
 * threads, and 1 to 32 processes, with domains of their own, all at once.  What they take together,
 * from when the first begins to when the last has ended, for each time that one does it: a lock that
 * they wait for shows as instructions, on one CPU those of who takes turns, on two those of who spins
 * or idles.  Then what EPTs take to have, by their number.
 *
 * scale_bench [quick|some|limits]: as of micro_bench; or nothing but threads and processes with "epk",
 * which have to keep the limits, on any number of CPUs
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"
#include "program.h"
#include "table.h"

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096
#define MOST_WORKERS	64
#define MOST_PROCESSES	32
#define BATCHES		3
#define EPT_KEYS	15
#define MANY_EPTS	512
/* By how much one of many may take more than one alone. */
#define LIMIT_PERCENT	10
/* By how much another run may differ, as the kernel has them take turns when it will; most where they wait for keys. */
#define WITHIN		3
#define WITHIN_OF_MPK	8

static bool limits;
static int failed;

static void init(void)
{
	init_by(how, 1);
}

/* What each does. */

struct mine {
	int ids[2];
	volatile char *mem[2];
};

static void get_domains(struct mine *mine)
{
	int i;

	need(!alloc_domains(2, mine->ids), "alloc_domains");
	for (i = 0; i < 2; i++) {
		mine->mem[i] = domain_mmap(mine->ids[i], NULL, PAGE, RW, 0);
		need(mine->mem[i] != MAP_FAILED, "domain_mmap");
	}
}

static void pairs(struct mine *mine, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		if (domain_begin(mine->ids[i % 2], RW))
			abort();
		++*mine->mem[i % 2];
		if (domain_end(mine->ids[i % 2]))
			abort();
	}
}

/* Allocations, which a lock of all heaps would have wait for each other. */
static void allocations(struct mine *mine, int nr)
{
	void *mem;
	int i;

	for (i = 0; i < nr; i++) {
		mem = epk_malloc(mine->ids[i % 2], 64);
		if (!mem || epk_free(mine->ids[i % 2], mem))
			abort();
	}
}

/**
 * struct task - what is measured
 * @name: of it
 * @backend: with which
 * @batch: how often a batch does it
 * @run: does it so often
 */
static const struct task {
	const char *name, *backend;
	int batch;
	void (*run)(struct mine *mine, int nr);
} tasks[] = {
	{ "begin, access, end", "none", 10000, pairs },
	{ "begin, access, end", "epk", 10000, pairs },
	{ "epk_malloc, epk_free", "epk", 1000, allocations },
	/* Threads have more domains than there are keys. */
	{ "begin, access, end", "mpk", 500, pairs },
};

/* Workers, all of whom begin a batch when all are there. */

static struct shared {
	pthread_barrier_t together;
	struct {
		uint64_t began, ended;
	} at[MOST_WORKERS];
} *shared;

static int nr_workers;
static const struct task *task;

static int cpus(void)
{
	cpu_set_t set;

	need(!sched_getaffinity(0, sizeof(set), &set), "sched_getaffinity");
	return CPU_COUNT(&set);
}

/* As many to each CPU: one that had more than its part would show as if they waited. */
static void keep_to_cpu(int nr)
{
	cpu_set_t set, mine;
	int cpu = -1;

	need(!sched_getaffinity(0, sizeof(set), &set), "sched_getaffinity");
	for (nr %= CPU_COUNT(&set); nr >= 0; nr--)
		do
			cpu++;
		while (!CPU_ISSET(cpu, &set));
	CPU_ZERO(&mine);
	CPU_SET(cpu, &mine);
	need(!sched_setaffinity(0, sizeof(mine), &mine), "sched_setaffinity");
}

static void work(int worker)
{
	struct mine mine;
	int batch;

	keep_to_cpu(worker);
	get_domains(&mine);
	task->run(&mine, task->batch);
	for (batch = 0; batch < BATCHES; batch++) {
		pthread_barrier_wait(&shared->together);
		shared->at[worker].began = __rdtsc();
		task->run(&mine, task->batch);
		shared->at[worker].ended = __rdtsc();
		pthread_barrier_wait(&shared->together);
		pthread_barrier_wait(&shared->together);
	}
}

static void *thread(void *arg)
{
	work((intptr_t)arg);
	return NULL;
}

static uint64_t batch_took(void)
{
	uint64_t began = UINT64_MAX, ended = 0;
	int i;

	for (i = 0; i < nr_workers; i++) {
		began = shared->at[i].began < began ? shared->at[i].began : began;
		ended = shared->at[i].ended > ended ? shared->at[i].ended : ended;
	}
	return ended - began;
}

/* Of the least of the batches, for each time that one did it, on the CPUs that they could have. */
static double together(void)
{
	int batch, used = nr_workers < cpus() ? nr_workers : cpus();
	uint64_t least = UINT64_MAX, took;

	for (batch = 0; batch < BATCHES; batch++) {
		pthread_barrier_wait(&shared->together);
		pthread_barrier_wait(&shared->together);
		took = batch_took();
		least = took < least ? took : least;
		pthread_barrier_wait(&shared->together);
	}
	return (double)least * used / nr_workers / task->batch;
}

static void share(void)
{
	pthread_barrierattr_t attr;

	shared = mmap(NULL, sizeof(*shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(shared != MAP_FAILED, "mmap");
	need(!pthread_barrierattr_init(&attr) &&
	     !pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) &&
	     !pthread_barrier_init(&shared->together, &attr, nr_workers + 1), "a barrier");
}

static double by_threads(void)
{
	pthread_t threads[MOST_WORKERS];
	double took;
	int i;

	share();
	for (i = 0; i < nr_workers; i++)
		need(!pthread_create(&threads[i], NULL, thread, (void *)(intptr_t)i), "pthread_create");
	took = together();
	for (i = 0; i < nr_workers; i++)
		pthread_join(threads[i], NULL);
	return took;
}

static double by_processes(void)
{
	pid_t pids[MOST_PROCESSES];
	double took;
	int i, status;

	share();
	for (i = 0; i < nr_workers; i++) {
		pids[i] = fork();
		need(pids[i] >= 0, "fork");
		if (!pids[i]) {
			init();
			work(i);
			_exit(0);
		}
	}
	took = together();
	for (i = 0; i < nr_workers; i++)
		need(waitpid(pids[i], &status, 0) == pids[i] && !status, "a process");
	return took;
}

static void figure(const char *table, double took, double one)
{
	char name[64];
	struct bench_key key = {
		.table = table, .name = name, .baseline = "none: begin, access, end",
		.threads = nr_workers, .within = strcmp(how, "mpk") ? WITHIN : WITHIN_OF_MPK,
	};

	snprintf(name, sizeof(name), "%s: %s", how, task->name);
	if (!strcmp(name, key.baseline))
		key.baseline = "-";
	bench_figure(&key, took, NULL);
	fflush(stdout);
	if (!strcmp(how, "epk") && took > one * (1 + LIMIT_PERCENT / 100.0)) {
		printf("limit: %s: %s by %d is %.1f, over %d %% more than %.1f\n", table, name,
		       nr_workers, took, LIMIT_PERCENT, one);
		failed = 1;
	}
}

static void scale(bool processes)
{
	int most = processes ? MOST_PROCESSES : MOST_WORKERS;
	double one = 0, took;

	if (!processes)
		init();
	for (nr_workers = 1; nr_workers <= most; nr_workers *= quick ? 8 : 2) {
		took = processes ? by_processes() : by_threads();
		if (nr_workers == 1)
			one = took;
		figure(processes ? "processes" : "threads", took, one);
	}
	exit(failed);
}

static void by_number_of_threads(void)
{
	scale(false);
}

static void by_number_of_processes(void)
{
	scale(true);
}

/* In a process of its own, as nothing goes back. */
static void in_child(void (*body)(void))
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	need(pid >= 0, "fork");
	if (!pid) {
		body();
		exit(0);
	}
	need(waitpid(pid, &status, 0) == pid, "waitpid");
	failed |= status != 0;
}

/* Whether the backend is; one that is not is an error, but for "some". */
static bool is_there(void)
{
	int failed_before = failed;
	bool there;

	failed = 0;
	in_child(init);
	there = !failed;
	failed = failed_before | (!there && !some);
	return there;
}

/* EPTs: their domains are allocated, and one of these has memory, which is used. */

static int epts;

static void fill_ept(int i)
{
	int ids[EPT_KEYS];
	volatile char *mem;

	(void)i;
	if (alloc_domains(EPT_KEYS, ids))
		abort();
	mem = domain_mmap(ids[0], NULL, PAGE, RW, 0);
	if (mem == MAP_FAILED || domain_begin(ids[0], RW))
		abort();
	*mem = 1;
	if (domain_end(ids[0]))
		abort();
}

/* Of memory that is free, those pages included that each CPU keeps for itself. */
static long free_pages(void)
{
	FILE *zones = fopen("/proc/zoneinfo", "r");
	long pages = 0, nr;
	char line[256];

	need(zones, "/proc/zoneinfo");
	while (fgets(line, sizeof(line), zones))
		if (sscanf(line, " pages free %ld", &nr) == 1 || sscanf(line, " count: %ld", &nr) == 1)
			pages += nr;
	fclose(zones);
	return pages;
}

/* Some processes do it once each: in one of them the kernel may have had something else to do. */
#define EPT_PROCESSES	3

static struct taken {
	uint64_t instructions;
	long pages;
} *taken;
static int ept_process;

static void take_epts(void)
{
	struct taken *mine = &taken[ept_process];
	uint64_t start;
	long before;
	int i;

	/* Whether a huge page fits depends on where the kernel happens to put a mapping: 2 MiB or not. */
	need(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl");
	init();
	before = free_pages();
	start = __rdtsc();
	for (i = 0; i < epts; i++)
		fill_ept(i);
	mine->instructions = __rdtsc() - start;
	mine->pages = before - free_pages();
}

static int fewer_pages(const void *a, const void *b)
{
	const struct taken *one = a, *other = b;

	return (one->pages > other->pages) - (one->pages < other->pages);
}

static void time_epts(void)
{
	struct bench_key key = {
		.table = "EPTs", .name = "instructions", .baseline = "-", .domains = epts * EPT_KEYS,
		/* Pages come from lists whose length depends on what was freed before. */
		.within = 10,
	};
	size_t bytes = EPT_PROCESSES * sizeof(*taken);
	uint64_t least = UINT64_MAX;

	taken = mmap(NULL, bytes, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(taken != MAP_FAILED, "mmap");
	for (ept_process = 0; ept_process < EPT_PROCESSES; ept_process++) {
		in_child(take_epts);
		if (taken[ept_process].instructions < least)
			least = taken[ept_process].instructions;
	}
	bench_figure(&key, (double)least / epts, NULL);
	key.name = "bytes of guest memory";
	key.within = 30;
	/* What else takes and gives pages meanwhile is more than a few take. */
	qsort(taken, EPT_PROCESSES, sizeof(*taken), fewer_pages);
	if (epts >= MANY_EPTS)
		bench_figure(&key, (double)taken[EPT_PROCESSES / 2].pages * PAGE / epts, NULL);
	fflush(stdout);
	munmap(taken, bytes);
}

int main(int argc, char **argv)
{
	static const int numbers[] = { 1, 2, 8, 64, 256, 512 };
	size_t i;

	limits = bench_extent(argc, argv, "limits");
	for (i = 0; i < sizeof(tasks) / sizeof(*tasks); i++) {
		task = &tasks[i];
		how = task->backend;
		if (limits && strcmp(how, "epk"))
			continue;
		if (!is_there())
			continue;
		in_child(by_number_of_threads);
		in_child(by_number_of_processes);
	}
	how = "epk";
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers) && !limits && is_there(); i++) {
		epts = numbers[i];
		time_epts();
	}
	return failed;
}
