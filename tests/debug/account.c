// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "account.h"
#include "vmm.h"

#define CGROUPS		"/tmp/cgroup"
#define CGROUP		CGROUPS "/epk-test"
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define PAGE_OWNER	"/sys/kernel/debug/page_owner"

/* What a process's own kernel memory may differ by from one moment to another. */
#define SLACK_BYTES	(32u << 10)

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

void account_begin(void)
{
	char pid[16];

	mkdir(CGROUPS, 0700);
	if (access(CGROUPS "/cgroup.procs", F_OK))
		REQUIRE(!mount("none", CGROUPS, "cgroup2", 0, NULL));
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	REQUIRE(!mkdir(CGROUP, 0700) || errno == EEXIST);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_file(CGROUP "/cgroup.procs", pid);
	if (!access(KMEMLEAK, F_OK))
		write_file(KMEMLEAK, "clear");
}

uint64_t account_kernel_bytes(void)
{
	unsigned long bytes = 0;
	char line[128];
	FILE *file;

	/* Twice: what the first callbacks queue is freed by the second. */
	REQUIRE(!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
	REQUIRE(!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
	file = fopen(CGROUP "/memory.stat", "r");
	REQUIRE(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "kernel %lu", &bytes) == 1)
			break;
	}
	fclose(file);
	REQUIRE(bytes);
	return bytes;
}

/*
 * Two scans in a row have to find an object without a reference, unchanged, and
 * it has to be at least five seconds old.
 */
static bool kmemleak_clean(void)
{
	unsigned int lines = 0;
	char line[256];
	FILE *file;

	if (access(KMEMLEAK, F_OK)) {
		printf("kmemleak: not in this kernel\n");
		return true;
	}
	sleep(6);
	write_file(KMEMLEAK, "scan");
	write_file(KMEMLEAK, "scan");
	file = fopen(KMEMLEAK, "r");
	REQUIRE(file);
	while (fgets(line, sizeof(line), file)) {
		if (lines++ < 60)
			printf("    %s", line);
	}
	fclose(file);
	printf("kmemleak: %s\n", lines ? "LEAKS" : "clean");
	return !lines;
}

/* Pages that kvm or kvm_intel allocated; only the modules' own may be left. */
static unsigned long pages_of_kvm(bool show)
{
	unsigned long pages = 0;
	char line[512], entry[4096] = "";
	bool ours = false;
	FILE *file = fopen(PAGE_OWNER, "r");

	REQUIRE(file);
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "Page allocated", 14)) {
			entry[0] = 0;
			ours = false;
		}
		if (strlen(entry) + strlen(line) < sizeof(entry))
			strcat(entry, line);
		ours = ours || strstr(line, "[kvm");
		if (line[0] != '\n' || !ours)
			continue;
		if (show && pages < 4)
			printf("%s", entry);
		pages++;
		ours = false;
	}
	fclose(file);
	return pages;
}

static bool page_owner_clean(void)
{
	unsigned long pages;
	char line[16];
	int fd = open(PAGE_OWNER, O_RDONLY);
	bool there = fd >= 0 && read(fd, line, sizeof(line)) > 0;

	close(fd);
	if (!there) {
		printf("page_owner: not in this kernel\n");
		return true;
	}
	pages = pages_of_kvm(false);
	printf("page_owner: %lu allocations of KVM\n", pages);
	if (pages)
		pages_of_kvm(true);
	return !pages;
}

bool account_clean(uint64_t before)
{
	uint64_t now = account_kernel_bytes();
	bool back = now <= before + SLACK_BYTES;

	printf("kernel memory of the cgroup: %lu bytes before, %lu after%s\n", before, now,
	       back ? "" : ": NOT BACK");
	back = kmemleak_clean() && back;
	return page_owner_clean() && back;
}
