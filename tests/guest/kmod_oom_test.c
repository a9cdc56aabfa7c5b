// SPDX-License-Identifier: MIT
/*
 * A memory cgroup's limit holds for domain memory, and who has it is known: where memory is
 * wanted that is not to be had, the process is killed that has most of it in domains, and not
 * one beside it that has less of ordinary memory.
 */
#include "epk_test.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CGROUP		"/tmp/cgroup-oom"
#define LIMIT		"24M"
#define LESS		(6ul << 20)
#define MORE		(64ul << 20)
#define PRINTK		"/proc/sys/kernel/printk"

static void join(void)
{
	REQUIRE(put(CGROUP "/test/cgroup.procs", "0"));
}

static void fill(volatile char *p, size_t bytes)
{
	size_t at;

	for (at = 0; at < bytes; at += 4096)
		p[at] = 1;
}

/* Says when it has its memory, and then wants more, as anybody does now and then. */
static pid_t start_bystander(int *said)
{
	int ends[2];
	pid_t pid;

	REQUIRE(pipe(ends) == 0);
	pid = fork();
	if (!pid) {
		join();
		fill(mmap(NULL, LESS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		     LESS);
		REQUIRE(write(ends[1], "", 1) == 1);
		pause();
	}
	close(ends[1]);
	*said = ends[0];
	return pid;
}

/* More than there is: @advice on the size of its pages. */
static pid_t start_owner(int advice)
{
	pid_t pid = fork();

	if (!pid) {
		struct epk_device dev;
		void *memory;
		int id;

		join();
		epk_device_open(&dev);
		REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
		memory = epk_device_map(&dev, id, MORE);
		REQUIRE(memory != MAP_FAILED);
		madvise(memory, MORE, advice);
		epk_device_enter(&dev, id);
		fill(memory, MORE);
		_exit(0);
	}
	return pid;
}

static void who_is_killed(int advice)
{
	int status = 0, said;
	pid_t bystander = start_bystander(&said), owner;
	char c;

	CHECK_EQ(read(said, &c, 1), 1);
	owner = start_owner(advice);
	CHECK(waitpid(owner, &status, 0) == owner);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(waitpid(bystander, &status, WNOHANG) == 0);
	kill(bystander, SIGKILL);
	waitpid(bystander, &status, 0);
	close(said);
}

int main(void)
{
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	mkdir(CGROUP, 0700);
	REQUIRE(mount("none", CGROUP, "cgroup2", 0, NULL) == 0);
	REQUIRE(put(CGROUP "/cgroup.subtree_control", "+memory"));
	REQUIRE(mkdir(CGROUP "/test", 0700) == 0);
	REQUIRE(put(CGROUP "/test/memory.max", LIMIT));
	/* What the kernel says of who is killed looks like a report of something worse. */
	REQUIRE(put(PRINTK, "1"));
	who_is_killed(MADV_NOHUGEPAGE);
	who_is_killed(MADV_HUGEPAGE);
	REQUIRE(put(PRINTK, "5"));
	CHECK_EQ(rmdir(CGROUP "/test"), 0);
	put(CGROUP "/cgroup.subtree_control", "-memory");
	CHECK_EQ(umount(CGROUP), 0);
	return epk_test_result();
}
