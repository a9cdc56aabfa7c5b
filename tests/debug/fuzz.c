// SPDX-License-Identifier: MIT
#include <sys/random.h>
#include <sys/wait.h>

#include "account.h"
#include "choose.h"
#include "fuzz.h"

static uint64_t fuzz_seed;

void *fuzz_begin(const char *seed, size_t size)
{
	void *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	REQUIRE(shared != MAP_FAILED);
	setvbuf(stdout, NULL, _IOLBF, 0);
	fuzz_seed = seed ? strtoull(seed, NULL, 0) : 0;
	if (!fuzz_seed)
		REQUIRE(getrandom(&fuzz_seed, 4, 0) == 4);
	printf("seed %lu\n", fuzz_seed);
	ram_init();
	return shared;
}

bool fuzz_vm(unsigned int number, unsigned int sequences, fuzz_vm_fn *run)
{
	pid_t pid = fork_case();
	int status;

	if (!pid) {
		run(fuzz_seed, number, sequences);
		fflush(stdout);
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	if (status)
		printf("VM %u of seed %lu failed, status %#x\n", number, fuzz_seed, status);
	return !status;
}

bool fuzz_vms(unsigned int vms, unsigned int sequences, fuzz_vm_fn *run)
{
	uint64_t before = 0;
	bool good = true;
	unsigned int i;

	account_begin();
	for (i = 0; good && i < vms; i++) {
		good = fuzz_vm(i, sequences, run);
		/* The first one may leave what the host keeps for all. */
		if (!i)
			before = account_kernel_bytes();
		if (i % 20 == 19)
			printf("%u of %u VMs\n", i + 1, vms);
	}
	return account_clean(before) && good;
}
