// SPDX-License-Identifier: MIT
/* What all threads may do with a domain that they do not hold. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>

#include "protect_unit.h"
#include "pkru.h"
#include "state_page.h"

#define MANY	40

static int seen;

static void look_in_handler(int sig)
{
	(void)sig;
	seen = may(mem);
}

static int handler_may(void)
{
	signal(SIGUSR1, look_in_handler);
	raise(SIGUSR1);
	return seen;
}

static void everybody_may_what_is_said(void **state)
{
	static const int prots[] = { PROT_READ, RW, PROT_READ, PROT_NONE, RW, PROT_NONE, PROT_READ, PROT_NONE };
	size_t i;

	(void)state;
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	for (i = 0; i < sizeof(prots) / sizeof(*prots); i++) {
		REQUIRE_EQ(epk_protect(id, prots[i]), 0);
		REQUIRE_EQ(may(mem), expected(prots[i]));
		REQUIRE_EQ(may(mem + PAGE), expected(prots[i]));
		REQUIRE_EQ(new_thread_may(mem), expected(prots[i]));
		REQUIRE_EQ(handler_may(), expected(prots[i]));
		REQUIRE_EQ(may(other_mem), expected(PROT_NONE));
		REQUIRE_EQ(epk_held_prot(id), 0);
		REQUIRE_EQ(epk_held(NULL, 0), 0);
		REQUIRE_EQ(epk_may_access(mem, 1, PROT_READ), prots[i] ? 0 : -EACCES);
		REQUIRE_EQ(epk_may_access(mem, 1, RW), prots[i] & PROT_WRITE ? 0 : -EACCES);
	}
	REQUIRE_EQ(epk_protect(id, PROT_WRITE), 0);
	REQUIRE_EQ(may(mem), RW);
}

/* Who holds it has what it has begun, during and after any change. */
static void holders_have_what_they_begun(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(domain_end(id), -EACCES);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(domain_begin(id, PROT_READ), 0);
	REQUIRE_EQ(domain_begin(id, PROT_READ), -EALREADY);
	REQUIRE_EQ(epk_held_prot(id), PROT_READ);
	if (backend_is_private())
		REQUIRE_EQ(may(mem), PROT_READ);
	REQUIRE_EQ(handler_may(), RW);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(may(mem), expected(PROT_READ));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	REQUIRE_EQ(may(mem), RW);
	if (backend_is_private()) {
		REQUIRE_EQ(new_thread_may(mem), PROT_READ);
		REQUIRE_EQ(handler_may(), PROT_READ);
	}
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	REQUIRE_EQ(domain_end(id), -EACCES);
}

/* A right that was used before it was begun is begun all the same. */
static void begun_after_use(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	REQUIRE_EQ(may(mem), expected(PROT_READ));
	REQUIRE_EQ(domain_begin(other, RW), 0);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(may(other_mem), RW);
	raise(SIGUSR1);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(may(mem), expected(PROT_NONE));
	REQUIRE_EQ(may(other_mem), RW);
	REQUIRE_EQ(domain_end(other), 0);
}

/* Both domains in one instruction: one of them moves if they are in two EPTs. */
static void beside_what_is_held(void **state)
{
	int i;

	(void)state;
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(domain_begin(other, RW), 0);
	for (i = 0; i < 20; i++) {
		const char *from = i & 1 ? mem : other_mem;
		char *to = i & 1 ? other_mem : mem;
		size_t n = 64;

		asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	}
	REQUIRE_EQ(domain_end(other), 0);
	REQUIRE_EQ(may(mem), RW);
	REQUIRE_EQ(may(other_mem), expected(PROT_NONE));
}

static int calls(char *at, bool write_to)
{
	int fds[2], n;

	REQUIRE_EQ(pipe(fds), 0);
	if (write_to)
		REQUIRE_EQ(write(fds[1], "x", 1), 1);
	n = write_to ? read(fds[0], at, 1) : write(fds[1], at, 1);
	n = n == 1 ? 0 : -errno;
	close(fds[0]);
	close(fds[1]);
	return n;
}

static void system_calls(void **state)
{
	(void)state;
	if (!system_calls_count())
		return;
	REQUIRE_EQ(calls(mem, false), -EFAULT);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	REQUIRE_EQ(calls(mem, false), 0);
	REQUIRE_EQ(calls(mem, true), -EFAULT);
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(calls(mem, true), 0);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(calls(mem, false), -EFAULT);
	REQUIRE_EQ(calls(mem, true), -EFAULT);
}

/* More than one EPT has keys, or than there are places. */
static void many_domains(void **state)
{
	int ids[MANY], i, k;
	char *pages[MANY];

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++) {
		pages[i] = new_pages(ids[i], 1);
		REQUIRE_EQ(epk_protect(ids[i], RW), 0);
	}
	for (k = 0; k < 2; k++) {
		for (i = 0; i < MANY; i++)
			*(volatile int *)pages[i] += i + 1;
	}
	for (i = 0; i < MANY; i += 3)
		REQUIRE_EQ(epk_protect(ids[i], PROT_NONE), 0);
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(may(pages[i]), expected(i % 3 ? RW : PROT_NONE));
		REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
		REQUIRE_EQ(*(int *)pages[i], 2 * (i + 1));
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	/* The thread has used it, and holds nothing. */
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

static void *touch_all(void *arg)
{
	char **pages = arg;
	int i, k;

	for (k = 0; k < 10; k++) {
		for (i = 0; i < MANY; i++)
			if (may(pages[i]) != RW)
				return "refused";
	}
	return NULL;
}

/* Places change under threads that have common rights to what is there. */
static void threads_and_places(void **state)
{
	int ids[MANY], i;
	char *pages[MANY];
	void *args[] = { pages, pages, pages, pages, pages, pages, pages, pages };

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++) {
		pages[i] = new_pages(ids[i], 1);
		REQUIRE_EQ(epk_protect(ids[i], RW), 0);
	}
	run_threads(touch_all, args, 8);
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

#define OTHERS	15

/* So many at once that there is no place for another, where there is one EPT. */
static void *hold_all(void *arg)
{
	char **pages = arg;
	int i, k;

	for (i = 0; i < OTHERS; i++)
		if (domain_begin(epk_domain_at(pages[i]), RW))
			return "begin";
	for (k = 0; k < 20; k++)
		for (i = 0; i < OTHERS; i++)
			++*(volatile char *)pages[i];
	for (i = 0; i < OTHERS; i++)
		if (domain_end(epk_domain_at(pages[i])))
			return "end";
	return NULL;
}

/* What comes to the place of a domain that was used by a common right is begun as ever, and kept. */
static void the_place_goes_to_another(void **state)
{
	int ids[OTHERS], i;
	char *pages[OTHERS];
	void *arg = pages;

	(void)state;
	signal(SIGUSR1, look_in_handler);
	REQUIRE_EQ(alloc_domains(OTHERS, ids), 0);
	for (i = 0; i < OTHERS; i++)
		pages[i] = new_pages(ids[i], 1);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	REQUIRE_EQ(may(mem), expected(PROT_READ));
	run_threads(hold_all, &arg, 1);
	for (i = 0; i < OTHERS; i++) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		/* No access that faults: it would come to the domain's place by what is held. */
		raise(SIGUSR1);
		REQUIRE_EQ(epk_held_prot(ids[i]), RW);
		REQUIRE_EQ(may(pages[i]), RW);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(free_domains(OTHERS, ids), 0);
}

/* So many levels of calls, each with so many rights, leave room for one more call with @last. */
#define LEVELS	6
#define EACH	49
#define LAST	(EPK_ROOM - LEVELS * EACH - 1)
/* EPK_RIGHTS less EPK_RIGHTS_SPARE of the module. */
#define EPK_ROOM (384 - (EPK_HELD_MAX + EPK_NR_PKEYS))
#define USED	4

static int room_ids[EACH + 2 + USED], level;
static char *room_pages[USED];

static long nothing(void *arg)
{
	(void)arg;
	return 0;
}

static long fill_room(void *arg)
{
	int more = ++level > LEVELS ? LAST : EACH, i;
	long result = -1;

	for (i = 0; i < more - 1; i++)
		if (domain_begin(room_ids[i], RW))
			return -100;
	if (level <= LEVELS) {
		i = epk_call(other, fill_room, arg, &result);
		return i ? i : result;
	}
	for (i = 0; i < USED; i++)
		if (may(room_pages[i]) != RW)
			return -101;
	/* One is left. */
	i = epk_call(other, nothing, NULL, &result);
	if (i || domain_begin(room_ids[EACH], RW) || domain_begin(room_ids[EACH + 1], RW))
		return i ? i : -102;
	return epk_call(other, nothing, NULL, &result) == -EMFILE ? 0 : -103;
}

/* What is used by a common right is no holding where these are counted. */
static void not_counted_as_held(void **state)
{
	const int nr = sizeof(room_ids) / sizeof(*room_ids);
	long result = -1;
	int i;

	(void)state;
	if (!backend_is("epk"))
		return;
	REQUIRE_EQ(alloc_domains(nr, room_ids), 0);
	for (i = 0; i < USED; i++) {
		room_pages[i] = new_pages(room_ids[EACH + 2 + i], 1);
		REQUIRE_EQ(epk_protect(room_ids[EACH + 2 + i], RW), 0);
	}
	level = 0;
	REQUIRE_EQ(epk_call(other, fill_room, NULL, &result), 0);
	REQUIRE_EQ(result, 0);
	REQUIRE_EQ(free_domains(nr, room_ids), 0);
}

/* What comes after it has nothing of it, at the same index neither. */
static void a_new_domain_has_none(void **state)
{
	char *page;
	int i, next;

	(void)state;
	for (i = 0; i < 50; i++) {
		REQUIRE_EQ(alloc_domains(1, &next), 0);
		page = new_pages(next, 1);
		REQUIRE_EQ(may(page), expected(PROT_NONE));
		REQUIRE_EQ(epk_protect(next, RW), 0);
		REQUIRE_EQ(may(page), RW);
		REQUIRE_EQ(free_domains(1, &next), 0);
		REQUIRE_EQ(epk_protect(next, RW), -ENOENT);
	}
}

static long touch_common(void *arg)
{
	(void)arg;
	return may(mem);
}

/* What a call has used by a common right is forgotten, and nothing that is begun later with it. */
static void after_a_call(void **state)
{
	int ids[MANY], i;
	char *pages[MANY];
	long may_then;

	(void)state;
	signal(SIGUSR1, look_in_handler);
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++)
		pages[i] = new_pages(ids[i], 1);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(epk_call(other, touch_common, NULL, &may_then), 0);
		REQUIRE_EQ(may_then, expected(PROT_READ));
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		raise(SIGUSR1);
		REQUIRE_EQ(may(pages[i]), RW);
		REQUIRE_EQ(domain_end(ids[i]), 0);
		REQUIRE_EQ(may(pages[i]), expected(PROT_NONE));
	}
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

static void bad_arguments(void **state)
{
	int freed;

	(void)state;
	REQUIRE_EQ(alloc_domains(1, &freed), 0);
	REQUIRE_EQ(free_domains(1, &freed), 0);
	REQUIRE_EQ(epk_protect(id, PROT_READ), 0);
	errno = 0;
	REQUIRE_EQ(epk_protect(id, PROT_READ | PROT_EXEC), -EINVAL);
	REQUIRE_EQ(epk_protect(id, -1), -EINVAL);
	REQUIRE_EQ(epk_protect(id, 1 << 30), -EINVAL);
	REQUIRE_EQ(epk_protect(id, INT32_MIN), -EINVAL);
	REQUIRE_EQ(epk_protect(0, PROT_READ), -EINVAL);
	REQUIRE_EQ(epk_protect(-1, PROT_READ), -EINVAL);
	REQUIRE_EQ(epk_protect(freed, PROT_READ), -ENOENT);
	REQUIRE_EQ(epk_protect(freed, PROT_NONE), -ENOENT);
	REQUIRE_EQ(errno, 0);
	REQUIRE_EQ(may(mem), expected(PROT_READ));
}

static void child_has_nothing(void)
{
	REQUIRE(epk_protect(id, RW) == -EPERM);
	REQUIRE(may(mem) == PROT_NONE);
}

static void forked(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(may(mem), RW);
	run_in_child(child_has_nothing);
	REQUIRE_EQ(may(mem), RW);
}

static long in_component(void *arg)
{
	*(volatile char *)arg = 'c';
	return 0;
}

static long gives(void *arg)
{
	return epk_protect(id, *(int *)arg);
}

/* Who is confined gives nobody anything, and takes nothing away. */
static void given_in_a_component(int component)
{
	static int rw = RW, none = PROT_NONE;
	bool confined = backend_is_alone();
	long result = 1;

	REQUIRE_EQ(epk_protect(id, PROT_NONE), 0);
	REQUIRE_EQ(epk_gate_call(component, 1, &rw, &result), 0);
	REQUIRE_EQ(result, confined ? -EPERM : 0);
	REQUIRE_EQ(may(mem), confined ? PROT_NONE : RW);
	REQUIRE_EQ(epk_protect(id, RW), 0);
	REQUIRE_EQ(epk_gate_call(component, 1, &none, &result), 0);
	REQUIRE_EQ(result, confined ? -EPERM : 0);
	REQUIRE_EQ(may(mem), confined ? RW : PROT_NONE);
}

/* It trusts nobody, and who is confined changes nothing that others see. */
static void components(void **state)
{
	const struct epk_component_options options = {
		.size = sizeof(options), .flags = EPK_COMPONENT_CONFINED,
	};
	long (*const entries[])(void *) = { in_component, gives };
	int confined;

	(void)state;
	if (!backend_is("epk"))
		return;
	REQUIRE_EQ(alloc_domains(1, &confined), 0);
	REQUIRE_EQ(epk_protect(confined, PROT_READ), 0);
	REQUIRE_EQ(epk_component_create(confined, entries, 1, NULL), -EBUSY);
	REQUIRE_EQ(epk_protect(confined, PROT_NONE), 0);
	free_domains(1, &confined);
	REQUIRE_EQ(alloc_domains(1, &confined), 0);
	/* In the emulator that has EPTs no code can be confined. */
	REQUIRE_EQ(epk_component_create(confined, entries, 2, backend_is_alone() ? &options : NULL), 0);
	REQUIRE_EQ(epk_protect(confined, PROT_READ), -EPERM);
	REQUIRE_EQ(epk_protect(id, RW), 0);
	mem[0] = 'o';
	REQUIRE_EQ(epk_gate_call(confined, 0, mem, NULL), backend_is_alone() ? -EFAULT : 0);
	REQUIRE_EQ(mem[0], backend_is_alone() ? 'o' : 'c');
	given_in_a_component(confined);
	REQUIRE_EQ(free_domains(1, &confined), 0);
}

/* "mpk" and "vmfunc" say so, and nothing has changed. */
static void refused(void **state)
{
	(void)state;
	REQUIRE_EQ(epk_protect(id, PROT_READ), -EOPNOTSUPP);
	REQUIRE_EQ(epk_protect(id, PROT_NONE), -EOPNOTSUPP);
	REQUIRE_EQ(epk_protect(0, PROT_READ), -EINVAL);
	REQUIRE_EQ(may(mem), PROT_NONE);
}

int main(void)
{
	const struct CMUnitTest refusing[] = { WITH_MEMORY(refused) };
	const struct CMUnitTest tests[] = {
		WITH_MEMORY(everybody_may_what_is_said),
		WITH_MEMORY(holders_have_what_they_begun),
		WITH_MEMORY(begun_after_use),
		WITH_MEMORY(beside_what_is_held),
		WITH_MEMORY(system_calls),
		WITH_MEMORY(many_domains),
		WITH_MEMORY(threads_and_places),
		WITH_MEMORY(the_place_goes_to_another),
		WITH_MEMORY(not_counted_as_held),
		WITH_MEMORY(a_new_domain_has_none),
		WITH_MEMORY(after_a_call),
		WITH_MEMORY(bad_arguments),
		WITH_MEMORY(forked),
		WITH_MEMORY(components),
	};

	need_backend();
	if (backend_is("mpk") || backend_is("vmfunc"))
		return cmocka_run_group_tests(refusing, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
