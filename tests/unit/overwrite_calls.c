// SPDX-License-Identifier: MIT
/* Every call of the library, as steps that leave all as it was if nothing is wrong. */
#define _GNU_SOURCE
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
#include "overwrite.h"

static void begin_and_end(void)
{
	want(!begin(USED, RW));
	use(USED);
	want(!end(USED));
	want(end(USED) == -EACCES);
}

static void begin_to_read(void)
{
	want(!begin(OTHER, PROT_READ));
	use(OTHER);
	look_at(OTHER);
	want(begin(OTHER, PROT_READ) == -EALREADY);
	want(!begin(OTHER, RW));
	*victim.secrets[OTHER] = canary(OTHER, 0);
	want(!end(OTHER));
}

static void begin_what_has_no_key(void)
{
	int i;

	for (i = NR_HEAPS; i < NR_DOMAINS; i += 4) {
		want(!begin(i, RW));
		use(i);
		want(!end(i));
	}
	want(!epk_begin_write(victim.ids[NR_HEAPS]));
	held[NR_HEAPS] = RW;
	want(!end(NR_HEAPS));
	want(!epk_begin_read(victim.ids[COLD]));
	held[COLD] = PROT_READ;
	use(COLD);
	want(!end(COLD));
}

static void begin_nested(void)
{
	want(!begin(OTHER, RW));
	want(!begin(FOURTH, PROT_READ));
	use(OTHER);
	use(FOURTH);
	want(!end(OTHER));
	look_at(OTHER);
	use(FOURTH);
	want(!end(FOURTH));
}

static void end_what_is_held(void)
{
	want(!end(HELD));
	want(!end(HELD_READ));
	look_at(HELD);
	look_at(HELD_READ);
	want(!begin(HELD, RW));
	want(!begin(HELD_READ, PROT_READ));
}

static void with(void)
{
	int error;

	EPK_WITH(victim.ids[USED], RW) {
		held[USED] = RW;
		use(USED);
	}
	held[USED] = 0;
	EPK_WITH_ERROR(error, victim.ids[COLD], PROT_READ) {
		held[COLD] = PROT_READ;
		use(COLD);
	}
	held[COLD] = 0;
	want(!error);
}

static void call_malloc(void)
{
	char *mem = epk_malloc(victim.ids[USED], 48);

	check_memory(USED, mem, 48);
	want(!epk_free(victim.ids[USED], mem));
}

static void call_calloc(void)
{
	char *mem = epk_calloc(victim.ids[OTHER], 5, 100);

	check_memory(OTHER, mem, 500);
	want(!epk_free(victim.ids[OTHER], mem));
}

static void call_memalign(void)
{
	char *mem = epk_memalign(victim.ids[USED], 256, 80);

	check_memory(USED, mem, 80);
	want(!epk_free(victim.ids[USED], mem));
}

/* With secrets in it. */
static void call_realloc(void)
{
	uint64_t *mem = epk_malloc(victim.ids[USED], 64), *grown;
	int i;

	check_memory(USED, (char *)mem, 64);
	if (!mem)
		return;
	want(!begin(USED, RW));
	for (i = 0; i < 8; i++)
		mem[i] = canary(USED, i);
	want(!end(USED));
	grown = epk_realloc(victim.ids[USED], mem, 1000);
	check_memory(USED, (char *)grown, 1000);
	if (!grown)
		return;
	want(!begin(USED, PROT_READ));
	for (i = 1; i < 8; i++)
		want(grown[i] == canary(USED, i));
	want(!end(USED));
	want(!epk_free(victim.ids[USED], grown));
}

static void call_malloc_of_what_is_held(void)
{
	char *mem = epk_malloc(victim.ids[HELD], 64);

	want(!end(HELD));
	check_memory(HELD, mem, 64);
	want(!begin(HELD, RW));
	want(!epk_free(victim.ids[HELD], mem));
	errno = 0;
	want(!epk_malloc(victim.ids[HELD_READ], 16) && errno == EACCES);
}

/* What is no allocation of the domain. */
static void call_free_wrongly(void)
{
	want(epk_free(victim.ids[USED], victim.in_heap[OTHER]) == -EINVAL);
	want(epk_free(victim.ids[USED], victim.secrets[USED]) == -EINVAL);
	want(epk_free(victim.ids[USED], victim.fake + PAGE) == -EINVAL);
	want(!epk_realloc(victim.ids[USED], victim.fake + PAGE, 4000));
}

static void call_in(int domain)
{
	long result = -1;
	int id = victim.ids[domain];

	called.stack = NULL;
	want(!epk_call(id, in_domain, &domain, &result));
	want(result == domain);
	if (called.stack && domain_at((uintptr_t)called.stack) >= 0 &&
	    domain_at((uintptr_t)called.stack) != domain)
		report(OUTSIDE, domain, "the stack for domain %d is domain %d's", domain,
		       domain_at((uintptr_t)called.stack));
}

static void call_call(void)
{
	call_in(USED);
	call_in(OTHER);
}

static long faults(void *arg)
{
	return *(volatile char *)arg;
}

/* Backend "epk"; in another nothing is run. */
static void call_call_caught(void)
{
	bool catches = !strcmp(epk_backend(), "epk");
	int domain = USED;
	long result = -1;

	want(epk_call_caught(victim.ids[USED], in_domain, &domain, &result) ==
	     (catches ? 0 : -EOPNOTSUPP));
	want(epk_call_caught(victim.ids[OTHER], faults, (void *)16, NULL) ==
	     (catches ? -EFAULT : -EOPNOTSUPP));
}

static void call_call_of_what_is_held(void)
{
	call_in(HELD);
	want(epk_call(victim.ids[HELD_READ], in_domain, NULL, NULL) == -EACCES);
}

/* Alone, from one by another, each way; and each way with a fault at the end.  Two are held meanwhile. */
static void call_gates(void)
{
	struct asked last = { 0 }, first = { 0 };
	int n;

	if (!have_parts()) {
		want(epk_gate_call(victim.ids[USED], 0, NULL, NULL) == -EINVAL);
		return;
	}
	for (n = 0; n < 2 * NR_PARTS; n++) {
		last = (struct asked){ .entry = n / NR_PARTS ? PART_FAULTS : LOOKS, .part = n % NR_PARTS };
		first = (struct asked){ .entry = LOOKS, .part = !last.part, .next = &last };
		want(ask_part(&last) == (n / NR_PARTS ? -EFAULT : 0));
		want(!ask_part(&first));
	}
	want(epk_gate_call(victim.ids[USED], 0, NULL, NULL) == -EINVAL);
	want(domain_begin(victim.parts[0], RW) == -EPERM);
}

/* Holding nothing there is no system call on the way. */
static void call_gates_alone(void)
{
	want(!end(HELD));
	want(!end(HELD_READ));
	call_gates();
	want(!begin(HELD, RW));
	want(!begin(HELD_READ, PROT_READ));
}

static void a_new_component(void)
{
	int id = -1, n;

	for (n = 0; n < NR_PARTS; n++) {
		want(!alloc_domains(1, &id));
		want(make_part(id, n) == (have_parts() ? 0 : -EOPNOTSUPP));
		if (have_parts())
			want(epk_gate_call(id, PART_FAULTS, NULL, NULL) == -EFAULT);
		want(!free_domains(1, &id));
	}
}

/* A domain from its birth to its end. */
static void all_of_a_new_domain(void)
{
	int id = -1, others[2], i, domain = NR_DOMAINS;
	char *big, *mem;
	long result;

	want(!alloc_domains(1, &id) && id > 0);
	if (id <= 0)
		return;
	want(!epk_alloc_beside(2, others, id));
	for (i = 0; i < NR_DOMAINS; i++)
		want(id != victim.ids[i]);
	mem = domain_mmap(id, NULL, 3 * PAGE, RW, MAP_POPULATE);
	want(mem != MAP_FAILED);
	big = epk_malloc(id, 300 * 1024);
	want(big);
	if ((mem != MAP_FAILED && can_read(mem)) || (big && can_read(big)))
		report(OUTSIDE, domain, "memory of a new domain can be read");
	want(!epk_call(id, in_domain, &domain, &result));
	want(!domain_begin(id, RW));
	want(free_domains(1, &id) == -EBUSY);
	if (mem != MAP_FAILED)
		*(volatile uint64_t *)mem = canary(domain, 0);
	want(!domain_end(id));
	if (mem != MAP_FAILED && can_read(mem))
		report(OPEN, domain, "a new domain can be read after its end");
	want(!free_domains(1, &id));
	want(!free_domains(2, others));
	if (mem != MAP_FAILED && can_read(mem) && *(volatile uint64_t *)mem == canary(domain, 0))
		report(OPEN, domain, "what was freed can be read");
	want(domain_begin(id, RW) == -ENOENT);
}

static void map_and_unmap(void)
{
	char *mem = domain_mmap(victim.ids[FOURTH], NULL, 4 * PAGE, RW, 0);

	check_memory(FOURTH, mem, 4 * PAGE);
	if (mem == MAP_FAILED)
		return;
	want(!domain_munmap(mem + PAGE, PAGE));
	want(!domain_munmap(mem + 3 * PAGE, PAGE));
	if (can_read(mem) || can_read(mem + 2 * PAGE))
		report(OPEN, FOURTH, "what is left of a mapping can be read");
	want(!domain_munmap(mem, PAGE));
	want(!domain_munmap(mem + 2 * PAGE, PAGE));
	want(domain_munmap(victim.fake, PAGE) == -EINVAL);
}

static void map_cold(void)
{
	char *mem = domain_mmap(victim.ids[COLD - 1], NULL, PAGE, PROT_READ, 0);

	want(mem != MAP_FAILED);
	if (mem == MAP_FAILED)
		return;
	if (can_read(mem))
		report(OUTSIDE, COLD - 1, "memory for domain %d can be read", COLD - 1);
	want(!domain_munmap(mem, PAGE));
}

static void map_file(void)
{
	char *mem = epk_mmap_file(victim.ids[FOURTH], NULL, PAGE, RW, 0, file_fd, 0);

	want(mem != MAP_FAILED);
	if (mem == MAP_FAILED)
		return;
	check_memory(FOURTH, mem, PAGE);
	want(!domain_munmap(mem, PAGE));
}

static void ask_what_is_held(void)
{
	int ids[8] = { 0 };

	want(epk_held(ids, 8) == 2);
	want((ids[0] == victim.ids[HELD] && ids[1] == victim.ids[HELD_READ]) ||
	     (ids[1] == victim.ids[HELD] && ids[0] == victim.ids[HELD_READ]));
	want(epk_held(NULL, 0) == 2);
	want(epk_held_prot(victim.ids[HELD]) == RW);
	want(epk_held_prot(victim.ids[HELD_READ]) == PROT_READ);
	want(epk_held_prot(victim.ids[USED]) == 0);
}

static int count_visit(int id, void *addr, size_t len, void *arg)
{
	(void)id;
	(void)addr;
	(void)len;
	++*(unsigned int *)arg;
	return 0;
}

static void ask_for_books(void)
{
	struct epk_counts counts = { .size = sizeof(counts) };
	unsigned int nr = 0;
	int ept, pkey;

	want(!epk_counts(&counts) && counts.domains == NR_DOMAINS + (have_parts() ? NR_PARTS : 0u));
	want(epk_domain_at(victim.secrets[USED]) == victim.ids[USED]);
	want(epk_domain_at(victim.fake) == 0);
	want(!epk_domain_place(victim.ids[USED], &ept, &pkey));
	want(!epk_for_each_mapping(count_visit, &nr) && nr >= NR_DOMAINS);
}

static void ask_for_the_rest(void)
{
	want(epk_backend() && !strcmp(epk_backend(), getenv("EPK_BACKEND")));
	want(epk_version() == (EPK_VERSION_MAJOR << 16 | EPK_VERSION_MINOR));
	want(!!epk_strerror(-EPERM));
	want(epk_init(NULL) == -EALREADY);
	want(epk_handle_fault(0, NULL, NULL) == 0);
}

static void *in_thread(void *arg)
{
	const struct asked second = { .entry = LOOKS, .part = 1 };
	const struct asked first = { .entry = LOOKS, .part = 0, .next = &second };
	int domain = FOURTH;
	long result;

	(void)arg;
	want(!domain_begin(victim.ids[OTHER], PROT_READ));
	want(!domain_end(victim.ids[OTHER]));
	want(!epk_call(victim.ids[FOURTH], in_domain, &domain, &result));
	if (have_parts())
		want(!ask_part(&first));
	victim_look_from_another();
	return NULL;
}

static void a_thread(void)
{
	pthread_t thread;

	want(!pthread_create(&thread, NULL, in_thread, NULL));
	want(!pthread_join(thread, NULL));
}

static void a_process(void)
{
	int status, i;
	pid_t pid = fork();

	if (!pid) {
		for (i = 0; i < NR_DOMAINS; i++)
			if (can_read(victim.secrets[i]))
				report(OPEN, i, "a child can read domain %d", i);
		_exit(domain_begin(victim.ids[USED], RW) != -EPERM);
	}
	want(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
}

/* Decides about what it should not when it is knocked at: the test sees these, or is no good. */
static bool knocked(enum kind kind)
{
	return (uint8_t)victim.planted->door[kind] == 0xff;
}

static void planted_holes(void)
{
	if (knocked(OPEN))
		domain_begin(victim.ids[USED], PROT_READ);
	if (knocked(OUTSIDE))
		check_memory(USED, victim.fake + PAGE, 64);
	if (knocked(COPIED) && !begin(USED, RW)) {
		((uint64_t *)victim.fake)[7] = victim.secrets[USED][3];
		end(USED);
	}
	if (knocked(CHANGED) && !begin(USED, RW)) {
		victim.secrets[USED][3] = 0;
		end(USED);
	}
}

/* Those that take long are made once in so many cases, unless all are asked for by luck 0. */
static const struct {
	const char *name;
	void (*run)(void);
	unsigned int every;
} steps[] = {
	{ "planted holes", planted_holes, 1 },
	{ "domain_begin, domain_end", begin_and_end, 1 },
	{ "domain_begin to read, and to write", begin_to_read, 1 },
	{ "domain_begin, epk_begin_* without keys", begin_what_has_no_key, 1 },
	{ "domain_begin of several", begin_nested, 1 },
	{ "domain_end of what is held", end_what_is_held, 1 },
	{ "EPK_WITH", with, 1 },
	{ "epk_malloc", call_malloc, 1 },
	{ "epk_calloc", call_calloc, 1 },
	{ "epk_memalign", call_memalign, 1 },
	{ "epk_realloc", call_realloc, 1 },
	{ "epk_malloc of what is held", call_malloc_of_what_is_held, 1 },
	{ "epk_free, epk_realloc of what is none", call_free_wrongly, 1 },
	{ "epk_call", call_call, 1 },
	{ "epk_call_caught", call_call_caught, 1 },
	{ "epk_call of what is held", call_call_of_what_is_held, 1 },
	{ "epk_gate_call", call_gates, 1 },
	{ "epk_gate_call, nothing held", call_gates_alone, 1 },
	{ "domain_mmap, domain_munmap", map_and_unmap, 2 },
	{ "domain_mmap without a key", map_cold, 4 },
	{ "epk_mmap_file", map_file, 4 },
	{ "epk_held, epk_held_prot", ask_what_is_held, 1 },
	{ "epk_counts, _domain_at, _place, _for_each", ask_for_books, 1 },
	{ "epk_backend, _version, _strerror, _init", ask_for_the_rest, 1 },
	{ "alloc_domains to free_domains", all_of_a_new_domain, 8 },
	{ "epk_component_create", a_new_component, 8 },
	{ "pthread_create", a_thread, 8 },
	{ "fork", a_process, 32 },
};

#define NR_STEPS	((int)(sizeof(steps) / sizeof(steps[0])))

const char *step_name(int step)
{
	return step >= 0 && step < NR_STEPS ? steps[step].name : "after all calls";
}

int step_count(void)
{
	return NR_STEPS;
}

/*
 * All calls from @first on.  True: each has done what it does otherwise.  After each, keys that are
 * open but were not before show; with @closely all the rest, too.
 */
bool victim_run(int first, bool closely, uint64_t luck)
{
	uint32_t before = open_keys();
	int step;

	differs = 0;
	for (step = first; step < NR_STEPS; step++) {
		if ((luck + step) % steps[step].every && luck)
			continue;
		shared->step = step;
		shared->calls++;
		victim_catch();
		steps[step].run();
		if (open_keys() != before || closely) {
			victim_look_at_all();
			before = open_keys();
		}
		if (closely)
			victim_look_around();
		if (shared->found)
			return false;
	}
	return !differs;
}
