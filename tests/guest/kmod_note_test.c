// SPDX-License-Identifier: MIT
/*
 * Notes: where a domain's page lies is said once, of memory that is the domain's own, in a table
 * that the process cannot write; and it is gone before the domain's index can be another's.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGE	4096ul

static struct epk_device dev;
static const volatile uint64_t *notes;
static int ids[3];
static char *mem[3];

static int note(int id, const volatile void *addr)
{
	struct epk_note arg = { .id = id, .addr = (uintptr_t)addr };

	return ioctl(dev.fd, EPK_IOC_NOTE, &arg) ? -errno : 0;
}

static uint64_t noted(int id)
{
	return notes[EPK_ID_INDEX(id)];
}

static void map_notes(void)
{
	size_t bytes = dev.init.table_bytes;

	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_NOTES) == MAP_FAILED &&
	      errno == EINVAL);
	CHECK(mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, dev.fd, EPK_MMAP_NOTES) == MAP_FAILED &&
	      errno == EINVAL);
	CHECK(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, dev.fd, EPK_MMAP_NOTES) ==
	      MAP_FAILED && errno == EACCES);
	CHECK(mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, dev.fd, EPK_MMAP_NOTES) ==
	      MAP_FAILED && errno == EACCES);
	notes = mmap(NULL, bytes, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_NOTES);
	REQUIRE(notes != MAP_FAILED);
	/* Of indices that were never used, too. */
	CHECK_EQ(notes[0], 0);
	CHECK_EQ(notes[1], 0);
	CHECK_EQ(notes[bytes / 8 - 1], 0);
}

static void *file_of(int id)
{
	int file = memfd_create("note", 0);
	struct epk_file arg = { .len = PAGE, .id = id, .fd = file, .prot = PROT_READ };

	REQUIRE(file >= 0 && !ftruncate(file, PAGE));
	REQUIRE(ioctl(dev.fd, EPK_IOC_FILE, &arg) == 0);
	close(file);
	return (void *)arg.addr;
}

/* Nothing of this writes a note. */
/* With page tables of five levels there are addresses that no note has room for. */
static void too_high(void)
{
	void *high = mmap((void *)(1ul << 50), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, dev.fd,
			  EPK_MMAP_DOMAIN(ids[0]));

	REQUIRE(high != MAP_FAILED);
	if (high < (void *)(1ul << 48))
		printf("no addresses above %p\n", high);
	else
		CHECK_EQ(note(ids[0], high), -EINVAL);
	CHECK_EQ(epk_device_unmap(&dev, high, PAGE), 0);
}

static void refused(void)
{
	struct epk_note arg = { .id = ids[0], .flags = 2, .addr = (uintptr_t)mem[0] };
	char *plain = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *file = file_of(ids[0]);
	char *dead;
	int id;

	CHECK(ioctl(dev.fd, EPK_IOC_NOTE, &arg) == -1 && errno == EINVAL);
	CHECK(ioctl(dev.fd, EPK_IOC_NOTE, NULL) == -1 && errno == EFAULT);
	CHECK_EQ(note(0, mem[0]), -ENOENT);
	CHECK_EQ(note(-1, mem[0]), -ENOENT);
	CHECK_EQ(note(0x7fffffff, mem[0]), -ENOENT);
	CHECK_EQ(note(ids[0] + (1 << EPK_ID_INDEX_BITS), mem[0]), -ENOENT);
	/* Not whole pages; another domain's; nobody's; a file's; none at all. */
	CHECK_EQ(note(ids[0], mem[0] + 8), -EINVAL);
	CHECK_EQ(note(ids[0], mem[1]), -EINVAL);
	CHECK_EQ(note(ids[0], plain), -EINVAL);
	CHECK_EQ(note(ids[0], file), -EINVAL);
	CHECK_EQ(note(ids[0], dev.table), -EINVAL);
	CHECK_EQ(note(ids[0], notes), -EINVAL);
	CHECK_EQ(note(ids[0], dev.identity), -EINVAL);
	CHECK_EQ(note(ids[0], NULL), -EINVAL);
	CHECK_EQ(note(ids[0], (void *)~4095ul), -EINVAL);
	CHECK_EQ(note(ids[0], (void *)0x7fffffffe000), -EINVAL);
	too_high();
	CHECK_EQ(epk_device_unmap(&dev, mem[0] + PAGE, PAGE), 0);
	CHECK_EQ(note(ids[0], mem[0] + PAGE), -EINVAL);
	/* What is left of a domain that was freed, for itself and for another. */
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	dead = epk_device_map(&dev, id, PAGE);
	REQUIRE(dead != MAP_FAILED && epk_device_free(&dev, 1, &id) == 0);
	CHECK_EQ(note(id, dead), -ENOENT);
	CHECK_EQ(note(ids[0], dead), -EINVAL);
	CHECK_EQ(epk_device_unmap(&dev, dead, PAGE), 0);
	CHECK_EQ(epk_device_unmap(&dev, file, PAGE), 0);
	munmap(plain, PAGE);
	CHECK_EQ(noted(ids[0]), 0);
	CHECK_EQ(noted(ids[1]), 0);
}

static void once(void)
{
	CHECK_EQ(note(ids[0], mem[0] + 2 * PAGE), 0);
	CHECK_EQ(noted(ids[0]), (uintptr_t)mem[0] + 2 * PAGE);
	CHECK_EQ(note(ids[0], mem[0]), -EBUSY);
	CHECK_EQ(note(ids[0], mem[0] + 2 * PAGE), -EBUSY);
	/* What is wrong otherwise is said all the same. */
	CHECK_EQ(note(ids[0], mem[1]), -EINVAL);
	CHECK_EQ(noted(ids[0]), (uintptr_t)mem[0] + 2 * PAGE);
	CHECK_EQ(noted(ids[1]), 0);
	/* Evicted, and where it cannot be touched. */
	CHECK_EQ(epk_device_move(&dev, ids[1], EPK_EPT_NONE), 0);
	CHECK_EQ(mprotect(mem[1], PAGE, PROT_NONE), 0);
	CHECK_EQ(note(ids[1], mem[1]), 0);
	CHECK_EQ(noted(ids[1]), (uintptr_t)mem[1]);
	CHECK_EQ(epk_device_move(&dev, ids[1], EPK_EPT_ANY), 0);
	CHECK_EQ(noted(ids[1]), (uintptr_t)mem[1]);
	/* The page goes, the note stays, and so does what it says. */
	CHECK_EQ(epk_device_unmap(&dev, mem[0], 3 * PAGE), 0);
	CHECK_EQ(noted(ids[0]), (uintptr_t)mem[0] + 2 * PAGE);
	mem[0] = epk_device_map(&dev, ids[0], 3 * PAGE);
	REQUIRE(mem[0] != MAP_FAILED);
	CHECK_EQ(note(ids[0], mem[0]), -EBUSY);
}

static void read_only(void)
{
	void *page = (void *)notes;

	CHECK_EQ(EPK_TRY(*(volatile uint64_t *)notes = 1), SIGSEGV);
	CHECK(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
	CHECK(mprotect(page, PAGE, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
	CHECK(munmap(page, PAGE) == -1 && errno == EPERM);
	CHECK(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0) == MAP_FAILED && errno == EPERM);
	CHECK(mmap(page, dev.init.table_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, dev.fd,
		   EPK_MMAP_TABLE) == MAP_FAILED && errno == EPERM);
	CHECK(syscall(SYS_mremap, page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		      (char *)page - (1 << 30)) == -1 && errno == EINVAL);
	CHECK(syscall(SYS_mremap, page, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == -1 && errno == EFAULT);
	CHECK(madvise(page, PAGE, MADV_DOFORK) == -1 && errno == EINVAL);
	CHECK_EQ(noted(ids[1]), (uintptr_t)mem[1]);
}

static void forked(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		CHECK_EQ(EPK_TRY((void)notes[1]), SIGSEGV);
		CHECK_EQ(note(ids[2], mem[2]), -EPERM);
		_exit(epk_failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK_EQ(noted(ids[2]), 0);
}

/* As many as are needed for indices to come again. */
#define ROUND	10000

static volatile int watched, seen_wrong, stop;

/* In this order: an index that is in use by a domain that has no note. */
static void *watch(void *unused)
{
	while (!stop) {
		int index = watched;
		uint64_t before = *(const volatile uint64_t *)&dev.table[index];
		uint64_t at = notes[index];

		if (before & 0xffffffff && before == *(const volatile uint64_t *)&dev.table[index])
			seen_wrong += at != 0;
	}
	return unused;
}

static void freed(void)
{
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	int index = EPK_ID_INDEX(ids[1]), id, i;
	pthread_t thread;

	arg.ids = (uintptr_t)&id;
	CHECK(noted(ids[1]));
	CHECK_EQ(epk_device_unmap(&dev, mem[1], 3 * PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &ids[1]), 0);
	CHECK_EQ(noted(ids[1]), 0);
	CHECK_EQ(noted(ids[0]) != 0, 1);

	watched = index;
	REQUIRE(!pthread_create(&thread, NULL, watch, NULL));
	for (i = 0; i < ROUND; i++) {
		REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
		if ((int)EPK_ID_INDEX(id) == index)
			break;
		REQUIRE(epk_device_free(&dev, 1, &id) == 0);
	}
	CHECK(i < ROUND && id != ids[1]);
	sched_yield();
	CHECK_EQ(noted(id), 0);
	stop = 1;
	pthread_join(thread, NULL);
	CHECK_EQ(seen_wrong, 0);
	mem[1] = epk_device_map(&dev, id, PAGE);
	CHECK_EQ(note(ids[1], mem[1]), -ENOENT);
	CHECK_EQ(note(id, mem[1]), 0);
	CHECK_EQ(noted(id), (uintptr_t)mem[1]);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(noted(id), 0);
}

/* A domain whose index no page of the table has been made for. */
static void far_index(void)
{
	static int many[5000];
	struct epk_domains arg = { .num = 5000, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)many };
	char *page;

	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	page = epk_device_map(&dev, many[4999], PAGE);
	REQUIRE(page != MAP_FAILED);
	CHECK_EQ(note(many[4999], page), 0);
	CHECK_EQ(noted(many[4999]), (uintptr_t)page);
	CHECK_EQ(noted(many[4998]), 0);
	CHECK_EQ(epk_device_unmap(&dev, page, PAGE), 0);
	CHECK_EQ(epk_device_free(&dev, 5000, many), 0);
	CHECK_EQ(noted(many[4999]), 0);
}

/* When there is no domain it can be unmapped as any other. */
static void gone(void)
{
	int i;

	for (i = 0; i < 3; i++)
		epk_device_free(&dev, 1, &ids[i]);
	CHECK_EQ(epk_device_stats(&dev).domains, 0);
	CHECK_EQ(noted(ids[0]), 0);
	CHECK_EQ(munmap((void *)notes, dev.init.table_bytes), 0);
	notes = mmap(NULL, dev.init.table_bytes, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_NOTES);
	REQUIRE(notes != MAP_FAILED);
	CHECK_EQ(epk_device_unmap(&dev, notes, dev.init.table_bytes), 0);
}

int main(void)
{
	int i;

	epk_device_open(&dev);
	map_notes();
	REQUIRE(epk_device_alloc(&dev, 3, ids) == 0);
	for (i = 0; i < 3; i++) {
		mem[i] = epk_device_map(&dev, ids[i], 3 * PAGE);
		REQUIRE(mem[i] != MAP_FAILED);
	}
	refused();
	mem[0] = epk_device_map(&dev, ids[0], 3 * PAGE);
	REQUIRE(mem[0] != MAP_FAILED);
	once();
	read_only();
	forked();
	freed();
	far_index();
	gone();
	return epk_test_result();
}
