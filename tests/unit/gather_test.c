// SPDX-License-Identifier: MIT
/* epk_gather(): domains come together with what they have, whoever holds them, or stay where they are. */
#define _GNU_SOURCE
#include "unit.h"

#include <linux/epk.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "state_page.h"

#define MOST	15
#define NR	200
#define MANY	8000

static int ids[MANY];
static char *mem[NR];

static int ept_of(int id)
{
	int ept = -2;

	REQUIRE_EQ(epk_domain_place(id, &ept, NULL), 0);
	return ept;
}

/* How many an EPT holds: the program has used none of the keys. */
static int keys(void)
{
	return __builtin_popcount(epk_now.pkeys);
}

static void set_up(void)
{
	fill_domains(NR, ids, mem, 1);
}

static bool are_together(int num, const int *list)
{
	int i;

	for (i = 0; i < num; i++)
		if (ept_of(list[i]) < 0 || ept_of(list[i]) != ept_of(list[0]))
			return false;
	return true;
}

/* What other threads do between the library's look and the kernel's. */
static struct epk_move others[2];
static int nr_others, others_error;

static int kernel(int fd, unsigned long request, void *arg)
{
	return syscall(SYS_ioctl, fd, request, arg);
}

int ioctl(int fd, unsigned long request, ...)
{
	struct epk_moves first = { .num = nr_others, .moves = (uintptr_t)others };
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == EPK_IOC_MOVE && nr_others) {
		nr_others = 0;
		others_error = kernel(fd, request, &first) ? errno : 0;
	}
	return kernel(fd, request, arg);
}

/* Far from each other, and out of any place, if there are but few. */
static void those_far_apart(void **state)
{
	int list[MOST], i, n;

	(void)state;
	set_up();
	n = backend_is("epk") ? keys() : MOST;
	REQUIRE_IN(n, 8, MOST);
	for (i = 0; i < n; i++)
		list[i] = ids[i * 13];
	if (backend_is("epk"))
		REQUIRE(!are_together(n, list));
	REQUIRE_EQ(epk_gather(n, list), 0);
	if (backend_is("epk"))
		REQUIRE(are_together(n, list));
	REQUIRE_EQ(epk_gather(n, list), 0);
	for (i = 0; i < NR; i++) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		REQUIRE_EQ(mem[i][0], (char)(i + 1));
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	free_all_domains(NR, ids);
}

static int third_held, third_may_end;

static void *holds_third(void *arg)
{
	bool well = !domain_begin(ids[3], PROT_READ) && mem[3][0] == 4;

	__atomic_store_n(&third_held, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&third_may_end, __ATOMIC_ACQUIRE))
		usleep(1000);
	well = well && mem[3][0] == 4 && epk_held_prot(ids[3]) == PROT_READ && !domain_end(ids[3]);
	return well ? NULL : arg;
}

/* The caller and another thread hold some, and hold the same afterwards. */
static void those_held(void **state)
{
	int list[] = { 0, 0, 0, 0 };
	pthread_t thread;
	void *wrong;
	char byte;

	(void)state;
	set_up();
	list[0] = ids[1], list[1] = ids[60], list[2] = ids[120], list[3] = ids[3];
	third_held = third_may_end = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, holds_third, ids), 0);
	while (!__atomic_load_n(&third_held, __ATOMIC_ACQUIRE))
		usleep(1000);
	REQUIRE_EQ(domain_begin(ids[60], RW), 0);
	REQUIRE_EQ(domain_begin(ids[100], PROT_READ), 0);
	REQUIRE_EQ(epk_gather(4, list), 0);
	REQUIRE_EQ(epk_held(NULL, 0), 2);
	REQUIRE_EQ(epk_held_prot(ids[60]), RW);
	mem[60][0] = 9;
	REQUIRE_EQ(mem[100][0], 101);
	if (backend_is_private()) {
		REQUIRE(!try_read(mem[1], &byte));
		REQUIRE(!try_read(mem[3], &byte));
		REQUIRE(!try_write(mem[100], 1));
	}
	__atomic_store_n(&third_may_end, 1, __ATOMIC_RELEASE);
	REQUIRE_EQ(pthread_join(thread, &wrong), 0);
	REQUIRE(!wrong);
	REQUIRE_EQ(domain_end(ids[60]), 0);
	REQUIRE_EQ(domain_end(ids[100]), 0);
	free_all_domains(NR, ids);
}

/* Each place is taken: others change places, and no more of them than have to. */
static void those_that_find_no_room(void **state)
{
	int list[4], i, before = 0, after = 0;

	(void)state;
	if (!backend_is("epk"))
		skip();
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++)
		before += ept_of(ids[i]) >= 0;
	list[0] = ids[0], list[1] = ids[20], list[2] = ids[7000], list[3] = ids[MANY - 1];
	REQUIRE(before < MANY && ept_of(list[3]) == -1);
	REQUIRE_EQ(epk_gather(4, list), 0);
	REQUIRE(are_together(4, list));
	for (i = 0; i < MANY; i++)
		after += ept_of(ids[i]) >= 0;
	REQUIRE_EQ(after, before);
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

/* What has a right of all threads has a place that nobody sees, and makes no room: that is said. */
static void those_beside_common_ones(void **state)
{
	int list[2], i, n = keys();

	(void)state;
	if (!backend_is("epk") || !backend_is_alone())
		skip();
	REQUIRE_EQ(alloc_domains(2, list), 0);
	fill_domains(n, ids, mem, 1);
	for (i = 0; i < n; i++) {
		REQUIRE_EQ(epk_protect(ids[i], RW), 0);
		mem[i][0] = 1;
	}
	REQUIRE_EQ(epk_gather(2, list), -ENOSPC);
	REQUIRE(strstr(epk_strerror(-ENOSPC), "epk_protect()"));
	for (i = 0; i < n; i++)
		REQUIRE_EQ(epk_protect(ids[i], PROT_NONE), 0);
	REQUIRE_EQ(epk_gather(2, list), 0);
	REQUIRE(are_together(2, list));
	REQUIRE_EQ(free_domains(2, list), 0);
	free_all_domains(n, ids);
}

/* One of them leaves its place; if @taken, another domain has that at once. */
static void while_others_move(bool taken)
{
	int list[2], other, i;

	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = MANY - 1; ept_of(ids[i]) < 0; i--)
		;
	list[0] = ids[i];
	list[1] = ids[MANY - 1];
	other = ids[MANY - 2];
	REQUIRE(i < MANY - 2);
	others[0] = (struct epk_move){ .id = list[0], .ept = EPK_EPT_NONE };
	others[1] = (struct epk_move){ .id = other, .ept = ept_of(list[0]) };
	nr_others = taken ? 2 : 1;
	others_error = -1;
	REQUIRE_EQ(epk_gather(2, list), 0);
	REQUIRE_EQ(others_error, 0);
	REQUIRE(are_together(2, list));
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

static void those_that_others_move(void **state)
{
	(void)state;
	if (!backend_is("epk"))
		skip();
	while_others_move(false);
	while_others_move(true);
}

static void what_is_wrong(void **state)
{
	int list[] = { 0, 0, 0 }, places[NR], i, n;

	(void)state;
	set_up();
	for (i = 0; i < NR; i++)
		places[i] = ept_of(ids[i]);
	list[0] = ids[0], list[1] = ids[100], list[2] = ids[0];
	REQUIRE_EQ(epk_gather(0, list), -EINVAL);
	REQUIRE_EQ(epk_gather(-1, list), -EINVAL);
	REQUIRE_EQ(epk_gather(2, NULL), -EINVAL);
	REQUIRE_EQ(epk_gather(3, list), -EINVAL);
	list[2] = -1;
	REQUIRE_EQ(epk_gather(3, list), -EINVAL);
	list[2] = ids[1];
	free_domain(list[2]);
	REQUIRE_EQ(epk_gather(3, list), -ENOENT);
	n = backend_is("epk") ? keys() + 1 : EPK_MAX_HELD + 1;
	REQUIRE_EQ(epk_gather(n, ids + 2), -ENOSPC);
	REQUIRE(strstr(epk_strerror(-ENOSPC), "together"));
	for (i = 2; i < NR; i++)
		REQUIRE_EQ(ept_of(ids[i]), places[i]);
	/* Nothing is marked any more. */
	REQUIRE_EQ(epk_gather(2, list), 0);
	ids[1] = ids[NR - 1];
	free_all_domains(NR - 1, ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(those_far_apart),
		cmocka_unit_test(those_held),
		cmocka_unit_test(those_that_find_no_room),
		cmocka_unit_test(those_beside_common_ones),
		cmocka_unit_test(those_that_others_move),
		cmocka_unit_test(what_is_wrong),
	};

	need_backend();
	skip_if(!backend_holds_several(), "holds one domain at a time");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
