// SPDX-License-Identifier: MIT
/*
 * What the page faults of a vCPU wait for while a memslot is deleted: not for what
 * grows with the number of EPTs.  Two CPUs; the time stamp counter counts instructions,
 * of which the CPUs make as many each.
 */
#include "vmm.h"

#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define FAR_GPA		(400 * GiB)
#define DELETED		3
#define NR_PAGES	4096ull
#define ROUNDS		9

static volatile uint64_t linked, go, deleted, measured, worst;
static uint32_t epts;

/* Every EPT has tables of the roots that a deletion is to abandon, far apart. */
static void link_all(void)
{
	uint32_t i;

	for (i = 0; i < epts; i++) {
		vmfunc(i);
		read64(alias(i, SLOT_GPA));
		read64(at(SLOT_GPA));
		read64(at(FAR_GPA));
	}
	vmfunc(0);
}

static void guest_fault(void)
{
	uint64_t round, page, start, took;

	epk_set_up(epts - 1);
	for (round = 1; round <= ROUNDS; round++) {
		link_all();
		worst = 0;
		linked = round;
		while (go < round)
			pass_time();
		/* Each page is new; a deletion is over in less. */
		for (page = 0; deleted < round; page++) {
			start = rdtsc();
			write64(at(SLOT_GPA + page % NR_PAGES * PAGE), page);
			took = rdtsc() - start;
			if (took > worst)
				worst = took;
		}
		measured = round;
	}
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	REQUIRE(!sched_setaffinity(0, sizeof(set), &set));
}

static void *fault(void *arg)
{
	run_on(1);
	vcpu_run_done(arg);
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/*
 * The median of each deletion's worst fault.  Not the worst of all: the more EPTs, the
 * longer a deletion takes, and the likelier it is that a tick, or another thread of the
 * kernel, comes upon one of the faults meanwhile.
 */
static uint64_t measure(uint32_t nr)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;
	uint64_t round, each[ROUNDS];
	void *memory = huge_aligned_memory(2 * MiB), *pages;

	epts = nr;
	linked = go = deleted = measured = 0;
	vcpu = vcpu_add(vm, guest_fault);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	pages = vm_ram(vm, SLOT, 0, SLOT_GPA, NR_PAGES * PAGE);
	REQUIRE(!madvise(pages, NR_PAGES * PAGE, MADV_NOHUGEPAGE));
	vm_ram(vm, 2, 0, FAR_GPA, 2 * MiB);
	run_on(0);
	REQUIRE(!pthread_create(&vcpu->thread, NULL, fault, vcpu));
	for (round = 1; round <= ROUNDS; round++) {
		REQUIRE(!vm_memslot(vm, DELETED, 0, 128 * MiB, 2 * MiB, memory));
		while (linked < round)
			sched_yield();
		REQUIRE(!madvise(pages, NR_PAGES * PAGE, MADV_DONTNEED));
		go = round;
		/* The vCPU is to be at it. */
		usleep(200);
		REQUIRE(!vm_memslot(vm, DELETED, 0, 128 * MiB, 0, NULL));
		deleted = round;
		/* A fault that waited ends first. */
		while (measured < round)
			sched_yield();
		each[round - 1] = worst;
	}
	vcpu_join(vcpu);
	vm_destroy(vm);
	qsort(each, ROUNDS, sizeof(each[0]), by_size);
	printf("%u EPTs: worst fault of a deletion %lu to %lu, median %lu\n", nr, each[0],
	       each[ROUNDS - 1], each[ROUNDS / 2]);
	return each[ROUNDS / 2];
}

/* A fault takes kvm_epk::lock, too, and several times. */
static void waits_for_few(void)
{
	uint64_t one = measure(1), all = measure(512);

	CHECK(all <= 2 * one);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "waits-for-few", waits_for_few },
	};

	return RUN_CASES(cases, argc, argv);
}
