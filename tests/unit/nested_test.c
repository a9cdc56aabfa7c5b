// SPDX-License-Identifier: MIT
/* Several domains held at a time.  Under "none" all is open, always. */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/uio.h>

#include "unit.h"

#define NR	40

static int ids[NR];
static char *mem[NR];
static char ignored;

static void expect_pkuerr(int i, bool access)
{
	int pkey;

	if (!backend_protects()) {
		assert_true(access);
		return;
	}
	assert_false(access);
	assert_int_equal(try_signal, SIGSEGV);
	assert_int_equal(try_code, refused_code());
	if (refused_code() != SEGV_PKUERR)
		return;
	assert_int_equal(epk_domain_place(ids[i], NULL, &pkey), 0);
	assert_int_equal(try_pkey, pkey);
}

static void expect_right(int i, int prot)
{
	char byte;

	if (prot & PROT_READ) {
		assert_true(try_read(mem[i], &byte));
		assert_int_equal(byte, i + 1);
	} else {
		expect_pkuerr(i, try_read(mem[i], &ignored));
	}
	if (prot & PROT_WRITE)
		assert_true(try_write(mem[i], i + 1));
	else
		expect_pkuerr(i, try_write(mem[i], i + 1));
}

static int set_up(void **state)
{
	int i;

	(void)state;
	fill_domains(NR, ids, mem, 1);
	/* Under "mpk" the first ones have lost their key: give it back. */
	for (i = 0; i < 8; i++) {
		assert_int_equal(domain_begin(ids[i], RW), 0);
		assert_int_equal(domain_end(ids[i]), 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_all_domains(NR, ids);
	return 0;
}

static void no_right_without_begin(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 8; i++)
		expect_right(i, PROT_NONE);
}

static void read_right_refuses_writes(void **state)
{
	(void)state;
	assert_int_equal(domain_begin(ids[0], PROT_READ), 0);
	expect_right(0, PROT_READ);
	assert_int_equal(domain_end(ids[0]), 0);
	expect_right(0, PROT_NONE);
}

static void write_right(void **state)
{
	(void)state;
	assert_int_equal(domain_begin(ids[0], RW), 0);
	expect_right(0, RW);
	expect_right(1, PROT_NONE);
	assert_int_equal(domain_end(ids[0]), 0);
	expect_right(0, PROT_NONE);
}

static void same_ept_in_any_order(void **state)
{
	(void)state;
	assert_int_equal(domain_begin(ids[0], RW), 0);
	assert_int_equal(domain_begin(ids[1], PROT_READ), 0);
	assert_int_equal(domain_begin(ids[2], RW), 0);
	expect_right(0, RW);
	expect_right(1, PROT_READ);
	expect_right(2, RW);
	assert_int_equal(domain_end(ids[0]), 0);
	expect_right(0, PROT_NONE);
	expect_right(1, PROT_READ);
	expect_right(2, RW);
	assert_int_equal(domain_end(ids[2]), 0);
	expect_right(1, PROT_READ);
	expect_right(2, PROT_NONE);
	assert_int_equal(domain_end(ids[1]), 0);
	expect_right(1, PROT_NONE);
}

/* A failed begin leaves what is held. */
static void failed_begin_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(domain_begin(ids[0], PROT_READ), 0);
	assert_int_equal(domain_begin(ids[0], PROT_READ), -EALREADY);
	assert_int_equal(domain_begin(INT32_MAX, RW), -ENOENT);
	assert_int_equal(domain_begin(ids[1], PROT_EXEC), -EINVAL);
	assert_int_equal(domain_end(ids[1]), -EACCES);
	expect_right(0, PROT_READ);
	expect_right(1, PROT_NONE);
	assert_int_equal(domain_end(ids[0]), 0);
}

static int place(int i)
{
	int ept;

	assert_int_equal(epk_domain_place(ids[i], &ept, NULL), 0);
	return ept;
}

/* Several EPTs make no difference. */
static void nested_across_epts(void **state)
{
	int a = 0, b = NR - 1, c = 1;

	(void)state;
	if (backend_is("epk") && !backend_is_alone())
		assert_int_not_equal(place(a), place(b));
	assert_int_equal(domain_begin(ids[a], RW), 0);
	assert_int_equal(domain_begin(ids[b], PROT_READ), 0);
	expect_right(b, PROT_READ);
	expect_right(a, RW);
	assert_int_equal(domain_begin(ids[c], RW), 0);
	expect_right(a, RW);
	expect_right(c, RW);
	expect_right(b, PROT_READ);
	assert_int_equal(domain_end(ids[c]), 0);
	expect_right(b, PROT_READ);
	expect_right(c, PROT_NONE);
	assert_int_equal(domain_end(ids[b]), 0);
	expect_right(a, RW);
	expect_right(b, PROT_NONE);
	assert_int_equal(domain_end(ids[a]), 0);
	expect_right(a, PROT_NONE);
}

/* Ending an outer one first takes nothing from the inner one. */
static void outer_ends_first(void **state)
{
	int a = 0, b = NR - 1;

	(void)state;
	assert_int_equal(domain_begin(ids[a], RW), 0);
	assert_int_equal(domain_begin(ids[b], RW), 0);
	assert_int_equal(domain_end(ids[a]), 0);
	expect_right(a, PROT_NONE);
	expect_right(b, RW);
	assert_int_equal(domain_end(ids[b]), 0);
	expect_right(a, PROT_NONE);
	expect_right(b, PROT_NONE);
}

/* A new thread has no right, even if its creator holds one. */
static void *without_rights(void *arg)
{
	(void)arg;
	/* What the creator's PKRU brought along goes with the first call. */
	if (domain_begin(ids[3], RW) || domain_end(ids[3]))
		return (void *)1;
	return (void *)(long)(try_read(mem[0], &ignored) || try_write(mem[0], 1));
}

static void other_thread_has_none(void **state)
{
	pthread_t thread;
	void *result;

	(void)state;
	if (backend_is("mprotect"))
		skip();
	assert_int_equal(domain_begin(ids[0], RW), 0);
	assert_int_equal(pthread_create(&thread, NULL, without_rights, NULL), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_int_equal((long)result, !backend_protects());
	expect_right(0, RW);
	assert_int_equal(domain_end(ids[0]), 0);
}

static bool handler_read;

static void read_in_handler(int signo)
{
	(void)signo;
	handler_read = try_read(mem[0], &ignored);
}

static void signal_handler_has_none(void **state)
{
	(void)state;
	if (backend_is("mprotect"))
		skip();
	signal(SIGUSR1, read_in_handler);
	handler_read = true;
	assert_int_equal(domain_begin(ids[0], RW), 0);
	raise(SIGUSR1);
	assert_int_equal(handler_read, !backend_protects());
	expect_right(0, RW);
	assert_int_equal(domain_end(ids[0]), 0);
}

#define APART	16

/* What is held in three EPTs, where there are as many, is each system call's, too: one of it alone, and all. */
static void system_calls(void **state)
{
	static char out[3 * PAGE], in[3 * PAGE];
	int ids[2 * APART + 1], fds[2], i, n;
	struct iovec parts[3];
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = 3 };
	char *mem[3];

	(void)state;
	if (!backend_holds_several() || !backend_protects())
		skip();
	assert_int_equal(alloc_domains(2 * APART + 1, ids), 0);
	for (i = 0; i < 3; i++) {
		mem[i] = new_pages(ids[i * APART], 1);
		parts[i] = (struct iovec) { .iov_base = mem[i], .iov_len = PAGE };
		memset(out + i * PAGE, 'a' + i, PAGE);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	assert_int_equal(send(fds[0], out, sizeof(out), 0), sizeof(out));
	/* What is not held is not written to. */
	assert_int_equal(recvmsg(fds[1], &msg, MSG_PEEK), -1);
	assert_int_equal(errno, EFAULT);
	for (i = 0; i < 3; i++)
		assert_int_equal(domain_begin(ids[i * APART], RW), 0);
	assert_int_equal(recvmsg(fds[1], &msg, 0), sizeof(in));
	assert_int_equal(sendmsg(fds[1], &msg, 0), sizeof(in));
	assert_int_equal(recv(fds[0], in, sizeof(in), 0), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	for (n = 0; n < 9; n++) {
		assert_int_equal(write(fds[0], mem[n % 3], PAGE), PAGE);
		assert_int_equal(read(fds[1], mem[n / 3], PAGE), PAGE);
		assert_int_equal(mem[n / 3][n], mem[n % 3][n]);
	}
	for (i = 0; i < 3; i++)
		assert_int_equal(domain_end(ids[i * APART]), 0);
	/* By now they lie in one EPT, where Bochs's kernel mode reads what is closed: see docs/testbed.md. */
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(free_domains(2 * APART + 1, ids), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(system_calls),
		cmocka_unit_test(no_right_without_begin),
		cmocka_unit_test(read_right_refuses_writes),
		cmocka_unit_test(write_right),
		cmocka_unit_test(same_ept_in_any_order),
		cmocka_unit_test(failed_begin_changes_nothing),
		cmocka_unit_test(nested_across_epts),
		cmocka_unit_test(outer_ends_first),
		cmocka_unit_test(other_thread_has_none),
		cmocka_unit_test(signal_handler_has_none),
	};

	need_backend();
	skip_if(!backend_holds_several(), "cannot access several domains at a time");
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
