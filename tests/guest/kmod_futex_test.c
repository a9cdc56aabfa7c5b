// SPDX-License-Identifier: MIT
/*
 * Futexes in domains of another EPT.  The kernel writes them with page faults off, and when it
 * fails asks for the page and tries again: where it may never succeed, it has to be told so.  A
 * kernel that is not is in a loop that no signal ends, and this test times out.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sys/syscall.h>

#include <linux/futex.h>

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2	13
#endif

static struct epk_device dev;
static int ids[30];
/* One key in two EPTs, and one more key in the first. */
static volatile uint32_t *low, *high, *other;

static long futex(volatile uint32_t *word, int op, uint32_t val, volatile uint32_t *word2,
		  uint32_t val3)
{
	/* A timeout, or how many to requeue. */
	long ret = syscall(SYS_futex, word, op, val, word2 ? 1ul : 0, word2, val3);

	return ret < 0 ? -errno : ret;
}

static long pi(volatile uint32_t *word, int op)
{
	return futex(word, op, 0, NULL, 0);
}

static const int pi_ops[] = {
	FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI,
	FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, FUTEX_LOCK_PI2 | FUTEX_PRIVATE_FLAG,
	FUTEX_TRYLOCK_PI | FUTEX_PRIVATE_FLAG, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG,
};

/* @at is out of reach for who holds @held. */
static void out_of_reach(volatile uint32_t *at, int held)
{
	int wake = FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0);
	uint32_t word = 0;
	unsigned int i;

	for (i = 0; i < sizeof(pi_ops) / sizeof(*pi_ops); i++) {
		epk_device_enter(&dev, held);
		CHECK_EQ(pi(at, pi_ops[i]), -EFAULT);
	}
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, at, wake), -EFAULT);
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP, 1, at, wake), -EFAULT);
	CHECK_EQ(futex(at, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL, 0), -EFAULT);
	CHECK_EQ(futex(at, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, &word, 0), -EFAULT);
	CHECK_EQ(futex(at, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, &word, 0), -EFAULT);
	/* With nobody to wake or to requeue, the second word need not be touched. */
	futex(&word, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, at, 0);
	futex(&word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, at, 0);
	epk_device_enter(&dev, 0);
}

/* Where it is held and the thread is there, a futex works as in ordinary memory. */
static void within_reach(void)
{
	epk_device_enter(&dev, ids[15]);
	*high = 0;
	CHECK_EQ(pi(high, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG), 0);
	CHECK_EQ(*high & FUTEX_TID_MASK, syscall(SYS_gettid));
	CHECK_EQ(pi(high, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG), 0);
	CHECK_EQ(*high, 0);
	CHECK_EQ(futex(high, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, high,
		       FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)), 0);
	CHECK_EQ(*high, 7);
	epk_device_enter(&dev, 0);
}

/* One that ends leaves a list of the locks that it has, and the kernel marks each. */
static struct robust_list_head robust;

static void *ends(void *at)
{
	volatile uint32_t *word = at;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	/* The entry itself is ordinary memory; its lock is not. */
	robust.list.next = &robust.list;
	robust.futex_offset = (char *)word - (char *)&robust.list;
	robust.list_op_pending = &robust.list;
	CHECK_EQ(syscall(SYS_set_robust_list, &robust, sizeof(robust)), 0);
	epk_device_enter(&dev, ids[15]);
	syscall(SYS_exit, 0);
	return NULL;
}

static void robust_lists(volatile uint32_t *at)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, ends, (void *)at), 0);
	/* Its end is told by another futex of the same kernel. */
	pthread_join(thread, NULL);
}

int main(void)
{
	epk_device_open(&dev);
	REQUIRE(epk_device_alloc(&dev, 30, ids) == 0);
	REQUIRE(epk_device_entry(&dev, ids[0]).pkey == epk_device_entry(&dev, ids[15]).pkey);
	low = epk_device_map(&dev, ids[0], 4096);
	other = epk_device_map(&dev, ids[1], 4096);
	high = epk_device_map(&dev, ids[15], 4096);
	REQUIRE(low != MAP_FAILED && high != MAP_FAILED && other != MAP_FAILED);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	CHECK_EQ(epk_device_populate(&dev, low, 4096), 0);
	CHECK_EQ(epk_device_populate(&dev, high, 4096), 0);

	within_reach();
	out_of_reach(low, ids[15]);
	/* Not there yet, the other way round, evicted. */
	out_of_reach(other, ids[15]);
	out_of_reach(high, ids[0]);
	CHECK_EQ(epk_device_move(&dev, ids[0], EPK_EPT_NONE), 0);
	out_of_reach(low, ids[15]);
	CHECK_EQ(epk_device_move(&dev, ids[0], 0), 0);
	robust_lists(low);
	robust_lists(other);
	within_reach();
	return epk_test_result();
}
