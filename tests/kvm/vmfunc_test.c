// SPDX-License-Identifier: MIT
/* VMFUNC with each index and leaf, at each privilege level. */
#include "vmm.h"

#define LAST	300	/* EPTs 0..LAST exist, but for GONE */
#define GONE	17

static void every_index(void)
{
	uint32_t index;

	for (index = 0; index < 512; index++) {
		uint32_t before = current_ept();
		bool exists = index <= LAST && index != GONE;

		GUEST_EQ(try_vmfunc(0, index), exists ? 0 : UD);
		GUEST_EQ(current_ept(), exists ? index : before);
	}
}

static void wrong_arguments(void)
{
	static const uint32_t leaves[] = { 1, 2, 63, 64, 0x80000000, 0xffffffff };
	static const uint32_t indices[] = { 512, 513, 1024, 0x10000, 0x80000000, 0xffffffff };
	unsigned int i;

	vmfunc(3);
	for (i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		GUEST_EQ(try_vmfunc(leaves[i], 0), UD);
		GUEST_EQ(try_vmfunc(leaves[i], 4), UD);
	}
	for (i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
		GUEST_EQ(try_vmfunc(0, indices[i]), UD);
		GUEST_EQ(try_vmfunc(1, indices[i]), UD);
	}
	GUEST_EQ(current_ept(), 3);
	/* It takes eax and ecx, as the manual has it, and nothing above them. */
	GUEST_EQ(try_vmfunc(1ull << 32, 4 | 1ull << 32), 0);
	GUEST_EQ(current_ept(), 4);
}

static long as_user(long unused)
{
	every_index();
	wrong_arguments();
	return unused;
}

static void compat(void)
{
	vmfunc(1);
	GUEST_EQ(vmfunc_compat(0, 2), 0);
	GUEST_EQ(current_ept(), 2);
	GUEST_EQ(vmfunc_compat(0, GONE), UD);
	GUEST_EQ(vmfunc_compat(1, 3), UD);
	GUEST_EQ(vmfunc_compat(0, 512), UD);
	GUEST_EQ(current_ept(), 2);
}

static void guest_all(void)
{
	long refused;

	epk_set_up(LAST);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, GONE, 1, 0), 0);
	every_index();
	wrong_arguments();
	refused = query(KVM_EPK_QUERY_STAT_EXITS);
	GUEST_EQ(run_user(as_user, 7), 7);
	/* Each refused VMFUNC is one exit; leaves from 64 on are #UD without one. */
	GUEST_EQ(query(KVM_EPK_QUERY_STAT_EXITS) - refused, 512 - LAST + 3 * 2 + 6 * 2);
	compat();
}

static void arguments(void)
{
	run_guest(guest_all);
}

static uint64_t exits_before, exits_after;

/* The first round links what is missing. */
static void guest_warm(void)
{
	uint32_t round, ept;

	epk_set_up(511);
	for (round = 0; round < 3; round++) {
		if (round == 1)
			guest_sync(1);
		for (ept = 0; ept < 512; ept++) {
			/* From any EPT to any other, in an order unlike that of creating. */
			uint32_t to = (ept * 211 + round) & 511;

			vmfunc(to);
			write64(alias(to, 0x7000 + 8 * ept), to + 1);
			GUEST_EQ(read64(at(0x7000 + 8 * ept)), to + 1);
		}
	}
	guest_sync(2);
}

static void no_exits(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_warm);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	exits_before = vcpu_stat(vcpu, "exits");
	vcpu_run_sync(vcpu, 2);
	exits_after = vcpu_stat(vcpu, "exits");
	vcpu_run_done(vcpu);
	/* The call to the host itself, and what a timer of the host interrupts. */
	CHECK_EQ(exits_after - exits_before - vcpu_stat(vcpu, "irq_exits"), 1);
	vm_destroy(vm);
}

static void guest_other(void)
{
	GUEST_EQ(try_vmfunc(0, 0), 0);
	GUEST_EQ(try_vmfunc(0, 1), 0);
	GUEST_EQ(current_ept(), 1);
}

static void guest_first(void)
{
	epk_set_up(1);
	GUEST_EQ(current_ept(), 0);
	vmfunc(1);
	GUEST_EQ(current_ept(), 1);
}

/* What one vCPU enables is on for all, and each has an EPT of its own. */
static void each_vcpu(void)
{
	struct vm *vm = vm_create();
	struct vcpu *first = vcpu_add(vm, guest_first), *other = vcpu_add(vm, guest_other);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(first);
	vcpu_run_done(other);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "arguments", arguments },
		{ "no-exits", no_exits },
		{ "each-vcpu", each_vcpu },
	};

	return RUN_CASES(cases, argc, argv);
}
