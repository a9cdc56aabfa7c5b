/* SPDX-License-Identifier: MIT */
/* Domains of kmod_rights_test, the calls that begin and end them, and what is held after them. */
#ifndef RIGHTS_TEST_H
#define RIGHTS_TEST_H

#include "epk_test.h"

#define NR_DOMAINS	40
#define PAGE		4096ul

static struct epk_device dev;
static int ids[NR_DOMAINS];
static uint64_t *pages[NR_DOMAINS];

static inline int begin_prot(int id, int prot)
{
	int ret = ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, prot));

	return ret < 0 ? -errno : ret;
}

static inline int begin(int id)
{
	return begin_prot(id, PROT_READ | PROT_WRITE);
}

static inline int end(int id)
{
	return ioctl(dev.fd, EPK_IOC_END, (long)id) ? -errno : 0;
}

static inline int follow(void)
{
	return ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS);
}

/* The signal, or 0.  After a signal all is lost. */
static __attribute__((noinline, unused)) int touch(volatile uint64_t *word, int write)
{
	return EPK_TRY_ONLY(if (write) *word += 1; else (void)*word);
}

static inline uint32_t closed_bits(void)
{
	uint32_t pkru = epk_rdpkru(), closed = pkru & EPK_PKRU_DENY_ALL;

	return closed & pkru >> 1;
}

/* Nothing is held: no key open, no held bit. */
static inline void holds_nothing(int line)
{
	if (epk_rdpkru() != EPK_PKRU_DENY_ALL)
		epk_check(false, __FILE__, line, "holds nothing", "");
}

static inline void end_all(void)
{
	int i;

	for (i = 0; i < NR_DOMAINS; i++)
		end(ids[i]);
	holds_nothing(__LINE__);
}

/* What is held, by the module's own list. */
static inline void list(int x, int x_prot, int y, int y_prot)
{
	struct epk_grant held[4] = { { 0 } };
	struct epk_grants arg = { .num = 4, .list = (uintptr_t)held };
	unsigned int i, prots[2] = { 0 };

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	CHECK_EQ(arg.num, !!x_prot + !!y_prot);
	for (i = 0; i < arg.num && i < 4; i++) {
		if (held[i].id == x)
			prots[0] = held[i].prot;
		if (held[i].id == y)
			prots[1] = held[i].prot;
	}
	CHECK_EQ(prots[0], x_prot);
	CHECK_EQ(prots[1], y_prot);
	/* Room for fewer. */
	arg.num = 1;
	held[1].id = 77;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	CHECK_EQ(arg.num, !!x_prot + !!y_prot);
	CHECK(held[1].id == 77);
}

/* Two that are not in one EPT; where there is one, one of them has no place. */
static inline int *apart(void)
{
	static int two[2];
	unsigned int i;

	for (i = 1; i < NR_DOMAINS; i++) {
		struct epk_entry a = epk_device_entry(&dev, ids[0]);
		struct epk_entry b = epk_device_entry(&dev, ids[i]);

		if (a.ept != b.ept)
			break;
	}
	REQUIRE(i < NR_DOMAINS);
	two[0] = 0;
	two[1] = i;
	return two;
}

#endif /* RIGHTS_TEST_H */
