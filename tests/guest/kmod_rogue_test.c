// SPDX-License-Identifier: MIT
/*
 * A thread that never registered executes VMFUNC by hand, with every index and
 * with wrong ones: it reaches no domain, keeps neither EPT nor key over a context
 * switch, and no other thread gets to see the EPT that it went to.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MODULE		"/epk/epk.ko"
#define NR_PKEYS	15

static struct epk_device dev;
static volatile uint32_t *secrets[KVM_EPK_MAX_EPTS];
static int keys[KVM_EPK_MAX_EPTS];
static int to_peer[2], to_rogue[2];

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* One domain with a page in each EPT, beside 14 without. */
static void prepare(void)
{
	static int ids[KVM_EPK_MAX_EPTS * NR_PKEYS];
	unsigned int nr_epts, ept, i;

	nr_epts = dev.init.nr_epts;
	CHECK_EQ(nr_epts, KVM_EPK_MAX_EPTS);

	/* Not made yet, except EPT 0 and two that a domain was in. */
	for (ept = 5; ept < nr_epts; ept += 37)
		CHECK_EQ(EPK_TRY(epk_vmfunc(ept)), SIGILL);
	CHECK_EQ(EPK_TRY(epk_vmfunc(0)), 0);

	REQUIRE(epk_device_alloc(&dev, nr_epts * NR_PKEYS, ids) == 0);
	for (i = 0; i < nr_epts * NR_PKEYS; i++) {
		ept = dev.table[EPK_ID_INDEX(ids[i])].ept;
		if (secrets[ept])
			continue;
		secrets[ept] = epk_device_map(&dev, ids[i], 4096);
		REQUIRE(secrets[ept] != MAP_FAILED);
		keys[ept] = dev.table[EPK_ID_INDEX(ids[i])].pkey;
		epk_device_enter(&dev, ids[i]);
		*secrets[ept] = 0x5ec0 + ept;
	}
	epk_device_enter(&dev, 0);
}

/* The signal has to be a protection key's, not that of a missing page. */
static void read_secret(unsigned int ept, int expected)
{
	volatile uint32_t value = 0;

	CHECK_EQ(EPK_TRY(value = *secrets[ept]), expected);
	CHECK_EQ(value, expected ? 0 : 0x5ec0 + ept);
	if (expected)
		CHECK_EQ(epk_try_code, SEGV_PKUERR);
}

/* Read one EPT's secret in another; the end of a time slice means EPT 0. */
static void read_from(unsigned int ept, unsigned int target, uint32_t pkru)
{
	volatile uint32_t value;
	volatile int sig, code;

	do {
		value = 0;
		CHECK_EQ(EPK_TRY(epk_vmfunc(ept)), 0);
		epk_wrpkru(pkru);
		sig = EPK_TRY(value = *secrets[target]);
		code = epk_try_code;
		epk_wrpkru(EPK_PKRU_DENY_ALL);
	} while (dev.identity->ept != ept);

	CHECK_EQ(sig, SIGSEGV);
	CHECK_EQ(code, SEGV_PKUERR);
	CHECK_EQ(value, 0);
}

static void *every_index(void *unused)
{
	unsigned int nr = dev.init.nr_epts, ept, other;

	pin(0);
	for (ept = 0; ept < nr; ept++) {
		read_from(ept, ept, EPK_PKRU_DENY_ALL);
		/* With all keys open, which it should not get at, EPTs still part. */
		read_from(ept, (ept + 1) % nr, 0);
		other = (ept * 7 + 100) % nr;
		if (other != ept)
			read_from(ept, other, 0);
	}
	return unused;
}

/* The contrast: a thread that holds the domain reads it. */
static void control(void)
{
	unsigned int ept;

	for (ept = 0; ept < dev.init.nr_epts; ept++) {
		epk_wrpkru(EPK_PKRU_ALLOW(keys[ept]));
		epk_vmfunc(ept);
		read_secret(ept, 0);
	}
	epk_vmfunc(0);
	epk_wrpkru(EPK_PKRU_DENY_ALL);
}

static void wrong_indices(void)
{
	static const uint32_t wrong[] = {
		512, 513, 1023, 1024, 0x8000, 0x10000, 0x10001, 0x7fffffff, 0x80000000, 0xffffffff,
	};
	volatile unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		CHECK_EQ(EPK_TRY(epk_vmfunc(wrong[i])), SIGILL);
		CHECK_EQ(EPK_TRY(epk_vmfunc_leaf(wrong[i], 0)), SIGILL);
	}
	CHECK_EQ(EPK_TRY(epk_vmfunc_leaf(1, 0)), SIGILL);
	CHECK_EQ(EPK_TRY(epk_vmfunc_leaf(63, 0)), SIGILL);
	CHECK_EQ(EPK_TRY(epk_vmfunc_leaf(64, 0)), SIGILL);
	CHECK_EQ(dev.identity->ept, 0);
}

static void hand_over(int to, int from)
{
	char c = 0;

	CHECK_EQ(write(to, &c, 1), 1);
	CHECK_EQ(read(from, &c, 1), 1);
}

/* Goes to sleep in another EPT, again and again; ends there. */
static void *sleeper(void *unused)
{
	unsigned int i;

	pin(0);
	for (i = 1; i <= 100; i++) {
		CHECK_EQ(EPK_TRY(epk_vmfunc(i)), 0);
		hand_over(to_peer[1], to_rogue[0]);
		CHECK_EQ(dev.identity->ept, 0);
	}
	epk_vmfunc(i);
	return unused;
}

static void peer(void)
{
	unsigned int i;
	char c;

	for (i = 0; i < 100; i++) {
		CHECK_EQ(read(to_peer[0], &c, 1), 1);
		CHECK_EQ(dev.identity->ept, 0);
		CHECK_EQ(write(to_rogue[1], &c, 1), 1);
	}
}

/* Opens the key of a domain in EPT 0 by hand, and sleeps until another has the place. */
struct opener {
	pthread_t thread;
	int to[2], from[2];
	int pkey;
	volatile uint32_t *target;
	uint32_t got, pkru;
	int sig;
};

static volatile int by_signal;

static void restore(int sig)
{
	(void)sig;
	by_signal++;
}

static void *open_by_hand(void *arg)
{
	struct opener *o = arg;
	char c = 0;

	CHECK_EQ(write(o->from[1], &c, 1), 1);
	CHECK_EQ(read(o->to[0], &c, 1), 1);
	epk_wrpkru(EPK_PKRU_ALLOW(o->pkey));
	CHECK_EQ(write(o->from[1], &c, 1), 1);
	CHECK_EQ(read(o->to[0], &c, 1), 1);
	o->pkru = epk_rdpkru();
	o->sig = EPK_TRY(o->got = *o->target);
	return NULL;
}

static void opener_start(struct opener *o)
{
	char c;

	REQUIRE(pipe(o->to) == 0 && pipe(o->from) == 0);
	REQUIRE(pthread_create(&o->thread, NULL, open_by_hand, o) == 0);
	CHECK_EQ(read(o->from[0], &c, 1), 1);
}

/* @o was born before the context came into use, or after. */
static void opener_run(struct opener *o)
{
	volatile uint32_t *p;
	struct epk_entry was;
	struct epk_move list[2];
	int ids[2];
	char c = 0;

	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	CHECK_EQ(epk_device_move(&dev, ids[1], 3), 0);
	was = epk_device_entry(&dev, ids[0]);
	CHECK_EQ(was.ept, 0);
	p = epk_device_map(&dev, ids[1], 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, ids[1]);
	*p = 0x5ec1;
	epk_device_enter(&dev, 0);

	o->pkey = was.pkey;
	o->target = p;
	CHECK_EQ(write(o->to[1], &c, 1), 1);
	CHECK_EQ(read(o->from[0], &c, 1), 1);
	list[0] = (struct epk_move) { .id = ids[0], .ept = 4 };
	list[1] = (struct epk_move) { .id = ids[1], .ept = 0, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
	CHECK_EQ(write(o->to[1], &c, 1), 1);
	pthread_join(o->thread, NULL);
	CHECK_EQ(o->sig, SIGSEGV);
	CHECK_EQ(o->got, 0);
	CHECK_EQ(o->pkru & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
}

/* The thread itself gives the place away, while it runs. */
static void *moves_itself(void *arg)
{
	struct epk_entry was = epk_device_entry(&dev, *(int *)arg);
	struct epk_move list[2] = {
		{ .id = ((int *)arg)[0], .ept = 4 },
		{ .id = ((int *)arg)[1], .ept = was.ept, .pkey = was.pkey },
	};

	epk_wrpkru(EPK_PKRU_ALLOW(was.pkey));
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	return NULL;
}

/* What a frame gives back is open no longer, either. */
static void *after_signal(void *unused)
{
	signal(SIGUSR1, restore);
	do {
		epk_wrpkru(0);
		raise(SIGUSR1);
	} while (!by_signal);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL, EPK_PKRU_DENY_ALL);
	return unused;
}

/* A process that had a context once outlives the module: nothing of it is left there. */
static void reload(void)
{
	int module = open(MODULE, O_RDONLY), pipes[2], status, i;
	char c = 0;
	pid_t pid;

	REQUIRE(module >= 0 && pipe(pipes) == 0);
	pid = fork();
	if (!pid) {
		epk_device_open(&dev);
		munmap((void *)dev.table, dev.init.table_bytes);
		munmap((void *)dev.identity, 4096);
		close(dev.fd);
		if (write(pipes[1], &c, 1) != 1)
			_exit(1);
		raise(SIGSTOP);
		for (i = 0; i < 10; i++)
			sched_yield();
		_exit(0);
	}
	CHECK_EQ(read(pipes[0], &c, 1), 1);
	CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	CHECK_EQ(syscall(SYS_delete_module, "epk", O_NONBLOCK), 0);
	CHECK_EQ(syscall(SYS_finit_module, module, "", 0), 0);
	CHECK_EQ(kill(pid, SIGCONT), 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	close(module);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	struct opener older = { 0 }, younger = { 0 };
	struct epk_stats before, after;
	pthread_t thread;
	int ids[2];

	epk_try_init();
	reload();
	opener_start(&older);
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	opener_start(&younger);
	opener_run(&older);
	opener_run(&younger);
	CHECK_EQ(pthread_create(&thread, NULL, after_signal, NULL), 0);
	pthread_join(thread, NULL);
	REQUIRE(epk_device_alloc(&dev, 2, ids) == 0);
	CHECK_EQ(pthread_create(&thread, NULL, moves_itself, ids), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);

	prepare();
	pin(0);
	CHECK_EQ(pthread_create(&thread, NULL, every_index, NULL), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(dev.identity->ept, 0);
	control();
	wrong_indices();

	REQUIRE(pipe(to_peer) == 0 && pipe(to_rogue) == 0);
	before = epk_device_stats(&dev);
	CHECK_EQ(pthread_create(&thread, NULL, sleeper, NULL), 0);
	peer();
	pthread_join(thread, NULL);
	CHECK_EQ(dev.identity->ept, 0);
	after = epk_device_stats(&dev);
	/* It did go to sleep there. */
	CHECK(after.rescues >= before.rescues + 100);
	return epk_test_result();
}
