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

static void require_pkuerr(int i, bool access)
{
	int pkey;

	if (!backend_protects()) {
		REQUIRE(access);
		return;
	}
	REQUIRE(!access);
	REQUIRE_EQ(try_signal, SIGSEGV);
	REQUIRE_EQ(try_code, refused_code());
	if (refused_code() != SEGV_PKUERR)
		return;
	REQUIRE_EQ(epk_domain_place(ids[i], NULL, &pkey), 0);
	REQUIRE_EQ(try_pkey, pkey);
}

static void require_right(int i, int prot)
{
	char byte;

	if (prot & PROT_READ) {
		REQUIRE(try_read(mem[i], &byte));
		REQUIRE_EQ(byte, i + 1);
	} else {
		require_pkuerr(i, try_read(mem[i], &ignored));
	}
	if (prot & PROT_WRITE)
		REQUIRE(try_write(mem[i], i + 1));
	else
		require_pkuerr(i, try_write(mem[i], i + 1));
}

static int set_up(void **state)
{
	int i;

	(void)state;
	fill_domains(NR, ids, mem, 1);
	/* Under "mpk" the first ones have lost their key: give it back. */
	for (i = 0; i < 8; i++) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		REQUIRE_EQ(domain_end(ids[i]), 0);
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
		require_right(i, PROT_NONE);
}

static void read_right_refuses_writes(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	require_right(0, PROT_READ);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	require_right(0, PROT_NONE);
}

static void write_right(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	require_right(0, RW);
	require_right(1, PROT_NONE);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	require_right(0, PROT_NONE);
}

static void same_ept_in_any_order(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(domain_begin(ids[1], PROT_READ), 0);
	REQUIRE_EQ(domain_begin(ids[2], RW), 0);
	require_right(0, RW);
	require_right(1, PROT_READ);
	require_right(2, RW);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	require_right(0, PROT_NONE);
	require_right(1, PROT_READ);
	require_right(2, RW);
	REQUIRE_EQ(domain_end(ids[2]), 0);
	require_right(1, PROT_READ);
	require_right(2, PROT_NONE);
	REQUIRE_EQ(domain_end(ids[1]), 0);
	require_right(1, PROT_NONE);
}

/* A failed begin leaves what is held. */
static void failed_begin_changes_nothing(void **state)
{
	(void)state;
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), 0);
	REQUIRE_EQ(domain_begin(ids[0], PROT_READ), -EALREADY);
	REQUIRE_EQ(domain_begin(INT32_MAX, RW), -ENOENT);
	REQUIRE_EQ(domain_begin(ids[1], PROT_EXEC), -EINVAL);
	REQUIRE_EQ(domain_end(ids[1]), -EACCES);
	require_right(0, PROT_READ);
	require_right(1, PROT_NONE);
	REQUIRE_EQ(domain_end(ids[0]), 0);
}

static int place(int i)
{
	int ept;

	REQUIRE_EQ(epk_domain_place(ids[i], &ept, NULL), 0);
	return ept;
}

/* Several EPTs make no difference. */
static void nested_across_epts(void **state)
{
	int a = 0, b = NR - 1, c = 1;

	(void)state;
	if (backend_is("epk") && !backend_is_alone())
		REQUIRE_NE(place(a), place(b));
	REQUIRE_EQ(domain_begin(ids[a], RW), 0);
	REQUIRE_EQ(domain_begin(ids[b], PROT_READ), 0);
	require_right(b, PROT_READ);
	require_right(a, RW);
	REQUIRE_EQ(domain_begin(ids[c], RW), 0);
	require_right(a, RW);
	require_right(c, RW);
	require_right(b, PROT_READ);
	REQUIRE_EQ(domain_end(ids[c]), 0);
	require_right(b, PROT_READ);
	require_right(c, PROT_NONE);
	REQUIRE_EQ(domain_end(ids[b]), 0);
	require_right(a, RW);
	require_right(b, PROT_NONE);
	REQUIRE_EQ(domain_end(ids[a]), 0);
	require_right(a, PROT_NONE);
}

/* Ending an outer one first takes nothing from the inner one. */
static void outer_ends_first(void **state)
{
	int a = 0, b = NR - 1;

	(void)state;
	REQUIRE_EQ(domain_begin(ids[a], RW), 0);
	REQUIRE_EQ(domain_begin(ids[b], RW), 0);
	REQUIRE_EQ(domain_end(ids[a]), 0);
	require_right(a, PROT_NONE);
	require_right(b, RW);
	REQUIRE_EQ(domain_end(ids[b]), 0);
	require_right(a, PROT_NONE);
	require_right(b, PROT_NONE);
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
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, without_rights, NULL), 0);
	REQUIRE_EQ(pthread_join(thread, &result), 0);
	REQUIRE_EQ((long)result, !backend_protects());
	require_right(0, RW);
	REQUIRE_EQ(domain_end(ids[0]), 0);
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
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	raise(SIGUSR1);
	REQUIRE_EQ(handler_read, !backend_protects());
	require_right(0, RW);
	REQUIRE_EQ(domain_end(ids[0]), 0);
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
	REQUIRE_EQ(alloc_domains(2 * APART + 1, ids), 0);
	for (i = 0; i < 3; i++) {
		mem[i] = new_pages(ids[i * APART], 1);
		parts[i] = (struct iovec) { .iov_base = mem[i], .iov_len = PAGE };
		memset(out + i * PAGE, 'a' + i, PAGE);
	}
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	REQUIRE_EQ(send(fds[0], out, sizeof(out), 0), sizeof(out));
	/* What is not held is not written to. */
	REQUIRE_EQ(recvmsg(fds[1], &msg, MSG_PEEK), -1);
	REQUIRE_EQ(errno, EFAULT);
	for (i = 0; i < 3; i++)
		REQUIRE_EQ(domain_begin(ids[i * APART], RW), 0);
	REQUIRE_EQ(recvmsg(fds[1], &msg, 0), sizeof(in));
	REQUIRE_EQ(sendmsg(fds[1], &msg, 0), sizeof(in));
	REQUIRE_EQ(recv(fds[0], in, sizeof(in), 0), sizeof(in));
	REQUIRE_MEM_EQ(in, out, sizeof(in));
	for (n = 0; n < 9; n++) {
		REQUIRE_EQ(write(fds[0], mem[n % 3], PAGE), PAGE);
		REQUIRE_EQ(read(fds[1], mem[n / 3], PAGE), PAGE);
		REQUIRE_EQ(mem[n / 3][n], mem[n % 3][n]);
	}
	for (i = 0; i < 3; i++)
		REQUIRE_EQ(domain_end(ids[i * APART]), 0);
	/* By now they lie in one EPT, where Bochs's kernel mode reads what is closed: see docs/testbed.md. */
	close(fds[0]);
	close(fds[1]);
	REQUIRE_EQ(free_domains(2 * APART + 1, ids), 0);
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
