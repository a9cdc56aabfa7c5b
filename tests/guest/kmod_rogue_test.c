// SPDX-License-Identifier: MIT
/*
 * A thread that never registered executes VMFUNC by hand, with every index and
 * with wrong ones: it reaches no domain, keeps no EPT over a context switch,
 * and no other thread gets to see the EPT that it went to.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>

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

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	nr_epts = dev.init.nr_epts;
	CHECK_EQ(nr_epts, KVM_EPK_MAX_EPTS);

	/* Not made yet, except EPT 0. */
	for (ept = 1; ept < nr_epts; ept += 37)
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

int main(void)
{
	struct epk_stats before, after;
	pthread_t thread;

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
