// SPDX-License-Identifier: MIT
#include <linux/membarrier.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "account.h"
#include "vmm.h"

#define CGROUPS		"/tmp/cgroup"
#define CGROUP		CGROUPS "/epk-test"

/* What a process's own kernel memory may differ by from one moment to another. */
#define SLACK_BYTES	(32u << 10)

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

bool account_clean(uint64_t before)
{
	uint64_t now = account_kernel_bytes();
	bool back = now <= before + SLACK_BYTES;

	printf("kernel memory of the cgroup: %lu bytes before, %lu after%s\n", before, now,
	       back ? "" : ": NOT BACK");
	return back;
}
