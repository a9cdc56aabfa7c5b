// SPDX-License-Identifier: MIT
/* vCPUs that change pCPUs in any EPT, and two VMs at once on the same pCPUs. */
#include "vmm.h"

#define DATA	0x5000ull
#define MOVES	8

static volatile bool over[MAX_VMS];
static volatile uint64_t rounds[MAX_VMS][MAX_VCPUS];

/* Each vCPU of each VM leaves its mark in each EPT, and finds only its own. */
static void go_round(int vm)
{
	int number = this_cpu()->number;
	uint64_t slot = DATA + 8 * number, mark = (uint64_t)(vm + 1) << 32 | number << 16;
	uint32_t ept;

	while (!over[vm]) {
		for (ept = 1; ept < 8; ept++) {
			uint32_t other = ept % 7 + 1;

			vmfunc(ept);
			GUEST_EQ(current_ept(), ept);
			write64(alias(ept, slot), mark | ept);
			GUEST_EQ(read64(at(slot)), mark | ept);
			GUEST_EQ(try_read(alias(other, slot)), DOMAIN_FAULT(0));
			pass_time();
		}
		rounds[vm][number]++;
	}
}

static void guest_first(void)
{
	go_round(0);
}

static void guest_second(void)
{
	go_round(1);
}

static void guest_begin(void)
{
	epk_set_up(7);
}

static struct vm *start(int nr_vcpus, void (*guest)(void))
{
	struct vm *vm = vm_create();
	int i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	for (i = 0; i < nr_vcpus; i++)
		vcpu_add(vm, i ? guest : guest_begin);
	vcpu_run_done(&vm->vcpus[0]);
	vcpu_start_at(&vm->vcpus[0], guest);
	return vm;
}

static void move_to(struct vcpu *vcpu, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	REQUIRE(!pthread_setaffinity_np(vcpu->thread, sizeof(set), &set));
}

static void wait_for_round(int vm, int vcpu)
{
	uint64_t before = rounds[vm][vcpu];

	while (rounds[vm][vcpu] < before + 1)
		usleep(1000);
}

static void between_cpus(void)
{
	struct vm *vm = start(2, guest_first);
	int i;

	REQUIRE(sysconf(_SC_NPROCESSORS_ONLN) > 1);
	for (i = 0; i < 2; i++)
		vcpu_thread(&vm->vcpus[i]);
	for (i = 0; i < MOVES; i++) {
		move_to(&vm->vcpus[0], i & 1);
		move_to(&vm->vcpus[1], ~i / 2 & 1);
		wait_for_round(0, 0);
		wait_for_round(0, 1);
	}
	over[0] = true;
	for (i = 0; i < 2; i++)
		vcpu_join(&vm->vcpus[i]);
	vm_destroy(vm);
}

static void two_vms(void)
{
	struct vm *first = start(2, guest_first), *second = start(2, guest_second);
	int i;

	for (i = 0; i < 2; i++) {
		vcpu_thread(&first->vcpus[i]);
		vcpu_thread(&second->vcpus[i]);
	}
	for (i = 0; i < MOVES; i++) {
		wait_for_round(i & 1, 0);
		wait_for_round(~i & 1, 1);
	}
	/* One goes, with its views; the other goes on. */
	over[0] = true;
	for (i = 0; i < 2; i++)
		vcpu_join(&first->vcpus[i]);
	vm_destroy(first);
	wait_for_round(1, 0);
	over[1] = true;
	for (i = 0; i < 2; i++)
		vcpu_join(&second->vcpus[i]);
	CHECK_EQ(vm_stat(second, "epk_views"), 8);
	vm_destroy(second);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "between-cpus", between_cpus },
		{ "two-vms", two_vms },
	};

	return RUN_CASES(cases, argc, argv);
}
