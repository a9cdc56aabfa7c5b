// SPDX-License-Identifier: MIT
/* C++ exceptions through epk_call() and EPK_WITH(). */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <epk.h>

#include "argument.h"

#define RW	(PROT_READ | PROT_WRITE)
#define SECRET	0x5ec2e75ec2e7ul

static int ids[3];
static int failures;

#define CHECK_EQ(left, right)						\
	do {								\
		long left_ = (left), right_ = (right);			\
		if (left_ != right_) {					\
			printf("%s:%d: failed: %s == %s: %#lx, %#lx\n", __FILE__, __LINE__, \
			       #left, #right, left_, right_);		\
			failures++;					\
		}							\
	} while (0)

/* Leaves something in registers, and is left. */
static long throws(void *arg)
{
	uint64_t secret = SECRET;

	CHECK_EQ(epk_held(NULL, 0), 1);
	asm volatile("movq	%0, %%xmm9\n\t"
		     "movq	%0, %%xmm12\n\t"
		     "movq	%0, %%mm5"
		     : : "r"(secret) : "xmm9", "xmm12");
	throw (long)arg;
}

static long nests(void *arg)
{
	int id = *(int *)arg;

	/* What it begins counts for nothing either. */
	CHECK_EQ(domain_begin(ids[2], RW), 0);
	epk_call(id, throws, arg, NULL);
	return 1;
}

static void check_registers(void)
{
	uint64_t xmm9, xmm12, mm5;

	asm volatile("movq	%%xmm9, %0\n\t"
		     "movq	%%xmm12, %1\n\t"
		     "movq	%%mm5, %2\n\t"
		     "emms" : "=r"(xmm9), "=r"(xmm12), "=r"(mm5));
	CHECK_EQ(xmm9 != SECRET && xmm12 != SECRET && mm5 != SECRET, true);
}

/* What is held of the three, two bits each. */
static int held(void)
{
	return epk_held_prot(ids[0]) | epk_held_prot(ids[1]) << 2 | epk_held_prot(ids[2]) << 4;
}

static void call_is_left(bool beside)
{
	bool catches = !strcmp(epk_backend(), "epk");
	int i, before;

	if (beside)
		CHECK_EQ(domain_begin(ids[0], PROT_READ), 0);
	before = held();
	for (i = 0; i < 100; i++) {
		long caught = -1;

		try {
			if (catches && i % 3 == 2)
				epk_call_caught(ids[1], i & 1 ? nests : throws, &ids[2], NULL);
			else if (i & 1)
				epk_call(ids[1], nests, &ids[2], NULL);
			else
				epk_call(ids[1], throws, &ids[2], NULL);
		} catch (long value) {
			check_registers();
			caught = value;
		}
		CHECK_EQ(caught, (long)&ids[2]);
		CHECK_EQ(held(), before);
	}
	if (beside)
		CHECK_EQ(domain_end(ids[0]), 0);
}

static void scopes_are_left()
{
	bool caught = false;

	CHECK_EQ(domain_begin(ids[0], PROT_READ), 0);
	try {
		EPK_WITH(ids[0], RW) {
			EPK_WITH(ids[1], PROT_READ) {
				EPK_WITH(ids[1], RW) {
					CHECK_EQ(held(), RW | RW << 2);
					throw 1;
				}
			}
		}
	} catch (int) {
		caught = true;
	}
	CHECK_EQ(caught, true);
	CHECK_EQ(held(), PROT_READ);
	CHECK_EQ(domain_end(ids[0]), 0);
}

static void *in_thread(void *)
{
	call_is_left(false);
	call_is_left(true);
	return NULL;
}

int main()
{
	pthread_t thread;
	int err = epk_init(NULL);

	if (err == -ENODEV) {
		printf("SKIP cpp_test: no such backend here\n");
		return 77;
	}
	CHECK_EQ(err, 0);
	CHECK_EQ(alloc_domains(3, ids), 0);
	call_is_left(false);
	call_is_left(true);
	if (strcmp(epk_backend(), "vmfunc"))
		scopes_are_left();
	CHECK_EQ(pthread_create(&thread, NULL, in_thread, NULL), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(epk_held(NULL, 0), 0);
	CHECK_EQ(free_domains(3, ids), 0);
	printf("%d failed\n", failures);
	return failures != 0;
}
