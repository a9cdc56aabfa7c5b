// SPDX-License-Identifier: MIT
/* Neighbours: what one user can take and see of what is all users'; see kmod_slowing_test.c. */
#include "neighbour_test.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/syscall.h>

static void run_as(uid_t uid, void (*func)(void))
{
	pid_t pid = fork();

	if (!pid) {
		epk_failures = 0;
		become(uid);
		func();
		_exit(epk_failures != 0);
	}
	finish(pid);
}

static void open_one(void)
{
	CHECK(open_device() >= 0);
}

static void open_none(void)
{
	CHECK_EQ(open_device(), -EDQUOT);
}

/* All users of a namespace of its own are this one, and its capabilities there none. */
static void open_none_in_namespace(void)
{
	if (access("/proc/self/ns/user", F_OK))
		return;
	CHECK_EQ(unshare(CLONE_NEWUSER), 0);
	open_none();
}

static void open_three(void)
{
	int fd[3], i;

	for (i = 0; i < 3; i++)
		CHECK((fd[i] = open_device()) >= 0);
	open_none();
	run_as(getuid(), open_none);
	run_as(getuid(), open_none_in_namespace);
	close(fd[1]);
	fd[1] = open_device();
	CHECK(fd[1] >= 0);
	open_none();
	/* An open that is passed on is still this user's; exec or exit of all ends it. */
	close(fd[0]);
	close(fd[1]);
	close(fd[2]);
	run_as(getuid(), open_one);
}

/* It is root who makes this one other user, and is counted as itself. */
static void open_others(void)
{
	int i;

	for (i = 0; i < 5; i++)
		open_one();
}

static void contexts(void)
{
	parameter("max_user_contexts", "3");
	run_as(USER, open_three);
	run_as(USER, open_three);
	run_as(OTHER, open_three);
	run_as(0, open_others);
	parameter("max_user_contexts", "0");
	run_as(USER, open_others);
	parameter("max_user_contexts", "1024");
}

static void alloc_none(void)
{
	int id;

	epk_device_open(&dev);
	CHECK_EQ(alloc(1, 0, &id), -EDQUOT);
	CHECK_EQ(alloc(1, EPK_ALLOC_SPILL, &id), -EDQUOT);
}

static void alloc_twenty(void)
{
	int ids[20], more[6];

	epk_device_open(&dev);
	CHECK_EQ(alloc(15, 0, ids), 0);
	CHECK_EQ(alloc(6, 0, more), -EDQUOT);
	CHECK_EQ(epk_device_stats(&dev).domains, 15);
	/* What fails for another reason is given back. */
	CHECK_EQ(alloc(5, EPK_ALLOC_AT(5000), more), -EINVAL);
	CHECK_EQ(alloc(5, EPK_ALLOC_SPILL, ids + 15), 0);
	CHECK_EQ(alloc(1, EPK_ALLOC_SPILL, more), -EDQUOT);
	run_as(getuid(), alloc_none);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
	CHECK_EQ(alloc(3, EPK_ALLOC_SPILL, more), -EDQUOT);
	CHECK_EQ(alloc(2, EPK_ALLOC_SPILL, more), 0);
}

static void alloc_forty(void)
{
	int ids[40];

	epk_device_open(&dev);
	CHECK_EQ(alloc(40, EPK_ALLOC_SPILL, ids), 0);
}

static void domains(void)
{
	parameter("max_user_domains", "20");
	run_as(USER, alloc_twenty);
	run_as(USER, alloc_twenty);
	run_as(OTHER, alloc_twenty);
	run_as(0, alloc_forty);
	parameter("max_user_domains", "262144");
	run_as(USER, alloc_forty);
}

static int last_id;

static void *map(size_t pages)
{
	return epk_device_map(&dev, last_id, pages * 4096);
}

static void map_none(void)
{
	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	CHECK(map(1) == MAP_FAILED && errno == ENOMEM);
}

static void map_hundred(void)
{
	char *a, *b;

	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	a = map(60);
	CHECK(a != MAP_FAILED);
	CHECK(map(41) == MAP_FAILED && errno == ENOMEM);
	b = map(40);
	CHECK(b != MAP_FAILED);
	run_as(getuid(), map_none);
	CHECK_EQ(epk_device_unmap(&dev, a, 30 * 4096), 0);
	CHECK(map(31) == MAP_FAILED && errno == ENOMEM);
	CHECK(map(30) != MAP_FAILED);
}

static void map_more(void)
{
	epk_device_open(&dev);
	REQUIRE(alloc(1, 0, &last_id) == 0);
	CHECK(map(200) != MAP_FAILED);
}

static void pages(void)
{
	char normal[32] = "";
	int fd = open(PARAMETERS "max_user_pages", O_RDONLY);

	CHECK(fd >= 0 && read(fd, normal, sizeof(normal) - 1) > 0);
	close(fd);
	parameter("max_user_pages", "100");
	run_as(USER, map_hundred);
	run_as(USER, map_hundred);
	run_as(OTHER, map_hundred);
	run_as(0, map_more);
	parameter("max_user_pages", normal);
	run_as(USER, map_more);
}

/* The last EPTs are not there for who is not root. */
static void not_reserved(void)
{
	int ids[15], id;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(alloc(1, 0, &id) == 0);
	CHECK_EQ(epk_device_move(&dev, id, dev.init.nr_epts), -EINVAL);
	CHECK_EQ(alloc(15, EPK_ALLOC_AT(dev.init.nr_epts), ids), -EINVAL);
	CHECK_EQ(epk_device_move(&dev, id, dev.init.nr_epts - 1), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(dev.identity->ept, dev.init.nr_epts - 1);
}

static unsigned int nr_epts;

static void sees_fewer(void)
{
	not_reserved();
	CHECK_EQ(dev.init.nr_epts, nr_epts - 16);
}

/* All that it may have, so that nothing but the bound can be the reason. */
static void sees_three_quarters(void)
{
	int ids[15];

	epk_device_open(&dev);
	CHECK_EQ(dev.init.nr_epts, nr_epts - nr_epts / 4);
	CHECK_EQ(alloc(15, EPK_ALLOC_AT(dev.init.nr_epts - 1), ids), 0);
}

static void sees_all(void)
{
	not_reserved();
	CHECK_EQ(dev.init.nr_epts, nr_epts);
}

static void none_in_two(void)
{
	int id;

	epk_device_open(&dev);
	/* What another process of the user is in may be shared, nothing else. */
	CHECK_EQ(alloc(1, 0, &id), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 0);
	CHECK_EQ(epk_device_move(&dev, id, 1), 0);
	CHECK_EQ(epk_device_move(&dev, id, 2), -ENOSPC);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 1);
}

static void only_two(void)
{
	int ids[30], more[2];

	epk_device_open(&dev);
	CHECK_EQ(alloc(10, 0, ids), 0);
	/* They do not fit into one: an EPT for them alone, and then what is left. */
	CHECK_EQ(alloc(10, 0, ids + 10), 0);
	CHECK_EQ(epk_device_entry(&dev, ids[10]).ept, 1);
	CHECK_EQ(alloc(10, 0, ids + 20), 0);
	CHECK_EQ(alloc(1, 0, more), -ENOSPC);
	CHECK_EQ(epk_device_stats(&dev).domains, 30);
	CHECK_EQ(epk_device_move(&dev, ids[0], 100), -ENOSPC);
	CHECK_EQ(alloc(2, EPK_ALLOC_SPILL, more), 0);
	CHECK_EQ(epk_device_entry(&dev, more[0]).ept, EPK_EPT_NONE);
	CHECK_EQ(epk_device_move(&dev, more[0], EPK_EPT_ANY), -ENOSPC);
	CHECK_EQ(epk_device_free(&dev, 1, ids), 0);
	CHECK_EQ(epk_device_move(&dev, more[0], EPK_EPT_ANY), 0);
	run_as(getuid(), none_in_two);
}

static void more_than_two(void)
{
	int ids[46];

	epk_device_open(&dev);
	CHECK_EQ(alloc(46, 0, ids), 0);
	CHECK_EQ(epk_device_entry(&dev, ids[45]).ept, 3);
}

static void make_epts(int times)
{
	int id;

	while (times--) {
		epk_device_open(&dev);
		REQUIRE(alloc(1, 0, &id) == 0);
		REQUIRE(epk_device_move(&dev, id, 100 + times % 2) == 0);
		CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		CHECK_EQ(munmap((void *)dev.table, dev.init.table_bytes), 0);
		CHECK_EQ(munmap((void *)dev.identity, 4096), 0);
		close(dev.fd);
	}
}

/*
 * Each makes an EPT and has it destroyed: at once as many as in ten seconds, then no faster,
 * although each time nothing of the user is left.
 */
static void make_many(void)
{
	double start = seconds(CLOCK_MONOTONIC), burst;

	make_epts(20);
	burst = seconds(CLOCK_MONOTONIC) - start;
	make_epts(4);
	printf("20 EPTs: %.3f s, 4 more: %.3f s\n", burst,
	       seconds(CLOCK_MONOTONIC) - start - burst);
	CHECK(burst < .8);
	CHECK(seconds(CLOCK_MONOTONIC) - start >= 1);
}

static void make_as_fast(int times)
{
	double start = seconds(CLOCK_MONOTONIC);

	make_epts(times);
	CHECK(seconds(CLOCK_MONOTONIC) - start < .8);
}

/* What another user has had made is not held against this one. */
static void make_twenty(void)
{
	make_as_fast(20);
}

static void make_many_as_root(void)
{
	make_as_fast(24);
}

/* Nor is what root has had made, which is not bounded, against a process of root's that is. */
static void make_twenty_bounded(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	CHECK_EQ(syscall(SYS_capset, &head, none), 0);
	make_as_fast(20);
}

static void epts(void)
{
	epk_device_open(&dev);
	nr_epts = dev.init.nr_epts;
	/* One is everybody's. */
	if (epk_device_is_alone(&dev))
		return;
	run_as(0, sees_all);
	run_as(USER, sees_fewer);
	parameter("reserved_epts", "100000");
	run_as(USER, sees_three_quarters);
	parameter("reserved_epts", "16");
	parameter("max_user_epts", "2");
	run_as(USER, only_two);
	run_as(OTHER, only_two);
	run_as(0, more_than_two);
	parameter("max_user_epts", "0");
	run_as(USER, more_than_two);
	parameter("user_epts_per_second", "2");
	run_as(USER, make_many);
	run_as(OTHER, make_twenty);
	run_as(0, make_many_as_root);
	run_as(0, make_twenty_bounded);
	parameter("user_epts_per_second", "100");
}

/* Who is not root sees what is its own. */
static void counts(bool all)
{
	struct epk_stats stats;
	char *p;
	int ids[2];

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	REQUIRE(alloc(2, 0, ids) == 0);
	REQUIRE(epk_device_move(&dev, ids[0], 1) == 0);
	p = epk_device_map(&dev, ids[0], 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, ids[0]);
	*p = 1;
	sched_yield();
	stats = epk_device_stats(&dev);
	epk_device_enter(&dev, 0);
	CHECK_EQ(stats.domains, 2);
	CHECK_EQ(stats.epts, epk_device_is_alone(&dev) ? 1 : 2);
	CHECK_EQ(stats.pages, 1);
	CHECK_EQ(stats.moves, !epk_device_is_alone(&dev));
	CHECK_EQ(stats.page_faults, 1);
	CHECK_EQ(stats.vm_domains > 0, all);
	CHECK_EQ(stats.vm_epts > 0, all);
	CHECK_EQ(stats.vm_pages > 0, all);
	CHECK_EQ(stats.vm_exits > 0, all && !epk_device_is_alone(&dev));
	CHECK(all || !stats.vm_faults);
	CHECK(all || !stats.rescues);
}

static void counts_own(void)
{
	counts(false);
}

static void counts_all(void)
{
	counts(true);
}

/* Before it has a context in use, too. */
static void counts_early(void)
{
	struct epk_stats stats;

	dev.fd = open_device();
	stats = epk_device_stats(&dev);
	CHECK(!stats.vm_domains && !stats.vm_epts && !stats.vm_pages && !stats.vm_exits &&
	      !stats.vm_faults && !stats.rescues);
}

static void statistics(void)
{
	run_as(0, counts_all);
	run_as(USER, counts_own);
	run_as(USER, counts_early);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	REQUIRE(chmod(EPK_DEVICE, 0666) == 0);
	statistics();
	contexts();
	domains();
	pages();
	epts();
	CHECK_EQ(chmod(EPK_DEVICE, 0600), 0);
	return epk_test_result();
}
