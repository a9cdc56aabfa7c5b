// SPDX-License-Identifier: MIT
/*
 * PKRU that the kernel reads, changes and writes in a system call, while another thread has
 * a key of it revoked; and what a thread has when it comes back to a CPU, and when it becomes
 * one that holds domains.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sys/prctl.h>

#define KEY		1
#define EPT		epk_device_ept(&dev, 1)
#define ROUNDS		3000

static struct epk_device dev;
static volatile int held, given, seen, kept;
static volatile bool stop;

static bool is_open(void)
{
	return !(epk_rdpkru() & 1u << 2 * KEY);
}

/* Without a record, what it opened is closed when it has been away from its CPU. */
static void *goes_away(void *unused)
{
	epk_wrpkru(0);
	usleep(20000);
	CHECK(!is_open());
	return unused;
}

/* A key is opened by hand, perhaps long before; others may have had it revoked just now. */
static void *registers(void *unused)
{
	epk_device_goto(&dev, EPT);
	epk_wrpkru(0);
	CHECK(is_open());
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	CHECK(!is_open());
	CHECK_EQ(dev.identity->ept, EPT);
	/* It has a record, and what it opens now is its own. */
	epk_wrpkru(EPK_PKRU_ALLOW(KEY));
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS), 0);
	CHECK(is_open());
	epk_device_enter(&dev, 0);
	return unused;
}

/* Holds each domain of the odd rounds, while it has the kernel change another key's bits. */
static void *holds(void *unused)
{
	unsigned int rights = 0;
	int round, pkey;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	for (round = 1; !stop; round++) {
		epk_device_goto(&dev, EPT);
		epk_wrpkru(EPK_PKRU_ALLOW(KEY));
		held = round;
		while (given != round && !stop) {
			/* Others than the last time, or nothing is written. */
			rights ^= PKEY_DISABLE_WRITE;
			pkey = pkey_alloc(0, rights);
			CHECK(pkey > KEY && !pkey_free(pkey));
		}
		kept += !stop && is_open();
		epk_device_enter(&dev, 0);
		seen = round;
	}
	return unused;
}

static void alloc_there(int *id)
{
	struct epk_domains arg = {
		.num = 1, .ids = (uintptr_t)id, .flags = EPK_ALLOC_AT(EPT),
	};

	REQUIRE(!ioctl(dev.fd, EPK_IOC_ALLOC, &arg));
	CHECK_EQ(epk_device_entry(&dev, *id).ept, EPT);
}

/*
 * The place of a domain that a thread holds becomes another's.  Between the kernel's RDPKRU and
 * WRPKRU are ten instructions or so: not each run would meet them.
 */
static void revoked(void)
{
	struct timespec since, wait = { 0 };
	unsigned int random = 1;
	pthread_t thread;
	int round, id;

	CHECK_EQ(prctl(PR_SET_TIMERSLACK, 1), 0);
	REQUIRE(!pthread_create(&thread, NULL, holds, NULL));
	clock_gettime(CLOCK_MONOTONIC, &since);
	for (round = 1; race_goes_on(round, ROUNDS, &since); round++) {
		alloc_there(&id);
		while (held != round)
			usleep(20);
		CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		/* Wakes up anywhere in what the other does. */
		random = random * 1103515245 + 12345;
		wait.tv_nsec = 1000 + (random >> 16) % 16384;
		nanosleep(&wait, NULL);
		alloc_there(&id);
		given = round;
		while (seen != round)
			usleep(20);
		CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	}
	stop = true;
	pthread_join(thread, NULL);
	printf("%d rounds, a key was open after %d of them\n", round - 1, kept);
	CHECK_EQ(kept, 0);
}

int main(void)
{
	pthread_t thread;
	int pkey, id;

	epk_device_open_keys(&dev, 1u << KEY);
	for (pkey = KEY + 1; pkey < 16; pkey++)
		CHECK_EQ(pkey_free(pkey), 0);
	alloc_there(&id);
	REQUIRE(!pthread_create(&thread, NULL, goes_away, NULL));
	pthread_join(thread, NULL);
	REQUIRE(!pthread_create(&thread, NULL, registers, NULL));
	pthread_join(thread, NULL);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	revoked();
	return epk_test_result();
}
