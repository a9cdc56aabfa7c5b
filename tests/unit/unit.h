/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests share.  Each program runs for one backend, the one that
 * its argument or EPK_BACKEND names, and exits 77 with a reason if the machine
 * lacks it.
 */
#ifndef EPK_UNIT_H
#define EPK_UNIT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include "../check.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <epk.h>

#include "../try.h"
#include "argument.h"

#ifdef __has_feature
#define UNIT_FEATURE(name)	__has_feature(name)
#else
#define UNIT_FEATURE(name)	0
#endif
#if defined(__SANITIZE_THREAD__) || UNIT_FEATURE(thread_sanitizer)
#define SANITIZED_THREADS	1
#else
#define SANITIZED_THREADS	0
#endif
/* Nearly all addresses are somebody's then. */
#if SANITIZED_THREADS || defined(__SANITIZE_ADDRESS__) || UNIT_FEATURE(address_sanitizer)
#define SANITIZED	1
#else
#define SANITIZED	0
#endif

#define PAGE	4096ul
#define RW	(PROT_READ | PROT_WRITE)
#define ERROR_REPEATS	50
/* Under "mpk", domains that can have a key: one of 15 keys is the library's own. */
#define MPK_PLACES	14
#define MPK_PKEYS	0x7ffe

static inline const char *unit_backend(void)
{
	const char *name = getenv("EPK_BACKEND");

	return name && *name ? name : "none";
}

static inline bool backend_is(const char *name)
{
	return !strcmp(unit_backend(), name);
}

/* Rights are enforced. */
static inline bool backend_protects(void)
{
	return !backend_is("none");
}

/* A right is the thread's alone, and a signal handler has none. */
static inline bool backend_is_private(void)
{
	return backend_protects() && !backend_is("mprotect");
}

/* Takes protection keys. */
static inline bool backend_takes_pkeys(void)
{
	return backend_is("epk") || backend_is("mpk") || backend_is("vmfunc");
}

/* All that is held can be accessed, not only what was begun last. */
static inline bool backend_holds_several(void)
{
	return !backend_is("vmfunc");
}

/* What a handler that does not return leaves behind is held no more; else it is still to be ended. */
static inline bool backend_forgets(void)
{
	return backend_is("epk");
}

/* The module has one EPT: on a host that offers none. */
static inline bool backend_is_alone(void)
{
	int ids[16], ept = 0;

	if (!backend_is("epk"))
		return false;
	REQUIRE_EQ(alloc_domains(16, ids), 0);
	REQUIRE_EQ(epk_domain_place(ids[15], &ept, NULL), 0);
	REQUIRE_EQ(free_domains(16, ids), 0);
	return ept < 0;
}

/* The si_code of an access to a domain that is not held. */
static inline int refused_code(void)
{
	return backend_is("mprotect") ? SEGV_ACCERR : SEGV_PKUERR;
}

/* As from waitpid(2). */
static inline int status_of_child(void (*body)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		/* Not cmocka's. */
		signal(SIGSEGV, SIG_DFL);
		body();
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static inline void run_in_child(void (*body)(void))
{
	REQUIRE_EQ(status_of_child(body), 0);
}

#define UNIT_THREADS	8

/* One thread for each of @args: @body returns NULL if all is well. */
static inline void run_threads(void *(*body)(void *arg), void *const *args, int nr)
{
	pthread_t threads[UNIT_THREADS];
	void *wrong, *any = NULL;
	int i;

	REQUIRE_IN(nr, 1, UNIT_THREADS);
	for (i = 0; i < nr; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, body, args[i]), 0);
	for (i = 0; i < nr; i++) {
		REQUIRE_EQ(pthread_join(threads[i], &wrong), 0);
		any = wrong ? wrong : any;
	}
	/* A test that fails takes away what its threads use: none is left. */
	REQUIRE(!any);
}

/* A case that is a child. */
#define IN_CHILD(body)							\
	static void in_child_##body(void **state)			\
	{								\
		(void)state;						\
		run_in_child(body);					\
	}

/* Ends a program that has no case for this backend. */
static inline void skip_if(bool condition, const char *why)
{
	if (!condition)
		return;
	printf("SKIP %s: backend %s %s\n", program_invocation_short_name, unit_backend(), why);
	exit(77);
}

/* Initialises in a child: is this backend here?  Skips the program if not. */
static inline void need_backend(void)
{
	struct epk_options options = { .size = sizeof(options), .backend = unit_backend() };
	int status, error;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(-epk_init(&options));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
		printf("cannot find out whether backend %s works\n", unit_backend());
		exit(1);
	}
	error = WEXITSTATUS(status);
	skip_if(error == ENODEV, "does not work here");
	if (error) {
		printf("epk_init(%s): %s\n", unit_backend(), strerror(error));
		exit(1);
	}
}

/* Things that error paths could lose. */
struct unit_resources {
	int mappings;
	int files;
	int pkeys;
	uint64_t domains;
	uint64_t pages;
};

/* A sanitizer has mappings of its own, as it likes. */
static inline int count_mappings(void)
{
	FILE *maps = SANITIZED ? NULL : fopen("/proc/self/maps", "r");
	int c, lines = 0;

	if (SANITIZED)
		return 0;
	REQUIRE(maps);
	while ((c = getc(maps)) != EOF)
		lines += c == '\n';
	fclose(maps);
	return lines;
}

static inline int count_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int files = 0;

	REQUIRE(dir);
	while (readdir(dir))
		files++;
	closedir(dir);
	return files;
}

/* How many protection keys the process could still get. */
static inline int count_free_pkeys(void)
{
	int pkeys[16], nr = 0, i;

	while (nr < 16 && (pkeys[nr] = pkey_alloc(0, PKEY_DISABLE_ACCESS)) > 0)
		nr++;
	for (i = 0; i < nr; i++)
		pkey_free(pkeys[i]);
	return nr;
}

static inline struct unit_resources count_resources(void)
{
	struct unit_resources now = { 0 };
	struct epk_counts counts = { .size = sizeof(counts) };

	REQUIRE_EQ(epk_counts(&counts), 0);
	now.files = count_files();
	now.pkeys = count_free_pkeys();
	now.domains = counts.domains;
	now.pages = counts.pages;
	now.mappings = count_mappings();
	return now;
}

static inline void require_nothing_lost(struct unit_resources before)
{
	struct unit_resources after = count_resources();

	REQUIRE_EQ(after.files, before.files);
	REQUIRE_EQ(after.pkeys, before.pkeys);
	REQUIRE_EQ(after.domains, before.domains);
	REQUIRE_EQ(after.pages, before.pages);
	REQUIRE_EQ(after.mappings, before.mappings);
}

static inline int new_domain(void)
{
	int id = -1;

	REQUIRE_EQ(alloc_domains(1, &id), 0);
	REQUIRE(id > 0);
	return id;
}

static inline void free_domain(int id)
{
	REQUIRE_EQ(free_domains(1, &id), 0);
}

static inline char *new_pages(int id, size_t pages)
{
	char *mem = domain_mmap(id, NULL, pages * PAGE, RW, 0);

	REQUIRE_NE(mem, MAP_FAILED);
	return mem;
}

static inline int count_one(int id, void *addr, size_t len, void *arg)
{
	(void)id;
	(void)addr;
	(void)len;
	++*(int *)arg;
	return 0;
}

static inline int count_epk_mappings(void)
{
	int nr = 0;

	REQUIRE_EQ(epk_for_each_mapping(count_one, &nr), 0);
	return nr;
}

/* @nr domains with @pages pages each; the first byte of the i-th is i + 1. */
static inline void fill_domains(int nr, int *ids, char **mem, size_t pages)
{
	int i;

	REQUIRE_EQ(alloc_domains(nr, ids), 0);
	for (i = 0; i < nr; i++) {
		mem[i] = new_pages(ids[i], pages);
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		mem[i][0] = i + 1;
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
}

/* They were all. */
static inline void free_all_domains(int nr, int *ids)
{
	REQUIRE_EQ(free_domains(nr, ids), 0);
	REQUIRE_EQ(count_epk_mappings(), 0);
}

#endif /* EPK_UNIT_H */
