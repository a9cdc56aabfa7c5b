/* SPDX-License-Identifier: MIT */
/* What glibc's tests have from glibc's support/ and want here: a check says what is not as it should be. */
#ifndef PKEYS_GLIBC_H
#define PKEYS_GLIBC_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int checks, wrong, test_verbose;

#define TEST_VERIFY(condition) check((condition) != 0, 1, __LINE__, #condition)
#define TEST_COMPARE(left, right) check((long)(left), (long)(right), __LINE__, #left " is " #right)
#define FAIL_EXIT1(...) (printf(__VA_ARGS__), exit(1))
#define FAIL_UNSUPPORTED(...) (printf(__VA_ARGS__), exit(77))
#define OR_DIE(condition) ((condition) ? (void)0 : (perror(#condition), exit(1)))

static void check(long left, long right, int line, const char *text)
{
	checks++;
	if (left == right)
		return;
	wrong++;
	printf("line %d: %ld, not %ld: %s\n", line, left, right, text);
}

static inline void *xmalloc(size_t size)
{
	void *got = malloc(size);

	OR_DIE(got);
	return got;
}

static inline void *xcalloc(size_t nr, size_t size)
{
	void *got = calloc(nr, size);

	OR_DIE(got);
	return got;
}

static inline void *xmmap(void *addr, size_t len, int prot, int flags, int fd)
{
	void *got = mmap(addr, len, prot, flags, fd, 0);

	OR_DIE(got != MAP_FAILED);
	return got;
}

static inline void xmunmap(void *addr, size_t len)
{
	OR_DIE(!munmap(addr, len));
}

static inline void xsigaction(int sig, const struct sigaction *action, struct sigaction *old)
{
	OR_DIE(!sigaction(sig, action, old));
}

static inline void xsignal(int sig, void (*handler)(int))
{
	OR_DIE(signal(sig, handler) != SIG_ERR);
}

static inline void xraise(int sig)
{
	OR_DIE(!raise(sig));
}

static inline long xsysconf(int name)
{
	return sysconf(name);
}

static inline pthread_t xpthread_create(pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	pthread_t thread;

	OR_DIE(!pthread_create(&thread, attr, run, arg));
	return thread;
}

static inline void *xpthread_join(pthread_t thread)
{
	void *result;

	OR_DIE(!pthread_join(thread, &result));
	return result;
}

static inline void xpthread_barrier_init(pthread_barrier_t *barrier, pthread_barrierattr_t *attr, unsigned int nr)
{
	OR_DIE(!pthread_barrier_init(barrier, attr, nr));
}

static inline int xpthread_barrier_wait(pthread_barrier_t *barrier)
{
	return pthread_barrier_wait(barrier);
}

/* The last that the test does: who still waits there waits for ever. */
static inline void xpthread_barrier_destroy(pthread_barrier_t *barrier)
{
	printf("%d checks, %d wrong\n", checks, wrong);
	fflush(stdout);
	OR_DIE(!pthread_barrier_destroy(barrier));
}

static int do_test(void);

int main(void)
{
	int ret = do_test();

	return ret ? ret : wrong != 0;
}

#endif /* PKEYS_GLIBC_H */
