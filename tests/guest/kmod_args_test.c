// SPDX-License-Identifier: MIT
/*
 * Wrong arguments to every call of /dev/epk: each case is wrong in one way,
 * fails with its own error, and leaves every count as it was.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct epk_device dev;
static struct epk_stats before;

/* After each case: nothing was made and nothing was lost. */
static void unchanged(int line)
{
	struct epk_stats now = epk_device_stats(&dev);
	bool same = now.domains == before.domains && now.epts == before.epts &&
		    now.pages == before.pages && now.vm_domains == before.vm_domains &&
		    now.vm_epts == before.vm_epts && now.vm_pages == before.vm_pages;

	epk_check(same, __FILE__, line, "counts unchanged", "");
}

#define FAILS(call, error)							\
	do {									\
		errno = 0;							\
		CHECK_EQ((long)(call), -1);					\
		CHECK_EQ(errno, error);						\
		unchanged(__LINE__);						\
	} while (0)

static void before_init(void)
{
	struct epk_domains arg = { .num = 1 };
	int fd = open(EPK_DEVICE, O_RDWR), id = 1;

	REQUIRE(fd >= 0);
	arg.ids = (uintptr_t)&id;
	FAILS(ioctl(fd, EPK_IOC_ALLOC, &arg), ENXIO);
	FAILS(ioctl(fd, EPK_IOC_FREE, &arg), ENXIO);
	FAILS((long)mmap(NULL, dev.init.table_bytes, PROT_READ, MAP_SHARED, fd,
			 EPK_MMAP_TABLE), ENXIO);
	FAILS((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, EPK_MMAP_DOMAIN(1)), ENXIO);
	close(fd);
}

static void init_arguments(void)
{
	struct epk_init good = { .version = EPK_ABI_VERSION, .pkeys = 2 }, arg;
	int fd = open(EPK_DEVICE, O_RDWR);

	REQUIRE(fd >= 0);
	FAILS(ioctl(fd, EPK_IOC_INIT, NULL), EFAULT);
	arg = good, arg.version = 0;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	arg = good, arg.version = EPK_ABI_VERSION + 1;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	arg = good, arg.generation = EPK_GENERATION_MAX + 1;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	arg = good, arg.pkeys = 0;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	arg = good, arg.pkeys = 3;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	arg = good, arg.pkeys = 1u << 16 | 2;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EINVAL);
	/* All right, but for this address space having a context already. */
	arg = good;
	FAILS(ioctl(fd, EPK_IOC_INIT, &arg), EBUSY);
	close(fd);
	FAILS(ioctl(dev.fd, EPK_IOC_INIT, &arg), EBUSY);
}

/* A key that the process does not have; the module keeps the parent from freeing one. */
static void init_without_key(void)
{
	struct epk_init arg = { .version = EPK_ABI_VERSION, .pkeys = 1u << 15 };
	pid_t pid = fork();
	int status, fd;

	REQUIRE(pid >= 0);
	if (!pid) {
		fd = open(EPK_DEVICE, O_RDWR);
		if (pkey_free(15))
			_exit(2);
		_exit(ioctl(fd, EPK_IOC_INIT, &arg) != -1 || errno != EINVAL);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

/* Only the keys that the module was given are its own. */
static void other_keys(void)
{
	struct epk_init arg = { .version = EPK_ABI_VERSION, .pkeys = 0x7ffe };
	struct epk_move move = { .ept = 0, .pkey = 15 };
	struct epk_move list[2] = { { .pkey = 3 }, { .pkey = 3 } };
	pid_t pid = fork();
	int status;

	REQUIRE(pid >= 0);
	if (!pid) {
		struct epk_device own = { .fd = open(EPK_DEVICE, O_RDWR) };

		epk_failures = 0;
		CHECK_EQ(ioctl(own.fd, EPK_IOC_INIT, &arg), 0);
		CHECK_EQ(epk_device_alloc(&own, 1, &move.id), 0);
		CHECK_EQ(epk_device_moves(&own, 1, &move), -EINVAL);
		move.pkey = 64 + 3;
		CHECK_EQ(epk_device_moves(&own, 1, &move), -EINVAL);
		move.pkey = 14;
		CHECK_EQ(epk_device_moves(&own, 1, &move), 0);
		CHECK_EQ(epk_device_alloc(&own, 1, &list[1].id), 0);
		list[0].id = move.id;
		list[0].ept = list[1].ept = epk_device_ept(&dev, 77);
		CHECK_EQ(epk_device_moves(&own, 2, list), -EBUSY);
		/* Both are where they were. */
		list[1].ept = 0, list[1].pkey = 14;
		CHECK_EQ(epk_device_moves(&own, 1, &list[1]), -EBUSY);
		/* Nor does the EPT exist that the first of them would have been in. */
		if (!epk_device_is_alone(&dev))
			CHECK_EQ(EPK_TRY(epk_vmfunc(77)), SIGILL);
		CHECK(pkey_free(14) == -1 && errno == EPERM);
		CHECK(pkey_free(64 + 14) == -1 && errno == EINVAL);
		CHECK_EQ(pkey_free(15), 0);
		CHECK_EQ(pkey_alloc(0, 0), 15);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

static void alloc_arguments(void)
{
	static int ids[8192];
	struct epk_domains good = { .num = 2, .ids = (uintptr_t)ids }, arg;
	unsigned int room = dev.init.nr_epts * 15 - before.domains;
	size_t size = dev.init.max_domains * sizeof(*ids);
	int *many;

	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, NULL), EFAULT);
	arg = good, arg.num = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EINVAL);
	arg = good, arg.flags = 4;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EINVAL);
	arg = good, arg.flags = 0x8000;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EINVAL);
	arg = good, arg.flags = EPK_ALLOC_AT(dev.init.nr_epts);
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EINVAL);
	arg = good, arg.ids = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EFAULT);
	arg = good, arg.ids = 1ull << 63;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EFAULT);
	arg = good, arg.num = room + 1;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), ENOSPC);
	arg = good, arg.num = 8192;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), ENOSPC);
	arg = good, arg.num = 0xffffffff;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), ENOSPC);
	arg = good, arg.num = dev.init.max_domains - 1, arg.flags = EPK_ALLOC_SPILL;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), EFAULT);
	many = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(many != MAP_FAILED);
	arg.ids = (uintptr_t)many;
	FAILS(ioctl(dev.fd, EPK_IOC_ALLOC, &arg), ENOSPC);
	CHECK_EQ(munmap(many, size), 0);
}

static void move_arguments(int live)
{
	unsigned int ept = epk_device_ept(&dev, 3);
	struct epk_move list[2] = { { .id = live, .ept = ept }, { .id = live, .ept = ept } };
	struct epk_moves good = { .num = 1, .moves = (uintptr_t)list }, arg;
	struct epk_move *fixed = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, NULL), EFAULT);
	arg = good, arg.num = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	arg = good, arg.num = EPK_MOVES_MAX + 1;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	arg = good, arg.flags = 2;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	arg = good, arg.moves = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EFAULT);
	arg = good, arg.moves = (uintptr_t)fixed;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EFAULT);
	munmap(fixed, 4096);
	arg = good, arg.num = 2;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	arg = good, list[0].ept = dev.init.nr_epts;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0].ept = EPK_EPT_ANY - 1;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0].ept = ept, list[0].rsvd = 1;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0].rsvd = 0, list[0].pkey = 16;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0].ept = EPK_EPT_NONE, list[0].pkey = 1;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0].ept = EPK_EPT_ANY;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), EINVAL);
	list[0] = (struct epk_move) { .id = live + (1 << EPK_ID_INDEX_BITS), .ept = ept };
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), ENOENT);
	/* A right one beside a wrong one does not move either. */
	list[0] = (struct epk_move) { .id = live, .ept = ept };
	list[1] = (struct epk_move) { .id = -1, .ept = ept };
	arg = good, arg.num = 2;
	FAILS(ioctl(dev.fd, EPK_IOC_MOVE, &arg), ENOENT);
	CHECK_EQ(epk_device_entry(&dev, live).ept, 0);
}

static void free_arguments(int live)
{
	int ids[3] = { live, live, live };
	struct epk_domains good = { .num = 1, .ids = (uintptr_t)ids }, arg;
	int stale;

	FAILS(ioctl(dev.fd, EPK_IOC_FREE, NULL), EFAULT);
	arg = good, arg.num = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), EINVAL);
	arg = good, arg.num = dev.init.max_domains;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), EINVAL);
	arg = good, arg.flags = 1;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), EINVAL);
	arg = good, arg.ids = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), EFAULT);
	/* The same one twice; a live one beside a dead one. */
	arg = good, arg.num = 2;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), EINVAL);
	ids[1] = 0;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), ENOENT);
	ids[1] = -1;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), ENOENT);
	ids[1] = 0x7fffffff;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), ENOENT);
	ids[1] = live + (1 << EPK_ID_INDEX_BITS);
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), ENOENT);

	REQUIRE(epk_device_alloc(&dev, 1, &stale) == 0);
	CHECK_EQ(epk_device_free(&dev, 1, &stale), 0);
	ids[0] = stale;
	arg = good;
	FAILS(ioctl(dev.fd, EPK_IOC_FREE, &arg), ENOENT);
}

/* What comes at the index of a domain that is gone has another ID. */
static void generations(void)
{
	unsigned int left = dev.init.max_domains;
	int first, id;

	REQUIRE(epk_device_alloc(&dev, 1, &first) == 0);
	REQUIRE(epk_device_free(&dev, 1, &first) == 0);
	do {
		REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
		REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	} while (EPK_ID_INDEX(id) != EPK_ID_INDEX(first) && left--);
	CHECK_EQ(EPK_ID_INDEX(id), EPK_ID_INDEX(first));
	CHECK(id != first);
}

/* In a context whose generations begin behind @generation: is a key closed as its domain is freed? */
static bool is_closed_at_once(uint32_t generation)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .generation = generation };
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct epk_device own;
		uint32_t bits;
		int id;

		epk_failures = 0;
		init.pkeys = epk_all_pkeys();
		own.fd = open(EPK_DEVICE, O_RDWR);
		REQUIRE(own.fd >= 0 && !ioctl(own.fd, EPK_IOC_INIT, &init));
		own.init = init;
		own.table = mmap(NULL, init.table_bytes, PROT_READ, MAP_SHARED, own.fd,
				 EPK_MMAP_TABLE);
		REQUIRE(own.table != MAP_FAILED);
		REQUIRE(ioctl(own.fd, EPK_IOC_THREAD, 0) == 0);
		REQUIRE(epk_device_alloc(&own, 1, &id) == 0);
		CHECK_EQ(id >> EPK_ID_INDEX_BITS, generation + 1);
		bits = 3u << 2 * epk_device_entry(&own, id).pkey;
		epk_device_enter(&own, id);
		CHECK_EQ(epk_rdpkru() & bits, 0);
		CHECK_EQ(epk_device_free(&own, 1, &id), 0);
		_exit(epk_failures ? 2 : !(epk_rdpkru() & bits));
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return !status;
}

/* Others can wait until the place is another's; behind the last, the same ID comes again. */
static void last_generation(void)
{
	CHECK(!is_closed_at_once(0));
	CHECK(!is_closed_at_once(EPK_GENERATION_MAX - 2));
	CHECK(is_closed_at_once(EPK_GENERATION_MAX - 1));
}

/* Where the addresses of user mode end. */
static uint64_t user_end(void)
{
	const void *hint = (void *)(1ul << 55);
	void *high = mmap((void *)hint, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(high, 4096);
	return (high == hint ? 1ul << 56 : 1ul << 47) - 4096;
}

static void populate_arguments(void)
{
	struct epk_range arg = { 1ull << 63, 4096 };

	FAILS(ioctl(dev.fd, EPK_IOC_POPULATE, NULL), EFAULT);
	FAILS(ioctl(dev.fd, EPK_IOC_POPULATE, &arg), EINVAL);
	/* The last user page, and one more. */
	arg.addr = user_end() - 4096, arg.len = 8192;
	FAILS(ioctl(dev.fd, EPK_IOC_POPULATE, &arg), EINVAL);
	arg.addr = -4096ull;
	FAILS(ioctl(dev.fd, EPK_IOC_POPULATE, &arg), EINVAL);
}

static long map(size_t len, int prot, int flags, uint64_t offset)
{
	return (long)mmap(NULL, len, prot, flags, dev.fd, offset);
}

static void mmap_arguments(int id)
{
	uint64_t domain = EPK_MMAP_DOMAIN(id), bytes = dev.init.table_bytes;
	int rw = PROT_READ | PROT_WRITE;
	int fd = open(EPK_DEVICE, O_RDONLY);

	FAILS(map(bytes, PROT_READ, MAP_PRIVATE, EPK_MMAP_TABLE), EINVAL);
	FAILS(map(bytes, rw, MAP_SHARED, EPK_MMAP_TABLE), EACCES);
	FAILS(map(bytes, PROT_READ | PROT_EXEC, MAP_SHARED, EPK_MMAP_TABLE), EACCES);
	FAILS(map(bytes + 4096, PROT_READ, MAP_SHARED, EPK_MMAP_TABLE), EINVAL);
	FAILS(map(bytes - 4096, PROT_READ, MAP_SHARED, EPK_MMAP_TABLE), EINVAL);
	FAILS(map(4096, PROT_READ, MAP_SHARED, EPK_MMAP_TABLE + 4096), EINVAL);

	FAILS(map(4096, PROT_READ, MAP_PRIVATE, EPK_MMAP_IDENTITY), EINVAL);
	FAILS(map(4096, rw, MAP_SHARED, EPK_MMAP_IDENTITY), EACCES);
	FAILS(map(8192, PROT_READ, MAP_SHARED, EPK_MMAP_IDENTITY), EINVAL);

	FAILS(map(4096, rw, MAP_PRIVATE, domain), EINVAL);
	FAILS(map(4096, rw | PROT_EXEC, MAP_SHARED, domain), EACCES);
	FAILS(map(4096, rw, MAP_SHARED, domain + 4096), EINVAL);
	FAILS(map(4096, rw, MAP_SHARED, domain | 1ull << 57), EINVAL);
	FAILS(map(4096, rw, MAP_SHARED, domain | 1ull << 61), EINVAL);
	FAILS(map(4096, rw, MAP_SHARED, EPK_MMAP_DOMAIN(0)), ENOENT);
	FAILS(map(4096, rw, MAP_SHARED, EPK_MMAP_DOMAIN(8191)), ENOENT);
	FAILS(map(4096, rw, MAP_SHARED, EPK_MMAP_DOMAIN(0x1ffff)), ENOENT);
	FAILS((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, domain), ENXIO);
	close(fd);
}

static int reserve(void *addr, size_t len)
{
	struct epk_range range = { .addr = (uintptr_t)addr, .len = len };

	return ioctl(dev.fd, EPK_IOC_RESERVE, &range);
}

/* What was a domain's is nobody's, and nothing else comes there by itself. */
static void reserve_arguments(int id)
{
	char *p = epk_device_map(&dev, id, 4 * 4096), *plain;

	REQUIRE(p != MAP_FAILED);
	FAILS(ioctl(dev.fd, EPK_IOC_RESERVE, NULL), EFAULT);
	FAILS(reserve(p, 0), EINVAL);
	FAILS(reserve(p, 100), EINVAL);
	FAILS(reserve(p + 1, 4096), EINVAL);
	FAILS(reserve(p, -4096ul), EINVAL);
	plain = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*plain = 1;
	FAILS(reserve(plain, 4096), EPERM);
	CHECK_EQ(*plain, 1);
	munmap(plain, 4096);
	CHECK_EQ(reserve(p + 4096, 4096), 0);
	FAILS((long)mmap(p + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			 -1, 0), EEXIST);
	/* Not again: it is the program's by now, and so is what lies over both. */
	FAILS(reserve(p + 4096, 4096), EPERM);
	FAILS(reserve(p, 4 * 4096), EPERM);
	REQUIRE(mprotect(p + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
	CHECK_EQ(p[4096], 0);
	/* A domain over it, in one step. */
	CHECK_EQ(mmap(p + 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		      EPK_MMAP_DOMAIN(id)) == p + 4096, 1);
	CHECK_EQ(reserve(p, 4 * 4096), 0);
	CHECK_EQ(munmap(p, 4 * 4096), 0);
}

static int fill(const void *to, size_t len, const void *from)
{
	struct epk_fill req = { .addr = (uintptr_t)to, .len = len, .from = (uintptr_t)from };

	return ioctl(dev.fd, EPK_IOC_FILL, &req);
}

/* Only what is held to write; then wherever its mapping is closed. */
static void fill_arguments(int id)
{
	static char from[2 * 4096];
	char *p = epk_device_map(&dev, id, 2 * 4096), *plain;

	REQUIRE(p != MAP_FAILED);
	memset(from, 'f', sizeof(from));
	REQUIRE(mprotect(p, 2 * 4096, PROT_NONE) == 0);
	FAILS(ioctl(dev.fd, EPK_IOC_FILL, NULL), EFAULT);
	FAILS(fill(p, 4096, from), EACCES);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ)), 0);
	FAILS(fill(p, 4096, from), EACCES);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)), 1);
	FAILS(fill(p, 0, from), EINVAL);
	FAILS(fill(p, 100, from), EINVAL);
	FAILS(fill(p + 1, 4096, from), EINVAL);
	FAILS(fill(p, -4096ul, from), EINVAL);
	FAILS(fill(p, 4096, (void *)1), EFAULT);
	plain = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FAILS(fill(plain, 4096, from), EINVAL);
	CHECK_EQ(*plain, 0);
	munmap(plain, 4096);
	FAILS(fill((void *)dev.table, 4096, from), EINVAL);
	CHECK_EQ(fill(p, 2 * 4096, from), 0);
	REQUIRE(mprotect(p, 2 * 4096, PROT_READ) == 0);
	CHECK_EQ(memcmp(p, from, sizeof(from)), 0);
	from[5000] = 'g';
	CHECK_EQ(fill(p + 4096, 4096, from + 4096), 0);
	CHECK_EQ(p[5000], 'g');
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, id), 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 2 * 4096), 0);
}

static int protect(int id, uint32_t prot)
{
	return ioctl(dev.fd, EPK_IOC_PROTECT, EPK_BEGIN(id, prot));
}

/* What is refused changes nothing, and the table unlists what has a common right. */
static void protect_arguments(int id)
{
	const volatile struct epk_entry *entry = &dev.table[EPK_ID_INDEX(id)];
	char *p = epk_device_map(&dev, id, 4096);
	struct epk_note note = { .id = id, .flags = EPK_NOTE_PRIVATE, .addr = (uintptr_t)p };

	REQUIRE(p != MAP_FAILED);
	CHECK_EQ(protect(id, EPK_PROTECT_ASK), 0);
	CHECK_EQ(protect(id, PROT_READ), 0);
	CHECK_EQ(entry->pkey, 0);
	CHECK_EQ(entry->ept, EPK_EPT_NONE);
	FAILS(protect(id, PROT_READ | PROT_EXEC), EINVAL);
	FAILS(protect(id, 8), EINVAL);
	FAILS(protect(id, EPK_PROTECT_ASK | PROT_WRITE), EINVAL);
	FAILS(protect(id, ~0u), EINVAL);
	FAILS(protect(0, PROT_READ), ENOENT);
	FAILS(protect(-1, PROT_READ), ENOENT);
	FAILS(protect(id + (1 << EPK_ID_INDEX_BITS), PROT_READ), ENOENT);
	FAILS(protect(0, EPK_PROTECT_ASK), ENOENT);
	CHECK_EQ(protect(id, EPK_PROTECT_ASK), PROT_READ);
	/* Private is what nobody shares. */
	FAILS(ioctl(dev.fd, EPK_IOC_NOTE, &note), EBUSY);
	CHECK_EQ(*p, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	CHECK_EQ(protect(id, PROT_WRITE), 0);
	CHECK_EQ(protect(id, EPK_PROTECT_ASK), PROT_READ | PROT_WRITE);
	CHECK_EQ(protect(id, 0), 0);
	CHECK_EQ(protect(id, EPK_PROTECT_ASK), 0);
	CHECK_EQ(entry->pkey != 0, 1);
}

/* Whole pages of one's own domains, of live ones and of others; nothing else. */
static void unmap_arguments(int id)
{
	char *p = epk_device_map(&dev, id, 4 * 4096), *plain;

	REQUIRE(p != MAP_FAILED);
	FAILS(ioctl(dev.fd, EPK_IOC_UNMAP, NULL), EFAULT);
	FAILS(epk_device_unmap(&dev, p, 0), EINVAL);
	FAILS(epk_device_unmap(&dev, p, 100), EINVAL);
	FAILS(epk_device_unmap(&dev, p + 1, 4096), EINVAL);
	FAILS(epk_device_unmap(&dev, p, -4096ul), EINVAL);
	FAILS(epk_device_unmap(&dev, (void *)-8192ul, 4096), EINVAL);
	plain = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*plain = 1;
	FAILS(epk_device_unmap(&dev, plain, 4096), EPERM);
	CHECK_EQ(*plain, 1);
	munmap(plain, 4096);
	/* With something else in the middle nothing goes. */
	CHECK_EQ(epk_device_unmap(&dev, p + 4096, 4096), 0);
	REQUIRE(mmap(p + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0) == p + 4096);
	p[4096] = 1;
	FAILS(epk_device_unmap(&dev, p, 4 * 4096), EPERM);
	FAILS(munmap(p, 4 * 4096), EPERM);
	CHECK_EQ(p[4096], 1);
	CHECK_EQ(munmap(p + 4096, 4096), 0);
	/* A hole is nothing. */
	CHECK_EQ(epk_device_unmap(&dev, p, 4 * 4096), 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4 * 4096), 0);

	/* Where domains are is said as long as there is one. */
	FAILS(munmap((void *)dev.identity, 4096), EPERM);
	FAILS(munmap((void *)dev.table, 4096), EPERM);
	FAILS((long)mmap((void *)dev.table, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
	plain = mmap(NULL, 4096, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_IDENTITY);
	REQUIRE(plain != MAP_FAILED);
	CHECK_EQ(epk_device_unmap(&dev, plain, 4096), 0);
}

/* What the kernel tells a process stays the kernel's word. */
static void read_only_pages(void)
{
	void *pages[] = { (void *)dev.table, (void *)dev.identity };
	int i;

	for (i = 0; i < 2; i++) {
		FAILS(mprotect(pages[i], 4096, PROT_READ | PROT_WRITE), EACCES);
		FAILS(mprotect(pages[i], 4096, PROT_READ | PROT_EXEC), EACCES);
		FAILS(syscall(SYS_mremap, pages[i], 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
			      (char *)pages[i] - (1 << 30)), EINVAL);
		FAILS(syscall(SYS_mremap, pages[i], 4096, 8192, MREMAP_MAYMOVE), EFAULT);
		FAILS(madvise(pages[i], 4096, MADV_DOFORK), EINVAL);
	}
	CHECK_EQ(dev.identity->ept, 0);
}

/* What can be done to a domain's mapping, and what not. */
static void mapping_calls(int id)
{
	char *p = epk_device_map(&dev, id, 4 * 4096);
	int pkey = dev.table[EPK_ID_INDEX(id)].pkey;

	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	memset(p, 7, 4 * 4096);
	before = epk_device_stats(&dev);

	FAILS(syscall(SYS_mremap, p, 4096, 0x10000, MREMAP_MAYMOVE), EFAULT);
	FAILS(syscall(SYS_mremap, p, 4 * 4096, 4 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
		      p + (1 << 30)), EINVAL);
	FAILS(syscall(SYS_mremap, p, 0, 4096, MREMAP_MAYMOVE), EFAULT);
	FAILS(pkey_mprotect(p, 4096, PROT_READ, 0), EACCES);
	FAILS(pkey_mprotect(p, 4096, PROT_READ, pkey == 1 ? 2 : 1), EACCES);
	FAILS(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES);
	FAILS(madvise(p, 4096, MADV_DONTNEED), EINVAL);
	FAILS(madvise(p, 4096, MADV_DOFORK), EINVAL);
	FAILS(madvise(p, 4096, MADV_DODUMP), EINVAL);
	CHECK_EQ(p[0] + p[3 * 4096], 14);

	/* A part can be unmapped; the rest stays. */
	CHECK_EQ(epk_device_unmap(&dev, p + 4096, 4096), 0);
	CHECK_EQ(p[0] + p[2 * 4096], 14);
	CHECK_EQ(EPK_TRY(p[4096] = 1), SIGSEGV);
	CHECK_EQ(epk_device_stats(&dev).pages, before.pages - 1);

	CHECK_EQ(mprotect(p, 4096, PROT_READ), 0);
	CHECK_EQ(EPK_TRY(p[0] = 1), SIGSEGV);
	CHECK_EQ(mprotect(p, 4096, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(EPK_TRY(p[0] = 1), 0);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4 * 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, before.pages - 4);
	before = epk_device_stats(&dev);
}

/* Freed while mapped: SIGBUS from then on, also for pages that were there. */
static void free_while_mapped(void)
{
	struct epk_stats start = epk_device_stats(&dev);
	struct epk_range range = { .len = 4096 };
	char *p;
	int id;

	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	p = epk_device_map(&dev, id, 3 * 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
	p[0] = p[2 * 4096] = 1;
	REQUIRE(epk_device_unmap(&dev, p + 4096, 4096) == 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	range.addr = (uintptr_t)p;
	CHECK(ioctl(dev.fd, EPK_IOC_POPULATE, &range) == -1 && errno == EINVAL);
	CHECK_EQ(EPK_TRY(p[0] = 2), SIGBUS);
	CHECK_EQ(EPK_TRY(p[2 * 4096] = 2), SIGBUS);
	CHECK_EQ(epk_device_stats(&dev).pages, start.pages + 2);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 3 * 4096), 0);
	CHECK_EQ(epk_device_stats(&dev).pages, start.pages);
}

/* Domain memory counts against RLIMIT_MEMLOCK of those who may not exceed it. */
static void locked_limit(int id)
{
	pid_t pid = fork();
	int status;

	REQUIRE(pid >= 0);
	if (!pid) {
		struct rlimit limit = { 65536, 65536 };
		struct epk_device own;
		int own_id;
		void *p;

		(void)id;
		epk_device_open(&own);
		REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
		REQUIRE(setuid(65534) == 0);
		REQUIRE(epk_device_alloc(&own, 1, &own_id) == 0);
		errno = 0;
		CHECK(epk_device_map(&own, own_id, 65536 + 4096) == MAP_FAILED);
		CHECK_EQ(errno, ENOMEM);
		p = epk_device_map(&own, own_id, 65536);
		CHECK(p != MAP_FAILED);
		CHECK(epk_device_map(&own, own_id, 4096) == MAP_FAILED);
		CHECK_EQ(epk_device_unmap(&own, p, 65536), 0);
		CHECK(epk_device_map(&own, own_id, 65536) != MAP_FAILED);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

/* As a program of 32 bits asks. */
/* How many domains the thread holds; of who does not follow nobody knows. */
static unsigned int nr_held(void)
{
	struct epk_grant list[1];
	struct epk_grants arg = { .num = 1, .list = (uintptr_t)list };

	REQUIRE(ioctl(dev.fd, EPK_IOC_HELD, &arg) == 0);
	return arg.num;
}

/*
 * A first begin that fails registers nobody: neither is closed what is open, nor followed from now on.
 * A switch of threads takes all keys from who has no record, in another way.
 */
static void first_begin_fails(int id, int private, uint32_t switched)
{
	const uint32_t pkru = EPK_PKRU_ALLOW(epk_device_entry(&dev, id).pkey);
	const unsigned long cmds[] = { EPK_IOC_BEGIN, EPK_IOC_CALL };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		FAILS(ioctl(dev.fd, cmds[i], EPK_BEGIN(id + (1 << EPK_ID_INDEX_BITS), PROT_READ)), ENOENT);
		FAILS(ioctl(dev.fd, cmds[i], EPK_BEGIN(0x7fffffff, PROT_READ)), ENOENT);
		FAILS(ioctl(dev.fd, cmds[i], EPK_BEGIN(private, PROT_READ)), EPERM);
		FAILS(ioctl(dev.fd, cmds[i], EPK_BEGIN(id, PROT_EXEC)), EINVAL);
		CHECK(epk_rdpkru() == pkru || epk_rdpkru() == switched);
		CHECK_EQ(nr_held(), 0);
	}
}

static void *begins_first(void *ids)
{
	int id = ((int *)ids)[0], private = ((int *)ids)[1];

	epk_device_enter(&dev, id);
	first_begin_fails(id, private, ~3u);
	/* So with who is registered, and does not follow. */
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	epk_device_enter(&dev, id);
	first_begin_fails(id, private, EPK_PKRU_ALLOW(epk_device_entry(&dev, id).pkey));
	epk_device_enter(&dev, 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ)), 0);
	CHECK_EQ(nr_held(), 1);
	return NULL;
}

static void first_begin(int id)
{
	struct epk_note note = { .flags = EPK_NOTE_PRIVATE };
	int ids[2] = { id };
	pthread_t thread;
	char *p;

	REQUIRE(epk_device_alloc(&dev, 1, &ids[1]) == 0);
	p = epk_device_map(&dev, ids[1], 4096);
	note.id = ids[1];
	note.addr = (uintptr_t)p;
	REQUIRE(p != MAP_FAILED && ioctl(dev.fd, EPK_IOC_NOTE, &note) == 0);
	before = epk_device_stats(&dev);
	REQUIRE(!pthread_create(&thread, NULL, begins_first, ids));
	pthread_join(thread, NULL);
	CHECK_EQ(epk_device_free(&dev, 1, &ids[1]), 0);
	CHECK_EQ(epk_device_unmap(&dev, p, 4096), 0);
	before = epk_device_stats(&dev);
}

static long ioctl_32(int fd, unsigned int request, unsigned int arg)
{
	long ret = 54;

	asm volatile("int $0x80" : "+a"(ret) : "b"(fd), "c"(request), "d"(arg)
		     : "r8", "r9", "r10", "r11", "memory");
	return ret;
}

int main(void)
{
	int id;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	before = epk_device_stats(&dev);

	before_init();
	init_arguments();
	init_without_key();
	other_keys();
	alloc_arguments();
	free_arguments(id);
	move_arguments(id);
	mmap_arguments(id);
	generations();
	last_generation();
	populate_arguments();
	FAILS(ioctl(dev.fd, EPK_IOC_THREAD, 2), EINVAL);
	FAILS(ioctl(dev.fd, EPK_IOC_STATS, NULL), EFAULT);
	FAILS(ioctl(dev.fd, _IO('E', 0xfe), NULL), ENOTTY);
	FAILS(ioctl(dev.fd, 0, NULL), ENOTTY);
	CHECK_EQ(ioctl_32(dev.fd, EPK_IOC_THREAD, 0), -ENOTTY);
	read_only_pages();
	unmap_arguments(id);
	reserve_arguments(id);
	fill_arguments(id);
	protect_arguments(id);
	first_begin(id);
	mapping_calls(id);
	free_while_mapped();
	locked_limit(id);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	return epk_test_result();
}
