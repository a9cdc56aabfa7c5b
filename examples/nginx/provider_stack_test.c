// SPDX-License-Identifier: MIT
/*
 * Stacks with nothing below that would be a fault: a thread's that its program has given it, a signal
 * handler's, a coroutine's.  A record's key is used there only where it is known that the stack suffices.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "provider_derive.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

#define STACK_ROOM	(96 * 1024)
#define FILLED		0x5a

static char *stack_below;
static EVP_CIPHER_CTX *sealing;
static int sealed, seal_reason;
static volatile bool on_its_stack;

static EVP_CIPHER_CTX *new_context(void)
{
	EVP_CIPHER *cipher = fetch(with_epk, "AES-256-GCM");
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const uint8_t key[32] = { 1 };

	require_ossl(EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL));
	EVP_CIPHER_free(cipher);
	return ctx;
}

static void seal_record(void)
{
	uint8_t bytes[64] = { 0 }, iv[12] = { 0 };
	int len;

	ERR_clear_error();
	sealed = EVP_EncryptInit_ex2(sealing, NULL, NULL, iv, NULL) > 0 &&
		 EVP_EncryptUpdate(sealing, bytes, &len, bytes, sizeof(bytes)) > 0;
	seal_reason = ERR_GET_REASON(ERR_peek_error());
	ERR_clear_error();
}

static void *seal_in_thread(void *arg)
{
	(void)arg;
	seal_record();
	return NULL;
}

static void on_seal_signal(int sig)
{
	char here;

	(void)sig;
	on_its_stack = (size_t)(&here - (char *)stack_below) < STACK_ROOM;
	seal_record();
}

/* Of a stack of a thread that has nothing below which would be a fault. */
static bool seals_in_thread(char *mem, size_t size)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	REQUIRE_EQ(pthread_attr_setstack(&attr, mem + STACK_ROOM - size, size), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, seal_in_thread, NULL), 0);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	return sealed;
}

static bool seals_in_handler(char *mem, size_t size)
{
	const stack_t stack = { .ss_sp = mem + STACK_ROOM - size, .ss_size = size };
	const stack_t none = { .ss_flags = SS_DISABLE };
	struct sigaction action = { .sa_handler = on_seal_signal, .sa_flags = SA_ONSTACK };

	REQUIRE_EQ(sigaltstack(&stack, NULL), 0);
	REQUIRE_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	on_its_stack = false;
	pthread_kill(pthread_self(), SIGUSR1);
	REQUIRE(on_its_stack);
	REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	return sealed;
}

static void in_coroutine(void (*fn)(void), char *mem, size_t size)
{
	static ucontext_t here, there;

	REQUIRE_EQ(getcontext(&there), 0);
	there.uc_stack.ss_sp = mem + STACK_ROOM - size;
	there.uc_stack.ss_size = size;
	there.uc_link = &here;
	makecontext(&there, fn, 0);
	REQUIRE_EQ(swapcontext(&here, &there), 0);
}

static bool seals_in_coroutine(char *mem, size_t size)
{
	in_coroutine(seal_record, mem, size);
	return sealed;
}

/* Whatever its size, it is an error or sealed, and what lies below is as it was. */
static unsigned int refused_below(bool (*seals)(char *, size_t), size_t size)
{
	unsigned int refused = 0;
	size_t i;

	for (; size < STACK_ROOM; size += 2048) {
		memset(stack_below, FILLED, STACK_ROOM);
		if (!seals(stack_below, size)) {
			REQUIRE_EQ(seal_reason, EPK_R_STACK);
			refused++;
		}
		for (i = 0; i < STACK_ROOM - size; i++)
			REQUIRE_EQ(stack_below[i], FILLED);
	}
	REQUIRE(sealed == (seals != seals_in_coroutine));
	return refused;
}

/* Nobody's memory is written, and records go on where the stack is known to suffice. */
static void stacks_that_end_before_are_refused(void **state)
{
	(void)state;
	stack_below = mmap(NULL, STACK_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);
	REQUIRE(stack_below != MAP_FAILED);
	sealing = new_context();
	seal_record();
	REQUIRE(sealed);
	/* A frame can be so small that the least stack of a thread suffices. */
	refused_below(seals_in_thread, PTHREAD_STACK_MIN);
	REQUIRE(refused_below(seals_in_handler, sysconf(_SC_MINSIGSTKSZ) + 6 * 1024) > 0);
	refused_below(seals_in_coroutine, 16 * 1024);
	seal_record();
	REQUIRE(sealed);
	EVP_CIPHER_CTX_free(sealing);
	munmap(stack_below, STACK_ROOM);
}

static pid_t pid;

static void fork_here(void)
{
	pid = fork();
}

#define FORK_STACK	(32 * 1024)

/* Nothing below was written to; K is lost, which is said; and what needs none works. */
static bool has_no_key(void)
{
	uint8_t iv[IV_BYTES];
	const char *why = "";
	bool right = true;
	size_t i;

	for (i = 0; i < STACK_ROOM - FORK_STACK; i++)
		right &= stack_below[i] == FILLED;
	ERR_clear_error();
	right &= derive_iv(iv) <= 0 &&
		 ERR_GET_REASON(ERR_peek_error_data(&why, NULL)) == EPK_R_NO_KEY &&
		 strstr(why, "the stack is too small or not known");
	EVP_CIPHER_CTX_free(sealing);
	sealing = new_context();
	seal_record();
	return right && sealed;
}

/* K is computed with when a child gets it, and so the child of a coroutine gets none. */
static void child_of_coroutine_has_no_key(void **state)
{
	uint8_t before[IV_BYTES], after[IV_BYTES];
	int status;

	(void)state;
	stack_below = mmap(NULL, STACK_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);
	REQUIRE(stack_below != MAP_FAILED);
	memset(stack_below, FILLED, STACK_ROOM);
	sealing = new_context();
	require_ossl(derive_iv(before));
	in_coroutine(fork_here, stack_below, FORK_STACK);
	REQUIRE(pid >= 0);
	if (!pid)
		_exit(!has_no_key());
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	/* Its parent has it as ever, and so have children of who is on a stack that is known. */
	require_ossl(derive_iv(after));
	REQUIRE_MEM_EQ(before, after, IV_BYTES);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		_exit(derive_iv(after) <= 0 || memcmp(before, after, IV_BYTES));
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	EVP_CIPHER_CTX_free(sealing);
	munmap(stack_below, STACK_ROOM);
}

/* As in a chroot without /proc: where this stack is, which no thread has asked for yet. */
static void first_thread_needs_no_files(void **state)
{
	struct rlimit before, none;

	(void)state;
	REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	REQUIRE(open("/proc/self/maps", O_RDONLY) < 0);
	seal_record();
	REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	REQUIRE(sealed);
	EVP_CIPHER_CTX_free(sealing);
}

static void *start(void *arg)
{
	with_epk = make_libctx(1);
	plain = make_libctx(0);
	sealing = new_context();
	return arg;
}

int main(void)
{
	pthread_t thread;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_thread_needs_no_files),
		cmocka_unit_test(stacks_that_end_before_are_refused),
		cmocka_unit_test(child_of_coroutine_has_no_key),
	};

	if (pthread_create(&thread, NULL, start, NULL) || pthread_join(thread, NULL))
		return 1;
	return cmocka_run_group_tests_name("provider_stack", tests, NULL, NULL);
}
