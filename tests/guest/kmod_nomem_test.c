// SPDX-License-Identifier: MIT
/*
 * On the debug kernel: the first, the second ... allocation of each call of the module fails,
 * until none is left.  The call says ENOMEM, or a touch raises SIGBUS, or it can do without;
 * what is refused leaves all as it was, and works when it is tried again.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sys/syscall.h>

#define MAX_NTH		400
#define PAGES		4
/* More than fit into two EPTs. */
#define NR_MANY		40
#define HUGE		(2ul << 20)

static struct epk_device dev;
static int id, far_id, ids[NR_MANY];
static volatile char *p;

static void fail_init(void)
{
	REQUIRE(put("/sys/kernel/debug/failslab/ignore-gfp-wait", "N"));
	REQUIRE(put("/sys/kernel/debug/failslab/verbose", "0"));
	REQUIRE(put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N"));
	REQUIRE(put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N"));
	REQUIRE(put("/sys/kernel/debug/fail_page_alloc/min-order", "0"));
	REQUIRE(put("/sys/kernel/debug/fail_page_alloc/verbose", "0"));
}

/* Of the calling thread; opened before anything fails. */
static __thread int fail_fd = -1;

static void fail_nth(unsigned int nth)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u", nth);

	if (fail_fd < 0)
		fail_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	REQUIRE(pwrite(fail_fd, text, n, 0) == n);
}

static bool fail_happened(void)
{
	char text[16] = "";

	REQUIRE(pread(fail_fd, text, sizeof(text) - 1, 0) > 0);
	return strtoul(text, NULL, 10) == 0;
}

/* Each returns 0 or an error; of a touch, EFAULT stands for SIGBUS. */
static int touch(volatile char *at)
{
	int sig = EPK_TRY(*at += 1);

	return sig == SIGBUS ? EFAULT : sig;
}

static int error_of(long ret)
{
	return ret == -1 ? errno : 0;
}

static int other_fd;

static int do_open(void)
{
	other_fd = open(EPK_DEVICE, O_RDWR);
	return error_of(other_fd);
}

static void undo_open(void)
{
	close(other_fd);
}

/* The process has no context, but in the end. */
static int do_init(void)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };

	return error_of(ioctl(other_fd, EPK_IOC_INIT, &init));
}

static int do_alloc(void)
{
	struct epk_domains arg = {
		.num = 1, .flags = EPK_ALLOC_AT(100), .ids = (uintptr_t)&far_id,
	};

	return error_of(ioctl(dev.fd, EPK_IOC_ALLOC, &arg));
}

static void undo_alloc(void)
{
	CHECK_EQ(epk_device_free(&dev, 1, &far_id), 0);
}

static int do_alloc_many(void)
{
	return -epk_device_alloc(&dev, NR_MANY, ids);
}

static void undo_alloc_many(void)
{
	CHECK_EQ(epk_device_free(&dev, NR_MANY, ids), 0);
}

static int do_free(void)
{
	return -epk_device_free(&dev, NR_MANY, ids);
}

static void make_many(void)
{
	REQUIRE(epk_device_alloc(&dev, NR_MANY, ids) == 0);
}

static void map(size_t len)
{
	p = epk_device_map(&dev, id, len);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, id);
}

static void map_some(void)
{
	map(PAGES * 4096);
}

static void map_touched(void)
{
	map_some();
	memset((void *)p, 7, PAGES * 4096);
}

static void map_huge(void)
{
	map(HUGE);
}

static int do_map(void)
{
	p = epk_device_map(&dev, id, PAGES * 4096);
	return error_of((long)p);
}

static void undo_map(void)
{
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, PAGES * 4096), 0);
}

static void undo_map_huge(void)
{
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_unmap(&dev, p, HUGE), 0);
}

static int do_touch(void)
{
	return touch(p + 4096);
}

static int do_populate(void)
{
	return -epk_device_populate(&dev, p, PAGES * 4096);
}

/* The pages are there all the time. */
static int do_move(void)
{
	struct epk_entry at = epk_device_entry(&dev, id);
	int ret = -epk_device_move(&dev, id, at.ept == 60 ? 61 : 60);

	epk_device_enter(&dev, id);
	CHECK_EQ(p[0] + p[3 * 4096], 14);
	return ret;
}

static int do_evict(void)
{
	return -epk_device_move(&dev, id, EPK_EPT_NONE);
}

static void make_evicted(void)
{
	map_touched();
	CHECK_EQ(do_evict(), 0);
}

static int do_readmit(void)
{
	int ret = -epk_device_move(&dev, id, EPK_EPT_ANY);

	if (ret)
		return ret;
	epk_device_enter(&dev, id);
	CHECK_EQ(p[0] + p[3 * 4096], 14);
	return 0;
}

static void readmit(void)
{
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), 0);
	undo_map();
}

/* Cut in the middle, which needs new VMAs. */
static int do_unmap(void)
{
	return error_of(epk_device_unmap(&dev, (p + 4096), 4096));
}

static int do_protect(void)
{
	return error_of(mprotect((void *)(p + 4096), 4096, PROT_READ));
}

static void map_huge_touched(void)
{
	map_huge();
	p[0] = p[3 * 4096] = 7;
	/* No move makes an EPT from here on. */
	CHECK_EQ(do_move(), 0);
	CHECK_EQ(do_move(), 0);
}

/* Not cut, its pages are still there and go where the domain goes. */
static int do_cut_huge(void)
{
	int ret = do_unmap();

	if (ret)
		CHECK_EQ(do_move(), 0);
	return ret;
}

static int file;

static int do_file(void)
{
	struct epk_file arg = {
		.len = PAGES * 4096, .id = id, .fd = file, .prot = PROT_READ | PROT_WRITE,
	};
	int ret = error_of(ioctl(dev.fd, EPK_IOC_FILE, &arg));

	p = (void *)(uintptr_t)arg.addr;
	return ret;
}

static void map_file(void)
{
	CHECK_EQ(ftruncate(file, 0) | ftruncate(file, PAGES * 4096), 0);
	REQUIRE(do_file() == 0);
	epk_device_enter(&dev, id);
}

static int do_read(void)
{
	int sig = EPK_TRY((void)p[4096]);

	return sig == SIGBUS ? EFAULT : sig;
}

static void map_file_read(void)
{
	map_file();
	REQUIRE(do_read() == 0);
}

/* A thread of its own for each: it is registered once. */
static unsigned int thread_nth;
static int thread_ret;
static bool thread_happened;

static void *registers(void *arg)
{
	fail_nth(thread_nth);
	thread_ret = error_of(ioctl(dev.fd, EPK_IOC_THREAD, 0));
	thread_happened = fail_happened();
	fail_nth(0);
	close(fail_fd);
	return arg;
}

static const struct step {
	const char *name;
	void (*prepare)(void);
	int (*attempt)(void);
	void (*undo)(void);
	int error;	/* what it says, or 0 if it never fails */
} steps[] = {
	{ "alloc", NULL, do_alloc, undo_alloc, ENOMEM },
	{ "alloc-many", NULL, do_alloc_many, undo_alloc_many, ENOMEM },
	{ "free", make_many, do_free, NULL, ENOMEM },
	{ "map", NULL, do_map, undo_map, ENOMEM },
	{ "touch", map_some, do_touch, undo_map, EFAULT },
	{ "touch-huge", map_huge, do_touch, undo_map_huge, 0 },
	{ "populate", map_some, do_populate, undo_map, ENOMEM },
	{ "move", map_touched, do_move, undo_map, ENOMEM },
	{ "evict", map_touched, do_evict, readmit, ENOMEM },
	{ "readmit", make_evicted, do_readmit, undo_map, ENOMEM },
	{ "unmap-part", map_touched, do_unmap, undo_map, ENOMEM },
	{ "cut-huge", map_huge_touched, do_cut_huge, undo_map_huge, ENOMEM },
	{ "protect-part", map_touched, do_protect, undo_map, ENOMEM },
	{ "file", NULL, do_file, undo_map, ENOMEM },
	{ "file-touch", map_file, do_touch, undo_map, EFAULT },
	{ "file-read", map_file, do_read, undo_map, EFAULT },
	{ "file-write", map_file_read, do_touch, undo_map, 0 },
};

/* Fail allocation @nth of one attempt.  False if there are not so many. */
static bool one_failure(const struct step *step, unsigned int nth, unsigned int *refused)
{
	struct epk_stats before, after;
	bool happened;
	int ret;

	if (step->prepare)
		step->prepare();
	before = epk_device_stats(&dev);
	fail_nth(nth);
	ret = step->attempt();
	happened = fail_happened();
	fail_nth(0);
	if (ret) {
		++*refused;
		after = epk_device_stats(&dev);
		if (!CHECK(happened && ret == step->error && after.domains == before.domains &&
			   after.vm_epts == before.vm_epts))
			printf("%s: %s, allocation %u%s; domains %llu, were %llu; EPTs %llu, were %llu\n",
			       step->name, strerror(ret), nth, happened ? "" : " did not fail",
			       (unsigned long long)after.domains, (unsigned long long)before.domains,
			       (unsigned long long)after.vm_epts, (unsigned long long)before.vm_epts);
		/* Populating keeps what it has. */
		CHECK(after.pages - before.pages < PAGES);
		CHECK_EQ(step->attempt(), 0);
	}
	if (step->undo)
		step->undo();
	return happened;
}

static void run_step(const struct step *step)
{
	unsigned int nth = 0, refused = 0;

	while (++nth < MAX_NTH && one_failure(step, nth, &refused))
		;
	CHECK(nth < MAX_NTH);
	printf("%s: %u allocations failed, %u attempts refused\n", step->name, nth - 1, refused);
	CHECK(!refused || step->error);
	epk_device_enter(&dev, 0);
	CHECK_EQ(epk_device_stats(&dev).pages, 0);
	CHECK_EQ(epk_device_stats(&dev).domains, 1);
}

static void threads(void)
{
	unsigned int refused = 0;
	pthread_t thread;

	for (thread_nth = 1; thread_nth < MAX_NTH; thread_nth++) {
		CHECK_EQ(pthread_create(&thread, NULL, registers, NULL), 0);
		pthread_join(thread, NULL);
		if (thread_ret)
			CHECK(thread_happened && thread_ret == ENOMEM);
		refused += thread_ret != 0;
		if (!thread_happened)
			break;
	}
	printf("thread: %u attempts refused\n", refused);
	CHECK(refused);
}

static const struct step opening = { "open", NULL, do_open, undo_open, ENOMEM };
static const struct step starting = { "init", NULL, do_init, NULL, ENOMEM };

/* Without a context there are no statistics. */
static void beginning(const struct step *step)
{
	unsigned int nth, refused = 0;
	bool happened;
	int ret;

	for (nth = 1; nth < MAX_NTH; nth++) {
		if (step == &starting)
			REQUIRE(do_open() == 0);
		fail_nth(nth);
		ret = step->attempt();
		happened = fail_happened();
		fail_nth(0);
		if (ret) {
			refused++;
			CHECK(happened && ret == step->error);
			CHECK_EQ(step->attempt(), 0);
		}
		undo_open();
		if (!happened)
			break;
	}
	printf("%s: %u allocations failed, %u attempts refused\n", step->name, nth - 1, refused);
	CHECK(nth < MAX_NTH);
	/* What INIT wants much memory for does with any pages, if there is none in one piece. */
	CHECK(refused || step == &starting);
}

int main(void)
{
	unsigned int i;

	REQUIRE(epk_all_pkeys() == 0xfffe);
	fail_init();
	beginning(&opening);
	beginning(&starting);

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	file = memfd_create("nomem", 0);
	REQUIRE(file >= 0 && ftruncate(file, PAGES * 4096) == 0);
	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		run_step(&steps[i]);
	threads();
	return epk_test_result();
}
