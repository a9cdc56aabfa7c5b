// SPDX-License-Identifier: MIT
/* The library's handler of SIGSEGV beside the program's own.  Each case is a child. */
#define _GNU_SOURCE
#include "unit.h"

static int ids[16];
static char *mem[2];
static volatile int calls;
static struct sigaction before;
static sigjmp_buf back;
static volatile char *volatile nowhere = (char *)8;

/* Two domains of different EPTs, where the backend has such. */
static void set_up(void)
{
	int i;

	REQUIRE(!alloc_domains(16, ids));
	for (i = 0; i < 2; i++) {
		mem[i] = domain_mmap(ids[i * 15], NULL, PAGE, RW, 0);
		REQUIRE(mem[i] != MAP_FAILED);
	}
}

static void use_both(void)
{
	int i;

	REQUIRE(!domain_begin(ids[0], RW));
	REQUIRE(!domain_begin(ids[15], RW));
	for (i = 0; i < 10; i++) {
		mem[0][i] = i;
		mem[1][i] = mem[0][i];
		REQUIRE(mem[1][i] == i);
	}
	REQUIRE(!domain_end(ids[0]));
	REQUIRE(!domain_end(ids[15]));
}

static void own_handler(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	(void)context;
	calls++;
	siglongjmp(back, 1);
}

static void passing_handler(int signo, siginfo_t *info, void *context)
{
	calls++;
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(signo, info, context);
	else
		signal(signo, SIG_DFL);
}

static void install(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	REQUIRE(!sigaction(SIGSEGV, &action, &before));
}

static void own_fault(void)
{
	calls = 0;
	if (!sigsetjmp(back, 1))
		*nowhere = 1;
	REQUIRE(calls == 1);
}

static void installed_before(void)
{
	install(own_handler);
	set_up();
	use_both();
	own_fault();
	use_both();
	own_fault();
}

static void installed_after(void)
{
	set_up();
	install(own_handler);
	own_fault();
	use_both();
	own_fault();
	use_both();
}

static void installed_on_both_sides(void)
{
	install(own_handler);
	set_up();
	install(passing_handler);
	use_both();
	calls = 0;
	if (!sigsetjmp(back, 1))
		*nowhere = 1;
	/* The one that passes it on, and the first. */
	REQUIRE(calls == 2);
	use_both();
}

static void no_handler_at_all(void)
{
	set_up();
	use_both();
	*nowhere = 1;
}

static void sent_by_kill(void)
{
	set_up();
	use_both();
	kill(getpid(), SIGSEGV);
}

static void ignored_when_sent(void)
{
	signal(SIGSEGV, SIG_IGN);
	set_up();
	use_both();
	raise(SIGSEGV);
	raise(SIGSEGV);
	use_both();
}

static void not_wanted(void)
{
	struct epk_options options = {
		.size = sizeof(options), .backend = unit_backend(), .flags = EPK_NO_SIGNAL_HANDLER,
	};
	struct sigaction now;

	REQUIRE(!sigaction(SIGSEGV, NULL, &before));
	REQUIRE(!epk_init(&options));
	set_up();
	REQUIRE(!domain_begin(ids[0], RW) && !domain_begin(ids[15], RW));
	REQUIRE(!sigaction(SIGSEGV, NULL, &now));
	REQUIRE(now.sa_sigaction == before.sa_sigaction);
}

static void unknown_flag(void)
{
	struct epk_options options = { .size = sizeof(options), .flags = 1u << 31 };

	REQUIRE(epk_init(&options) == -EINVAL);
	REQUIRE(epk_handle_fault(SIGSEGV, NULL, NULL) == 0);
}

IN_CHILD(installed_before)
IN_CHILD(installed_after)
IN_CHILD(installed_on_both_sides)
IN_CHILD(ignored_when_sent)
IN_CHILD(not_wanted)
IN_CHILD(unknown_flag)

/* What nobody handles ends the process as it always did. */
static void require_end(void (*body)(void))
{
	int status = status_of_child(body);

	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void test_no_handler_at_all(void **state)
{
	(void)state;
	require_end(no_handler_at_all);
}

static void test_sent_by_kill(void **state)
{
	(void)state;
	require_end(sent_by_kill);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_installed_before),
		cmocka_unit_test(in_child_installed_after),
		cmocka_unit_test(in_child_installed_on_both_sides),
		cmocka_unit_test(in_child_ignored_when_sent),
		cmocka_unit_test(in_child_not_wanted),
		cmocka_unit_test(in_child_unknown_flag),
		cmocka_unit_test(test_no_handler_at_all),
		cmocka_unit_test(test_sent_by_kill),
	};

	need_backend();
	skip_if(!backend_holds_several(), "cannot access several domains at a time");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
