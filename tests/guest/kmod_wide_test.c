// SPDX-License-Identifier: MIT
/*
 * A guest with more blocks of RAM than its windows have slots: three nodes of a GiB, windows of
 * two slots.  Domains of two blocks, moved; no slot left; the node that mbind() or the thread's
 * policy says.  And what PTEs of domain memory say about caching.
 */
#include "file_test.h"

#include <sys/syscall.h>

#include "raw/epk_raw.h"

#define NODES		3
#define SLOTS		2
#define MPOL_DEFAULT	0
#define MPOL_BIND	2
#define LEN		(16ul << 20)
/* What the nodes count is allocations: too small for a page of 2 MiB. */
#define PAGES		480ul
/* Page tables and whatever else runs take pages, too, but not so many. */
#define OTHERS		(PAGES / 4)
#define PTE_PWT_PCD	0x18ull
/* Where the PAT bit is, by level: pages of 4 KiB and of 2 MiB. */
#define PTE_PAT(level)	((level) == 1 ? 1ull << 7 : 1ull << 12)
#define PTE_PFN		0x000ffffffffff000ull

static struct epk_device dev;
static int raw;
static uint64_t window_base;

static long query(unsigned long what)
{
	struct epk_raw req = { .nr = KVM_HC_EPK, .args = { KVM_EPK_QUERY, what } };

	CHECK(ioctl(raw, EPK_RAW_CALL, &req) == 0);
	return req.result;
}

/* How many pages a node has given to those who wanted them from there. */
static long node_hits(int node)
{
	char path[80];
	long hits = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/numastat", node);
	file = fopen(path, "r");
	REQUIRE(file);
	REQUIRE(fscanf(file, "numa_hit %ld", &hits) == 1);
	fclose(file);
	return hits;
}

static bool bind_node(void *p, size_t len, int node)
{
	unsigned long mask = 1ul << node;

	return syscall(SYS_mbind, p, len, MPOL_BIND, &mask, 8 * sizeof(mask), 0) == 0;
}

/* Domain memory of a new domain in @ept, to come from @node. */
static volatile char *map_on(int id, int node, size_t len)
{
	void *p = epk_device_map(&dev, id, len);

	REQUIRE(p != MAP_FAILED);
	REQUIRE(bind_node(p, len, node));
	return p;
}

static int domain_in(unsigned int ept)
{
	int id;

	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	REQUIRE(epk_device_move(&dev, id, ept) == 0);
	return id;
}

static struct epk_raw_entry entry_of(volatile char *p)
{
	struct epk_raw_entry entry = { .addr = (uintptr_t)p };

	CHECK(ioctl(raw, EPK_RAW_ENTRY, &entry) == 0);
	CHECK(entry.entry & 1);
	return entry;
}

/* The slot of @ept's window that shows a page, or -1. */
static int slot_of(volatile char *p, unsigned int ept)
{
	struct epk_raw_entry entry = entry_of(p);
	uint64_t gpa = entry.entry & PTE_PFN, base = window_base + ((uint64_t)ept * SLOTS << 30);

	/* Index 0 of the PAT, write-back: any other caches less where the host asks the guest. */
	CHECK_EQ(entry.entry & (PTE_PWT_PCD | PTE_PAT(entry.level)), 0);
	return gpa < base || gpa >= base + ((uint64_t)SLOTS << 30) ? -1 : (int)((gpa - base) >> 30);
}

static void fill(int id, volatile char *p, char value)
{
	size_t i;

	epk_device_enter(&dev, id);
	for (i = 0; i < LEN; i += 4096)
		p[i] = value;
	epk_device_enter(&dev, 0);
}

static size_t wrong(int id, volatile char *p, char value)
{
	size_t i, count = 0;

	epk_device_enter(&dev, id);
	for (i = 0; i < LEN; i += 4096)
		count += p[i] != value || p[i + 4095];
	epk_device_enter(&dev, 0);
	return count;
}

static void hits_of_all(long *hits)
{
	int i;

	for (i = 0; i < NODES; i++)
		hits[i] = node_hits(i);
}

/* PAGES have been taken since, all from @node. */
static void check_taken(int node, const long *before)
{
	long taken[NODES];
	int i;

	for (i = 0; i < NODES; i++)
		taken[i] = node_hits(i) - before[i];
	printf("node %d: taken from each %ld %ld %ld\n", node, taken[0], taken[1], taken[2]);
	CHECK(taken[node] >= (long)PAGES);
	for (i = 0; i < NODES; i++)
		CHECK(i == node || taken[i] < (long)OTHERS);
}

/* Pages come from the node that mbind() names. */
static void nodes(void)
{
	long before[NODES];
	volatile char *p;
	int node, id;

	for (node = 0; node < NODES; node++) {
		id = domain_in(20 + node);
		p = map_on(id, node, PAGES * 4096);
		hits_of_all(before);
		CHECK_EQ(epk_device_populate(&dev, p, PAGES * 4096), 0);
		check_taken(node, before);
		epk_device_unmap(&dev, p, PAGES * 4096);
		REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	}
}

/* And so do those of a memfd behind a domain. */
static void file_nodes(void)
{
	long before[NODES];
	volatile char *p;
	int node, id, fd;
	size_t i;

	for (node = 0; node < NODES; node++) {
		id = domain_in(20 + node);
		fd = memfd_create("nodes", 0);
		REQUIRE(fd >= 0 && ftruncate(fd, PAGES * 4096) == 0);
		p = file_map(&dev, id, PAGES * 4096, fd, 0);
		REQUIRE(bind_node((void *)p, PAGES * 4096, node));
		hits_of_all(before);
		epk_device_enter(&dev, id);
		for (i = 0; i < PAGES; i++)
			p[i * 4096] = 1;
		epk_device_enter(&dev, 0);
		check_taken(node, before);
		CHECK(slot_of(p, 20 + node) >= 0);
		epk_device_unmap(&dev, p, PAGES * 4096);
		close(fd);
		REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	}
}

static long node_free_bytes(int node)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return epk_kib_of(path, "MemFree:") << 10;
}

/*
 * 2 MiB pages, from the node that the thread's own policy names.  CPUs keep some at hand
 * that do not count as free: up to 20 MiB were seen.
 */
static void thread_nodes(void)
{
	const long len = 64 << 20;
	long before[NODES], taken;
	volatile char *p;
	unsigned long mask;
	int node, i, id;

	for (node = 0; node < NODES; node++) {
		id = domain_in(23 + node);
		p = epk_device_map(&dev, id, len);
		REQUIRE(p != MAP_FAILED);
		mask = 1ul << node;
		REQUIRE(!syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 8 * sizeof(mask)));
		for (i = 0; i < NODES; i++)
			before[i] = node_free_bytes(i);
		CHECK_EQ(epk_device_populate(&dev, p, len), 0);
		for (i = 0; i < NODES; i++) {
			taken = before[i] - node_free_bytes(i);
			if (!CHECK(i == node ? taken > len / 2 : taken < len / 4))
				printf("%ld KiB of node %d, not of node %d\n", taken >> 10, i, node);
		}
		REQUIRE(!syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
		/* What has no page tables yet is mapped when it is touched. */
		epk_device_enter(&dev, id);
		*p = 1;
		epk_device_enter(&dev, 0);
		CHECK_EQ(entry_of(p).level, 2);
		CHECK(slot_of(p, 23 + node) >= 0);
		epk_device_unmap(&dev, p, len);
		REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	}
}

/* A domain of two blocks uses both slots, keeps what it holds when it moves, and gets no third. */
static void blocks(void)
{
	int id = domain_in(30), other;
	volatile char *high = map_on(id, 2, LEN), *low = map_on(id, 0, LEN), *third;

	fill(id, high, 2);
	CHECK_EQ(slot_of(high, 30), 0);
	fill(id, low, 1);
	CHECK_EQ(slot_of(low, 30), 1);

	third = map_on(id, 1, LEN);
	CHECK_EQ(epk_device_populate(&dev, third, LEN), -ENOMEM);
	epk_device_enter(&dev, id);
	CHECK_EQ(EPK_TRY(third[0] = 1), SIGBUS);
	epk_device_enter(&dev, 0);

	REQUIRE(epk_device_move(&dev, id, 31) == 0);
	CHECK_EQ(wrong(id, high, 2), 0);
	CHECK_EQ(wrong(id, low, 1), 0);
	CHECK(slot_of(high, 31) >= 0 && slot_of(low, 31) >= 0);
	CHECK(slot_of(high, 31) != slot_of(low, 31));

	/* A window that shows another block has room for one of the two only. */
	other = domain_in(32);
	third = map_on(other, 1, LEN);
	fill(other, third, 3);
	CHECK_EQ(epk_device_move(&dev, id, 32), -ENOSPC);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 31);
	CHECK_EQ(wrong(id, high, 2), 0);
	CHECK_EQ(wrong(id, low, 1), 0);
	/* And this one finds no room there. */
	CHECK_EQ(epk_device_move(&dev, other, 31), -ENOSPC);
	CHECK_EQ(wrong(other, third, 3), 0);

	/* Evicted and readmitted, it lies somewhere where it fits. */
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	CHECK_EQ(wrong(id, high, 2), 0);
	CHECK_EQ(wrong(id, low, 1), 0);
	REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	REQUIRE(epk_device_free(&dev, 1, &other) == 0);
}

/* What write-back looks like, on an ordinary page, and that EPT 0 has it too. */
static void caching(void)
{
	volatile char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
	struct epk_raw_entry entry;
	int id = domain_in(0);

	*p = 1;
	entry = entry_of(p);
	CHECK_EQ(entry.entry & (PTE_PWT_PCD | PTE_PAT(entry.level)), 0);

	p = epk_device_map(&dev, id, 4096);
	epk_device_enter(&dev, id);
	*p = 1;
	epk_device_enter(&dev, 0);
	CHECK(slot_of(p, 0) >= 0);
	REQUIRE(epk_device_free(&dev, 1, &id) == 0);
}

int main(void)
{
	raw = open(EPK_RAW_DEVICE, O_RDWR);
	REQUIRE(raw >= 0);
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	window_base = query(KVM_EPK_QUERY_WINDOW_BASE);
	REQUIRE(query(KVM_EPK_QUERY_WINDOW_SLOTS) == SLOTS);
	REQUIRE(access("/sys/devices/system/node/node2", F_OK) == 0);

	caching();
	nodes();
	file_nodes();
	thread_nodes();
	blocks();
	return epk_test_result();
}
