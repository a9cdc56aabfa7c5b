// SPDX-License-Identifier: MIT
/*
 * As many domains as there are: every EPT with every key, a page in each,
 * written, read back and freed, twice; nothing is left behind.
 */
#include "epk_test.h"

#include <sys/wait.h>

#define NR_PKEYS	15
#define MAX_DOMAINS	(KVM_EPK_MAX_EPTS * NR_PKEYS)

static int ids[MAX_DOMAINS];
static uint64_t *pages[MAX_DOMAINS];

/* Each pair of EPT and key carries exactly one domain. */
static void check_places(struct epk_device *dev, unsigned int num)
{
	static uint16_t keys[KVM_EPK_MAX_EPTS];
	unsigned int i;

	memset(keys, 0, sizeof(keys));
	for (i = 0; i < num; i++) {
		const volatile struct epk_entry *entry = &dev->table[EPK_ID_INDEX(ids[i])];

		CHECK_EQ(entry->id, ids[i]);
		CHECK(entry->ept < dev->init.nr_epts);
		CHECK(entry->pkey >= 1 && entry->pkey <= NR_PKEYS);
		CHECK(!(keys[entry->ept % KVM_EPK_MAX_EPTS] & 1 << entry->pkey));
		keys[entry->ept % KVM_EPK_MAX_EPTS] |= 1 << entry->pkey;
		/* Affinity: those that were asked for together are together. */
		if (i % NR_PKEYS)
			CHECK_EQ(entry->ept, dev->table[EPK_ID_INDEX(ids[i - 1])].ept);
	}
}

static void fill(struct epk_device *dev, unsigned int num)
{
	unsigned int i;

	for (i = 0; i < num; i++) {
		pages[i] = epk_device_map(dev, ids[i], 4096);
		REQUIRE(pages[i] != MAP_FAILED);
		epk_device_enter(dev, ids[i]);
		CHECK_EQ(dev->identity->ept, dev->table[EPK_ID_INDEX(ids[i])].ept);
		CHECK_EQ(*pages[i], 0);
		*pages[i] = 0x1234567800000000 + i;
	}
	epk_device_enter(dev, 0);
}

static void read_back(struct epk_device *dev, unsigned int num)
{
	unsigned int i;

	for (i = 0; i < num; i++) {
		epk_device_enter(dev, ids[i]);
		CHECK_EQ(*pages[i], 0x1234567800000000 + i);
	}
	epk_device_enter(dev, 0);
}

/* @step: domains in one call */
static void round_trip(unsigned int step, int first_round)
{
	static int old[MAX_DOMAINS];
	struct epk_device dev;
	struct epk_stats stats;
	unsigned int num, i, extra;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	num = dev.init.nr_epts * NR_PKEYS;
	CHECK_EQ(num, epk_device_is_alone(&dev) ? NR_PKEYS : MAX_DOMAINS);
	step = step < num ? step : num;
	for (i = 0; i < num; i += step)
		REQUIRE(epk_device_alloc(&dev, step, ids + i) == 0);

	check_places(&dev, num);
	CHECK_EQ(epk_device_alloc(&dev, 1, (int *)&extra), -ENOSPC);
	fill(&dev, num);
	read_back(&dev, num);
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.domains, num);
	CHECK_EQ(stats.epts, dev.init.nr_epts);
	CHECK_EQ(stats.vm_epts, dev.init.nr_epts);
	CHECK_EQ(stats.pages, num);

	for (i = 0; i < num; i++)
		CHECK_EQ(epk_device_unmap(&dev, pages[i], 4096), 0);
	for (i = 0; i < num; i += step)
		CHECK_EQ(epk_device_free(&dev, step, ids + i), 0);
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.domains, 0);
	CHECK_EQ(stats.epts, 0);
	CHECK_EQ(stats.pages, 0);

	if (first_round) {
		/* The same indices again are other IDs. */
		memcpy(old, ids, sizeof(old));
		REQUIRE(epk_device_alloc(&dev, num, ids) == 0);
		for (i = 0; i < num; i++)
			CHECK(ids[i] != old[i]);
		CHECK_EQ(epk_device_free(&dev, 1, old), -ENOENT);
		CHECK_EQ(epk_device_free(&dev, num, ids), 0);
	}
}

/* What the table's pages held before they came to it is not to be seen there. */
static void unused_entries(void)
{
	const size_t dirt = 32 << 20;
	struct epk_device dev;
	unsigned int i, bad = 0;
	void *p = mmap(NULL, dirt, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int id;

	REQUIRE(p != MAP_FAILED);
	memset(p, 0xff, dirt);
	munmap(p, dirt);
	epk_device_open(&dev);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	/* Entry 0 is no domain's. */
	for (i = 1; i < 4096 / sizeof(struct epk_entry); i++)
		bad += *(const volatile uint64_t *)&dev.table[i] && i != EPK_ID_INDEX(id);
	CHECK_EQ(bad, 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	close(dev.fd);
}

/* In a process of its own: a thread's record keeps its context in existence. */
static void round_trip_process(unsigned int step, int first_round)
{
	pid_t pid = fork();
	int status = -1;

	REQUIRE(pid >= 0);
	if (!pid) {
		round_trip(step, first_round);
		exit(epk_test_result());
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

static struct epk_stats vm_stats(void)
{
	struct epk_device dev = { .fd = open(EPK_DEVICE, O_RDWR) };
	struct epk_stats stats;

	if (dev.fd < 0 && errno == ENOENT)
		EPK_SKIP("no " EPK_DEVICE);
	REQUIRE(dev.fd >= 0);
	stats = epk_device_stats(&dev);
	close(dev.fd);
	return stats;
}

int main(void)
{
	struct epk_stats before = vm_stats(), after;

	round_trip_process(NR_PKEYS, 1);
	round_trip_process(MAX_DOMAINS, 0);
	unused_entries();
	after = vm_stats();
	CHECK_EQ(after.vm_domains, before.vm_domains);
	CHECK_EQ(after.vm_epts, before.vm_epts);
	CHECK_EQ(after.vm_pages, before.vm_pages);
	return epk_test_result();
}
