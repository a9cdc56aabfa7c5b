/* SPDX-License-Identifier: MIT */
/*
 * How a benchmark tells a figure to figures.py: a line of JSON.  A figure is known by its table,
 * its case and where it was taken (domains, bytes, threads), and names the case of the same table
 * that it is to be compared with; "-" is what others are compared with.
 */
#ifndef BENCH_FIGURE_H
#define BENCH_FIGURE_H

#include <stdio.h>

/**
 * struct bench_key - what a figure is of
 * @table: of which it is a row
 * @name: of the case, one in its table
 * @baseline: the case that it is compared with, or "-"
 * @domains: how many there were; 0 if that does not matter
 * @bytes: of a domain or of a message; likewise
 * @threads: likewise
 * @within: by how many per cent another run may differ; 0: by what figures.py says
 * @loose: by how many events, of which few requests have had few
 */
struct bench_key {
	const char *table;
	const char *name;
	const char *baseline;
	long domains;
	long bytes;
	long threads;
	int within;
	int loose;
};

/**
 * struct bench_events - what happened, for each time that a case ran
 * @wrpkru: WRPKRU that user code executed
 * @vmfunc: VMFUNC
 * @syscalls: system calls
 * @flushes: of these, such as change mappings and so flush the TLB
 * @exits: VM exits: those of EPK, as the host counts them, and hypercalls of user code
 * @hypercalls: of these, hypercalls
 * @links: likewise, first accesses that linked a table into an EPT
 * @domain_faults: likewise, accesses that no EPT allows
 * @refused: likewise, what is left: VMFUNC to EPTs that are not there
 * @faults: page faults
 */
struct bench_events {
	double wrpkru;
	double vmfunc;
	double syscalls;
	double flushes;
	double exits;
	double hypercalls;
	double links;
	double domain_faults;
	double refused;
	double faults;
};

static inline void bench_where(const struct bench_key *key)
{
	printf("{\"table\": \"%s\", \"case\": \"%s\", \"baseline\": \"%s\"", key->table, key->name,
	       key->baseline);
	if (key->domains)
		printf(", \"domains\": %ld", key->domains);
	if (key->bytes)
		printf(", \"bytes\": %ld", key->bytes);
	if (key->threads)
		printf(", \"threads\": %ld", key->threads);
	if (key->within)
		printf(", \"within\": %d", key->within);
	if (key->loose)
		printf(", \"loose\": %d", key->loose);
}

static inline void bench_reason(const char *name, double value)
{
	if (value)
		printf(", \"%s\": %.3g", name, value);
}

/* @events: or NULL, if they have not been counted. */
static inline void bench_figure(const struct bench_key *key, double count,
				const struct bench_events *events)
{
	bench_where(key);
	printf(", \"count\": %.1f", count);
	if (events) {
		printf(", \"wrpkru\": %.3g, \"vmfunc\": %.3g, \"syscalls\": %.3g, \"flushes\": %.3g, "
		       "\"exits\": %.3g, \"faults\": %.3g", events->wrpkru, events->vmfunc,
		       events->syscalls, events->flushes, events->exits, events->faults);
		/* Why there were exits. */
		bench_reason("hypercalls", events->hypercalls);
		bench_reason("links", events->links);
		bench_reason("domain_faults", events->domain_faults);
		bench_reason("refused", events->refused);
	}
	printf("}\n");
}

/* That there can be no such figure: @why, in a few words. */
static inline void bench_impossible(const struct bench_key *key, const char *why)
{
	bench_where(key);
	printf(", \"impossible\": \"%s\"}\n", why);
}

#endif /* BENCH_FIGURE_H */
