// SPDX-License-Identifier: MIT
/*
 * The EPK paper's NGINX: an unmodified one, in which each client's session keys are in domains of
 * their own.  Clients ask in turn, so that each request is for other domains than the one before,
 * and mostly in another EPT.  They stay connected (table "nginx"), or each request ends its
 * connection, and another with a handshake takes its place ("nginx anew").
 *
 * What is measured is the worker alone, by its CPU time, which the kernel takes from the time stamp
 * counter whenever it changes tasks; none of the clients.
 *
 * nginx_bench HOME [quick|some]: HOME is where nginx.conf and a certificate are; words as of micro_bench
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "figure.h"
#include "nginx_client.h"
#include "nginx_server.h"
#include "watch.h"

#define FIRST_PORT	4440
/* Two that follow each other have domains in two EPTs, and all have their turn. */
#define STEP		17
#define FEW_CLIENTS	32
#define NATIVE_BATCHES	15

/* What else another run may differ by: signatures' lengths and the turns of kernel and timers. */
#define WITHIN		3
/* And of handshakes, of which few are counted, by so many system calls, faults and exits. */
#define LOOSE		2

static const char *const backends[] = { NULL, "none", "epk", "vmfunc", "mpk", "mprotect" };
#define NR_BACKENDS	6

static bool quick, some;
static const char *home;
static struct server servers[NR_BACKENDS];
static struct clients clients[NR_BACKENDS];

/* Cells of a table: where, and how many requests are a batch. */
static const struct cell {
	const char *table;
	int clients;
	int file;
	int batch;
	bool anew;
} cells[] = {
	{ "nginx", FEW_CLIENTS, 1, 64, false },
	{ "nginx anew", FEW_CLIENTS, 1, 10, true },
	{ "nginx", MOST_CLIENTS, 0, 300, false },
	{ "nginx", MOST_CLIENTS, 1, 150, false },
	{ "nginx", MOST_CLIENTS, 2, 75, false },
	{ "nginx anew", MOST_CLIENTS, 0, 10, true },
	{ "nginx anew", MOST_CLIENTS, 1, 10, true },
	{ "nginx anew", MOST_CLIENTS, 2, 10, true },
};
#define NR_CELLS	(int)(sizeof(cells) / sizeof(*cells))

static const char *name_of(const char *backend)
{
	return backend ? backend : "no protection";
}

/* How often the time stamp counter counts in a nanosecond of CPU time: the least, as others run, too. */
static double ticks_of_ns(void)
{
	double least = 1e9, ticks;
	struct timespec from, to;
	uint64_t start;
	volatile int i;
	int tries;

	for (tries = 0; tries < 50; tries++) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
		start = __rdtsc();
		for (i = 0; i < 100000; i++)
			;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
		ticks = (double)(__rdtsc() - start) /
			((to.tv_sec - from.tv_sec) * 1e9 + to.tv_nsec - from.tv_nsec);
		least = ticks < least ? ticks : least;
	}
	return least;
}

/* Until the worker has done what it has to: what it has worked by then. */
static uint64_t settled(const struct server *server)
{
	uint64_t before, now = server_worked(server);

	do {
		before = now;
		usleep(2000);
		now = server_worked(server);
	} while (now != before);
	return now;
}

static int turns[NR_BACKENDS];

static void requests(int which, const struct cell *cell, int nr)
{
	struct clients *all = &clients[which];
	const struct served_file *file = &served_files[cell->file];
	struct client *client;

	while (nr--) {
		client = &all->client[turns[which]++ * STEP % cell->clients];
		if (cell->anew ? client_fetch_anew(all, client, file) : client_fetch(client, file))
			continue;
		fprintf(stderr, "nginx_bench: %s fails\n", name_of(servers[which].backend));
		server_complaints(&servers[which]);
		exit(1);
	}
}

/* Nanoseconds of the worker for each request. */
static double batch(int which, const struct cell *cell)
{
	uint64_t start = settled(&servers[which]);

	requests(which, cell, cell->batch);
	return (double)(settled(&servers[which]) - start) / cell->batch;
}

/* VM exits that EPK has caused in the whole guest. */
static unsigned long exits(void)
{
	unsigned long nr = 0;
	char line[64];
	FILE *f = fopen("/sys/kernel/debug/epk/stats", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "exits %lu", &nr) == 1)
			break;
	if (f)
		fclose(f);
	return nr;
}

static struct bench_events count_events(int which, const struct cell *cell)
{
	unsigned long faults = server_faults(&servers[which]), exited = exits();
	double nr = cell->anew ? 5 : 40;
	struct watched watched;

	requests(which, cell, nr);
	settled(&servers[which]);
	faults = server_faults(&servers[which]) - faults;
	exited = exits() - exited;
	if (!watch_begin(servers[which].worker))
		exit(1);
	requests(which, cell, nr);
	settled(&servers[which]);
	if (!watch_end(&watched))
		exit(1);
	return (struct bench_events) {
		.wrpkru = watched.wrpkru / nr, .vmfunc = watched.vmfunc / nr,
		.syscalls = watched.syscalls / nr, .flushes = watched.flushes / nr,
		.exits = exited / nr, .faults = faults / nr,
	};
}

static struct bench_key key_of(int which, const struct cell *cell)
{
	const char *backend = servers[which].backend;

	return (struct bench_key) {
		.table = cell->table, .name = name_of(backend),
		.baseline = backend ? name_of(NULL) : "-", .domains = cell->clients,
		.bytes = served_files[cell->file].len, .within = WITHIN,
		.loose = cell->anew ? LOOSE : 0,
	};
}

static void figure(int which, const struct cell *cell, double count)
{
	struct bench_events events = count_events(which, cell);
	struct bench_key key = key_of(which, cell);

	bench_figure(&key, count, &events);
	fflush(stdout);
}

/* It has one EPT for a domain, and a thread of it reaches one domain at a time. */
static void impossible(int which, const struct cell *cell, const char *why)
{
	struct bench_key key = key_of(which, cell);

	if (strcmp(name_of(servers[which].backend), "vmfunc"))
		exit(1);
	bench_impossible(&key, why);
	fflush(stdout);
}

/* One server after the other, where instructions are counted. */
static void count_cells(int which)
{
	const char *why = NULL;
	double ticks = ticks_of_ns(), count, again;
	int i;

	servers[which].backend = backends[which];
	clients[which].port = FIRST_PORT + which;
	if (!server_start(&servers[which], home, backends[which], FIRST_PORT + which)) {
		fprintf(stderr, "nginx_bench: %s does not start\n", name_of(backends[which]));
		server_complaints(&servers[which]);
		why = "the provider does not start";
	}
	for (i = 0; i < (quick ? 2 : NR_CELLS); i++) {
		if (!why && !clients_open(&clients[which], cells[i].clients)) {
			server_complaints(&servers[which]);
			why = "no handshake for so many";
		}
		if (why) {
			impossible(which, &cells[i], why);
			continue;
		}
		/* To get warm. */
		requests(which, &cells[i], cells[i].anew ? 2 : FEW_CLIENTS);
		count = batch(which, &cells[i]);
		/* What has handshakes takes long, and a timer's tick is little of it. */
		again = cells[i].anew ? count : batch(which, &cells[i]);
		figure(which, &cells[i], (again < count ? again : count) * ticks);
	}
	clients_close(&clients[which]);
	if (!server_stop(&servers[which]) && !why) {
		fprintf(stderr, "nginx_bench: %s ended otherwise\n", name_of(backends[which]));
		exit(1);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, NATIVE_BATCHES, sizeof(*values), by_size);
	return values[NATIVE_BATCHES / 2];
}

/* Side by side, batch by batch: the median of what each takes of the first one's. */
static void compare_cells(double ticks)
{
	static double taken[NR_BACKENDS][NATIVE_BATCHES], ratios[NATIVE_BATCHES];
	int i, which, nr;
	double first;

	for (i = 0; i < NR_CELLS; i++) {
		for (which = 0; which < NR_BACKENDS; which++)
			if (servers[which].worker &&
			    !clients_open(&clients[which], cells[i].clients))
				exit(1);
		for (nr = -1; nr < NATIVE_BATCHES; nr++)
			for (which = 0; which < NR_BACKENDS; which++)
				if (servers[which].worker)
					taken[which][nr < 0 ? 0 : nr] = batch(which, &cells[i]);
		for (which = NR_BACKENDS - 1; which >= 0; which--) {
			for (nr = 0; nr < NATIVE_BATCHES; nr++)
				ratios[nr] = taken[which][nr] / taken[0][nr];
			taken[which][0] = which ? median(ratios) : median(taken[0]);
		}
		first = taken[0][0];
		for (which = 0; which < NR_BACKENDS; which++)
			if (servers[which].worker)
				figure(which, &cells[i],
				       first * ticks * (which ? taken[which][0] : 1));
	}
}

/* What this machine has. */
static void side_by_side(void)
{
	double ticks = ticks_of_ns();
	int which;

	for (which = 0; which < NR_BACKENDS; which++) {
		clients[which].port = FIRST_PORT + which;
		if (!server_start(&servers[which], home, backends[which], FIRST_PORT + which))
			servers[which].worker = 0;
	}
	if (!servers[0].worker)
		exit(1);
	compare_cells(ticks);
	for (which = 0; which < NR_BACKENDS; which++) {
		clients_close(&clients[which]);
		server_stop(&servers[which]);
	}
}

int main(int argc, char **argv)
{
	int which;

	quick = argc == 3 && !strcmp(argv[2], "quick");
	some = argc == 3 && !strcmp(argv[2], "some");
	if (argc < 2 || argc > 3 || (argc == 3 && !quick && !some)) {
		fprintf(stderr, "usage: nginx_bench HOME [quick|some]\n");
		return 2;
	}
	home = argv[1];
	if (!clients_init())
		return 1;
	if (some)
		side_by_side();
	else
		for (which = 0; which < NR_BACKENDS; which++)
			if (!quick || !backends[which] || !strcmp(backends[which], "epk"))
				count_cells(which);
	return 0;
}
