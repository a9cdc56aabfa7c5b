// SPDX-License-Identifier: MIT
/*
 * A code cache, as compilers at run time have: functions are compiled one after the other, by begin and end alone,
 * while other threads run those that are there.  A stray write of theirs changes none.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "stray.h"

#define FUNCTIONS	200
#define THREADS		3
#define BYTES		16

typedef int (*function_fn)(int x);

/* What is compiled is written at one address, and run at the other. */
static struct {
	int domain;
	uint8_t *written;
	uint8_t *run;
	int nr;
} cache;

/* x * n + n, by the System V ABI: imul $n, %edi, %eax; add $n, %eax; ret */
static void compile(uint8_t *at, int32_t n)
{
	memcpy(at, "\x69\xc7", 2);
	memcpy(at + 2, &n, 4);
	at[6] = 0x05;
	memcpy(at + 7, &n, 4);
	at[11] = 0xc3;
}

static function_fn function(int n)
{
	return (function_fn)(uintptr_t)(cache.run + n * BYTES);
}

/* What a CPU has fetched by the one address need not be what was written by the other until this. */
static void serialize(void)
{
	unsigned int a, b, c, d;

	__cpuid(0, a, b, c, d);
}

static void *work(void *arg)
{
	intptr_t wrong = 0, nr;
	int n;

	(void)arg;
	do {
		nr = __atomic_load_n(&cache.nr, __ATOMIC_ACQUIRE);
		serialize();
		for (n = 0; n < nr; n++)
			wrong += function(n)(7) != 7 * n + n;
	} while (nr < FUNCTIONS);
	return (void *)wrong;
}

static int make_cache(void)
{
	struct epk_options options = { .size = sizeof(options), .flags = EPK_CODE };
	int err = epk_init(&options);
	void *run;

	err = err ? err : alloc_domains(1, &cache.domain);
	if (err)
		return err;
	cache.written = epk_mmap_code(cache.domain, FUNCTIONS * BYTES,
				      PROT_READ | PROT_WRITE | PROT_EXEC, &run);
	if (cache.written == MAP_FAILED)
		return -errno;
	cache.run = run;
	return 0;
}

int main(void)
{
	pthread_t threads[THREADS];
	bool at_write, at_run;
	intptr_t wrong = 0;
	void *more;
	int i, err = make_cache();

	if (err) {
		fprintf(stderr, "code_cache: %s\n", epk_strerror(err));
		return 1;
	}
	for (i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, work, NULL))
			return 1;
	}
	for (i = 0; i < FUNCTIONS; i++) {
		EPK_WITH(cache.domain, PROT_READ | PROT_WRITE)
			compile(cache.written + i * BYTES, i);
		__atomic_store_n(&cache.nr, i + 1, __ATOMIC_RELEASE);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &more);
		wrong += (intptr_t)more;
	}
	at_write = stray_write(cache.written);
	at_run = stray_write(cache.run);
	printf("backend %s: %d functions, %ld wrong results; a stray write %s, and where they run it %s\n",
	       epk_backend(), FUNCTIONS, (long)wrong, stray_says(at_write), stray_says(at_run));
	return wrong || at_run || !stray_is_as_it_should_be(at_write);
}
