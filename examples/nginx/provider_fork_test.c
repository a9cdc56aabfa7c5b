// SPDX-License-Identifier: MIT
/* K in forked children: the parent's, or none at all, and nowhere else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "provider/secrets.h"
#include "provider_derive.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

/* ---- what happens in the middle of the provider's calls */

static enum {
	NOTHING,
	FORK_AS_DRAWN,		/* by another thread, before K is drawn */
	NO_PIPE,
	BROKEN_PIPE,		/* one bit */
	STDIO_IS_CLOSED,
	SIGNAL_AS_WRITTEN,	/* whose handler forks while K is in the pipe */
} happens;

/* K's calls, by how long they are: with its check, or without one. */
static bool is_key(size_t len)
{
	return len == 32 || len == 48;
}

#define REAL(fn)									\
	static __typeof__(&fn) real;							\
											\
	if (!real)									\
		real = (__typeof__(&fn))dlsym(RTLD_NEXT, #fn)

#define EXPORT	__attribute__((visibility("default")))

static void *fork_twice(void *arg);

EXPORT ssize_t getrandom(void *to, size_t len, unsigned int flags)
{
	pthread_t thread;

	REAL(getrandom);
	if (happens == FORK_AS_DRAWN && len == 32) {
		happens = NOTHING;
		pthread_create(&thread, NULL, fork_twice, NULL);
		pthread_join(thread, NULL);
	}
	return real(to, len, flags);
}

EXPORT int pipe2(int fds[2], int flags)
{
	REAL(pipe2);
	if (happens == STDIO_IS_CLOSED) {
		close(0);
		close(1);
	}
	if (happens != NO_PIPE)
		return real(fds, flags);
	errno = ENFILE;
	return -1;
}

static int written_to = -1;

EXPORT ssize_t write(int fd, const void *bytes, size_t len)
{
	ssize_t ret;

	REAL(write);
	ret = real(fd, bytes, len);
	if (is_key(len))
		written_to = fd;
	if (happens == SIGNAL_AS_WRITTEN && is_key(len)) {
		happens = NOTHING;
		pthread_kill(pthread_self(), SIGUSR1);
	}
	return ret;
}

EXPORT ssize_t read(int fd, void *bytes, size_t len)
{
	ssize_t ret;

	REAL(read);
	ret = real(fd, bytes, len);
	if (happens == BROKEN_PIPE && is_key(len) && ret > 0)
		*(uint8_t *)bytes ^= 1;
	return ret;
}

/* ---- */

/* What children tell of themselves. */
static struct answer {
	bool there;
	int derived, reason;
	uint8_t iv[IV_BYTES];
	char why[256], said[256];
	unsigned int pipes;
} *answers;

static void answer(struct answer *a)
{
	const char *data = "";

	ERR_clear_error();
	a->derived = derive_iv(a->iv);
	a->reason = ERR_GET_REASON(ERR_peek_last_error());
	ERR_peek_last_error_data(&data, NULL);
	snprintf(a->why, sizeof(a->why), "%s", data);
	a->there = true;
}

/* Forks with its standard error in a pipe. */
static void fork_for(struct answer *a, void (*child)(struct answer *a))
{
	int errors[2], status, kept = dup(2);
	pid_t pid;

	memset(a, 0, sizeof(*a));
	REQUIRE_EQ(pipe(errors), 0);
	dup2(errors[1], 2);
	pid = fork();
	if (!pid) {
		child(a);
		_exit(0);
	}
	dup2(kept, 2);
	close(kept);
	close(errors[1]);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	REQUIRE(read(errors[0], a->said, sizeof(a->said) - 1) >= 0);
	close(errors[0]);
	REQUIRE(a->there);
}

static void require_has_key(const struct answer *a)
{
	uint8_t iv[IV_BYTES];

	require_ossl(derive_iv(iv));
	require_ossl(a->derived);
	REQUIRE_MEM_EQ(a->iv, iv, IV_BYTES);
	REQUIRE_STR_EQ(a->said, "");
}

/* Said once, and why. */
static void require_has_none(const struct answer *a, const char *why)
{
	REQUIRE(a->derived <= 0);
	REQUIRE_EQ(a->reason, EPK_R_NO_KEY);
	REQUIRE(strstr(a->why, why));
	REQUIRE(strstr(a->said, why));
	REQUIRE_EQ(strchr(a->said, '\n'), a->said + strlen(a->said) - 1);
}

/* Before there is K there is none to hand on: such a child draws its own. */
static void load_and_answer(struct answer *a)
{
	with_epk = make_libctx(1);
	answer(a);
}

static void *fork_twice(void *arg)
{
	fork_for(&answers[0], load_and_answer);
	fork_for(&answers[1], load_and_answer);
	return arg;
}

static void key_of_zeros_is_nobodys(void **state)
{
	(void)state;
	REQUIRE(answers[0].there && answers[1].there);
	require_ossl(answers[0].derived);
	require_ossl(answers[1].derived);
	REQUIRE_MEM_NE(answers[0].iv, answers[1].iv, IV_BYTES);
}

static void child_has_the_key(void **state)
{
	(void)state;
	fork_for(&answers[0], answer);
	require_has_key(&answers[0]);
}

/* In a library context of its own, too: it has no other K. */
static void answer_and_load(struct answer *a)
{
	answer(a);
	with_epk = OSSL_LIB_CTX_new();
	if (try_providers(with_epk, "") > 0 && OSSL_PROVIDER_available(with_epk, EPK_NAME))
		a->derived = 1;
}

static void fork_for_grandchild(struct answer *a)
{
	happens = NOTHING;
	fork_for(a + 1, answer);
	answer(a);
}

static void child_without_a_pipe_has_none(void **state)
{
	(void)state;
	happens = NO_PIPE;
	fork_for(&answers[0], answer_and_load);
	require_has_none(&answers[0], "pipe2: too many files are open in the system");
	fork_for(&answers[0], fork_for_grandchild);
	happens = NOTHING;
	require_has_none(&answers[0], "pipe2: too many files are open in the system");
	REQUIRE(answers[1].derived <= 0);
	REQUIRE_STR_EQ(answers[1].said, "");
}

static void child_with_another_key_has_none(void **state)
{
	(void)state;
	happens = BROKEN_PIPE;
	fork_for(&answers[0], answer_and_load);
	happens = NOTHING;
	require_has_none(&answers[0], "read: not what was written");
	fork_for(&answers[0], answer);
	require_has_key(&answers[0]);
}

/* Somebody may read or write these. */
static void standard_descriptors_are_left_alone(void **state)
{
	int in = dup(0), out = dup(1);

	(void)state;
	fflush(stdout);
	written_to = -1;
	happens = STDIO_IS_CLOSED;
	fork_for(&answers[0], answer);
	happens = NOTHING;
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	require_has_key(&answers[0]);
	REQUIRE(written_to > 2);
}

static unsigned int count_pipes(void)
{
	unsigned int n = 0;
	struct stat st;
	int fd;

	for (fd = 0; fd < 100; fd++)
		n += !fstat(fd, &st) && S_ISFIFO(st.st_mode);
	return n;
}

static volatile sig_atomic_t nr_signals;

static void fork_in_handler(int nr)
{
	int status;
	pid_t pid = fork();

	(void)nr;
	nr_signals++;
	if (!pid) {
		answers[2].pipes = count_pipes();
		answers[2].there = true;
		_exit(0);
	}
	waitpid(pid, &status, 0);
}

static void handler_does_not_fork_with_the_pipe(void **state)
{
	unsigned int before;
	sigset_t mask;

	(void)state;
	memset(&answers[2], 0, sizeof(answers[2]));
	signal(SIGUSR1, fork_in_handler);
	/* That of standard error is there as well. */
	before = count_pipes() + 2;
	alarm(20);
	happens = SIGNAL_AS_WRITTEN;
	fork_for(&answers[0], answer);
	happens = NOTHING;
	alarm(0);
	REQUIRE_EQ(nr_signals, 1);
	REQUIRE(answers[2].there);
	REQUIRE(answers[2].pipes <= before + 1);
	require_has_key(&answers[0]);
	/* And it ends. */
	REQUIRE_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
	REQUIRE_EQ(sigismember(&mask, SIGUSR1), 0);
}

static int setup(void **state)
{
	(void)state;
	answers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (answers == MAP_FAILED)
		return 1;
	plain = make_libctx(0);
	happens = FORK_AS_DRAWN;
	with_epk = make_libctx(1);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_of_zeros_is_nobodys),
		cmocka_unit_test(child_has_the_key),
		cmocka_unit_test(child_without_a_pipe_has_none),
		cmocka_unit_test(child_with_another_key_has_none),
		cmocka_unit_test(standard_descriptors_are_left_alone),
		cmocka_unit_test(handler_does_not_fork_with_the_pipe),
	};

	return cmocka_run_group_tests_name("provider_fork", tests, setup, NULL);
}
