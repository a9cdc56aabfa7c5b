// SPDX-License-Identifier: MIT
/* What a forked child has: none of the domains, and a fresh start if it wants. */
#define _GNU_SOURCE
#include <sys/syscall.h>

#include "state_page.h"
#include "unit.h"

static int ids[3];
static char *mem, ignored;

/* How often the library's state has been open for anybody to write to. */
static int opened;

int mprotect(void *addr, size_t len, int prot)
{
	int ret = syscall(SYS_mprotect, addr, len, prot);
	volatile char *byte = addr;

	if (addr == &epk_state_page && prot & PROT_WRITE) {
		byte[sizeof(epk_state_page) - 1] ^= 1;
		byte[sizeof(epk_state_page) - 1] ^= 1;
		opened++;
	}
	return ret;
}

static bool state_is_open(void)
{
	return !madvise(&epk_state_page, PAGE, MADV_POPULATE_WRITE);
}

/* What another library's handler maps in the child, before this one's comes. */
static char *early[4];
static int nr_early;

static void map_early(void)
{
	char *const where[] = {
		(char *)epk_now.table, (char *)epk_now.table - EPK_GATE_IDENTITY,
		(char *)epk_now.soft,
	};
	unsigned int i;

	if (!epk_now.ops)
		return;
	nr_early = 0;
	for (i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		if (!where[i])
			continue;
		early[nr_early] = mmap(where[i], PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
				       MAP_FIXED_NOREPLACE, -1, 0);
		if (early[nr_early] != MAP_FAILED)
			*early[nr_early++] = 1;
	}
}

static void refused(void)
{
	int place = -1;

	REQUIRE(!epk_backend());
	REQUIRE(domain_begin(ids[1], RW) == -EPERM);
	REQUIRE(domain_end(ids[0]) == -EPERM);
	REQUIRE(free_domains(3, ids) == -EPERM);
	REQUIRE(epk_domain_place(ids[0], &place, NULL) == -EPERM && place == -1);
	errno = 0;
	REQUIRE(domain_mmap(ids[0], NULL, PAGE, RW, 0) == MAP_FAILED && errno == EPERM);
	REQUIRE(domain_munmap(mem, PAGE) == -EINVAL);
	REQUIRE(domain_begin(ids[2] + (1 << 17), RW) == -ENOENT);
	REQUIRE(!epk_backend());
}

static void leaves_others_memory(void)
{
	int i, gaps = backend_is("epk") || backend_is("vmfunc") ? 2 : 1;

	REQUIRE(nr_early == gaps);
	for (i = 0; i < gaps; i++)
		REQUIRE(try_read(early[i], &ignored) && ignored == 1);
}

static void no_memory(void)
{
	unsigned char vec;

	REQUIRE(!try_read(mem, &ignored) && try_code == SEGV_MAPERR);
	REQUIRE(mincore(mem, PAGE, &vec) == -1 && errno == ENOMEM);
}

/* As much of everything as the parent had, and nothing of the parent's. */
static void anew(void)
{
	int own[40], ept, pkey, i, pkeys = 0;
	struct epk_counts counts = { .size = sizeof(counts) };
	char *own_mem[40];

	REQUIRE(!alloc_domains(40, own));
	REQUIRE(!strcmp(epk_backend(), unit_backend()));
	REQUIRE(!epk_counts(&counts) && counts.domains == 40);
	for (i = 0; i < 40; i++) {
		own_mem[i] = domain_mmap(own[i], NULL, PAGE, RW, 0);
		REQUIRE(own_mem[i] != MAP_FAILED);
		REQUIRE(!domain_begin(own[i], RW));
		own_mem[i][0] = i;
		REQUIRE(!epk_domain_place(own[i], &ept, &pkey));
		pkeys |= 1 << pkey;
		REQUIRE(!domain_end(own[i]));
		if (backend_protects())
			REQUIRE(!try_read(own_mem[i], &ignored) && try_code == refused_code());
	}
	if (backend_is("epk") || backend_is("mpk"))
		REQUIRE(pkeys == (backend_is("epk") ? 0xfffe : MPK_PKEYS));
	REQUIRE(!free_domains(40, own));
}

static volatile int vfork_init, vfork_alloc;

/* A child of vfork() that comes first leaves nothing behind. */
static void anew_after_vfork(void)
{
	static int id;
	int status;
	pid_t pid;

	pid = vfork();
	if (!pid) {
		vfork_init = epk_init(NULL);
		vfork_alloc = alloc_domains(1, &id);
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	REQUIRE(vfork_init == -EPERM && vfork_alloc == -EPERM);
	REQUIRE(!epk_backend());
	anew();
}

static void anew_lists_own_only(void)
{
	int own, nr = 0;

	REQUIRE(!alloc_domains(1, &own));
	REQUIRE(domain_mmap(own, NULL, PAGE, RW, 0) != MAP_FAILED);
	REQUIRE(!epk_for_each_mapping(count_one, &nr) && nr == 1);
}

static void grandchild(void)
{
	int status, own;
	pid_t pid;

	REQUIRE(!alloc_domains(1, &own));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(domain_begin(own, RW) == -EPERM);
		REQUIRE(domain_begin(ids[2], RW) == -EPERM);
		anew();
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	REQUIRE(!domain_begin(own, RW));
	REQUIRE(!domain_end(own));
}

#define CHILD_CASES(X)								\
	X(refused) X(leaves_others_memory) X(no_memory) X(anew) X(anew_after_vfork)	\
	X(anew_lists_own_only) X(grandchild)

#define DEFINE(name)								\
	static void fork_##name(void **state)					\
	{									\
		(void)state;							\
		run_in_child(name);						\
		REQUIRE_EQ(mem[0], 7);						\
	}
#define ENTRY(name)	cmocka_unit_test(fork_##name),

CHILD_CASES(DEFINE)

static void nothing(void)
{
}

static void opens_in_child(void)
{
	REQUIRE(opened);
	REQUIRE(!state_is_open());
}

/* What is not stopped: a store at that moment, in epk_init() and in a child's handler of fork(). */
static void state_is_opened(void **state)
{
	(void)state;
	REQUIRE(opened);
	REQUIRE(!state_is_open());
	opened = 0;
	run_in_child(opens_in_child);
	REQUIRE_EQ(opened, 0);
}

/* As in a signal handler that interrupted a call of the library. */
static void fork_with_the_lock(void **state)
{
	(void)state;
	REQUIRE_EQ(pthread_mutex_lock(&epk_lock), 0);
	run_in_child(nothing);
	run_in_child(anew);
	REQUIRE_EQ(pthread_mutex_unlock(&epk_lock), 0);
	REQUIRE_EQ(mem[0], 7);
}

static volatile int vfork_began, vfork_held, vfork_ended;
static volatile bool vfork_read_held, vfork_read_last;

/* It has the parent's memory, what the thread keeps for itself included, and is another task. */
static void after_vfork(void **state)
{
	char *other = new_pages(ids[1], 1);
	int id, status, i, many[16];
	pid_t pid;

	(void)state;
	id = ids[1];
	pid = vfork();
	if (!pid) {
		vfork_read_held = try_read(mem, &ignored);
		vfork_began = domain_begin(id, RW);
		usleep(20000);
		vfork_held = epk_held_prot(id);
		vfork_read_last = try_read(other, &ignored);
		vfork_ended = domain_end(id);
		_exit(0);
	}
	REQUIRE(pid > 0);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	/* Under "epk" it is no thread that the module knows, and loses all with the CPU. */
	REQUIRE_EQ(vfork_began, 0);
	REQUIRE_EQ(vfork_held, backend_is("epk") ? 0 : RW);
	REQUIRE_EQ(vfork_ended, backend_is("epk") ? -EACCES : 0);
	/* So it does under "vmfunc", whose list does not know. */
	if (!backend_is("vmfunc")) {
		REQUIRE_EQ(vfork_read_last, vfork_held != 0 || !backend_protects());
		REQUIRE_EQ(vfork_read_held, !backend_is("epk"));
	}
	REQUIRE_EQ(epk_held(NULL, 0), 1);
	REQUIRE_EQ(epk_held_prot(ids[0]), RW);
	REQUIRE_EQ(mem[0], 7);
	REQUIRE_EQ(epk_held_prot(id), 0);
	if (backend_is_private())
		REQUIRE(!try_read(other, &ignored));
	if (backend_is("mpk") || backend_is("epk")) {
		REQUIRE_EQ(alloc_domains(MPK_PLACES - 1, many), 0);
		for (i = 0; i < MPK_PLACES - 1; i++)
			REQUIRE_EQ(domain_begin(many[i], RW), 0);
		for (i = 0; i < MPK_PLACES - 1; i++)
			REQUIRE_EQ(domain_end(many[i]), 0);
		REQUIRE_EQ(free_domains(MPK_PLACES - 1, many), 0);
	}
	REQUIRE_EQ(domain_munmap(other, PAGE), 0);
}

/* Of a thread that has begun nothing yet: there is nothing of it to share. */
static void *vfork_first(void *unused)
{
	pid_t pid;
	int status;

	pid = vfork();
	if (!pid) {
		vfork_began = domain_begin(ids[1], RW);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status || vfork_began != -EPERM)
		return (void *)1;
	return domain_begin(ids[1], RW) || domain_end(ids[1]) ? (void *)2 : unused;
}

static void first_begin_after_vfork(void **state)
{
	void *const unused[] = { NULL };

	(void)state;
	run_threads(vfork_first, unused, 1);
}

/* The parent forks while it holds a domain, and goes on as if nothing was. */
static int set_up(void **state)
{
	(void)state;
	REQUIRE_EQ(alloc_domains(3, ids), 0);
	mem = new_pages(ids[0], 1);
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	mem[0] = 7;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(free_domains(3, ids), 0);
	return 0;
}

/* Before the library's own, which it has when it is loaded. */
__attribute__((constructor(102))) static void handle_fork(void)
{
	if (pthread_atfork(NULL, NULL, map_early))
		abort();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHILD_CASES(ENTRY)
		cmocka_unit_test(state_is_opened),
		cmocka_unit_test(fork_with_the_lock),
		cmocka_unit_test(after_vfork),
		cmocka_unit_test(first_begin_after_vfork),
	};

	need_backend();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
