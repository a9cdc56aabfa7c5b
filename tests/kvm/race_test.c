// SPDX-License-Identifier: MIT
/* vCPUs that create, fill, use, empty and destroy the same EPTs at once. */
#include "vmm.h"

#define DATA	0x5000ull
#define FIRST	5
#define NR	3
#define ROUNDS	200
#define RUN	KVM_EPK_RUN(0, 0, 1)

static volatile uint64_t successes[2][KVM_EPK_DESTROY + 1];
static volatile bool over;

static bool is_one_of(long value, long a, long b, long c)
{
	return value == a || value == b || value == c;
}

static void count(uint64_t op, long result)
{
	if (!result)
		successes[this_cpu()->number & 1][op]++;
}

/* Each result is right for some order of what the two do. */
static void guest_change(void)
{
	int i;

	for (i = 0; i < ROUNDS; i++) {
		long result = hypercall(KVM_EPK_CREATE, FIRST, NR, 0);

		GUEST_CHECK(is_one_of(result, 0, -EEXIST, 0));
		count(KVM_EPK_CREATE, result);
		result = hypercall(KVM_EPK_FILL, FIRST, NR, RUN);
		GUEST_CHECK(is_one_of(result, 0, -EEXIST, -ENOENT));
		count(KVM_EPK_FILL, result);
		if (!try_vmfunc(0, FIRST + i % NR)) {
			uint32_t outcome = try_write(alias(FIRST + i % NR, DATA), i);

			GUEST_CHECK(!outcome || outcome == DOMAIN_FAULT(PF_W));
		}
		result = hypercall(KVM_EPK_EMPTY, FIRST, NR, RUN);
		GUEST_CHECK(is_one_of(result, 0, -ENOENT, 0));
		count(KVM_EPK_EMPTY, result);
		result = hypercall(KVM_EPK_DESTROY, FIRST, NR, 0);
		GUEST_CHECK(is_one_of(result, 0, -ENOENT, 0));
		count(KVM_EPK_DESTROY, result);
	}
	vmfunc(0);
	this_cpu()->value[1] = i;
}

/* In and out of what comes and goes; EPT 1 is there all the time. */
static void guest_use(void)
{
	while (!over) {
		uint32_t outcome, ept;

		for (ept = FIRST; ept < FIRST + NR; ept++) {
			outcome = try_vmfunc(0, ept);
			GUEST_CHECK(!outcome || outcome == UD);
			outcome = try_write(alias(ept, DATA + 8), ept);
			GUEST_CHECK(!outcome || outcome == DOMAIN_FAULT(PF_W));
			outcome = current_ept();
			GUEST_CHECK(outcome == ept || outcome == 0);
		}
		vmfunc(1);
		GUEST_EQ(current_ept(), 1);
		write64(alias(1, DATA + 16), 1);
		GUEST_CHECK(try_read(alias(FIRST, DATA)) == DOMAIN_FAULT(0));
		GUEST_EQ(try_read(alias(0, DATA)), DOMAIN_FAULT(0));
		vmfunc(0);
		pass_time();
	}
}

static void guest_begin(void)
{
	epk_set_up(1);
}

static void guest_end(void)
{
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 2);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, FIRST, NR, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, FIRST, 1, RUN), -ENOENT);
	GUEST_EQ(read64(at(DATA + 16)), 1);
}

static void change_and_use(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpus[3];
	int i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	for (i = 0; i < 3; i++)
		vcpus[i] = vcpu_add(vm, i ? guest_change : guest_begin);
	vcpu_run_done(vcpus[0]);
	vcpu_start_at(vcpus[0], guest_use);
	for (i = 0; i < 3; i++)
		vcpu_thread(vcpus[i]);
	vcpu_join(vcpus[1]);
	vcpu_join(vcpus[2]);
	over = true;
	vcpu_join(vcpus[0]);
	/* What was created was destroyed; and both had their share. */
	CHECK_EQ(successes[0][KVM_EPK_CREATE] + successes[1][KVM_EPK_CREATE],
		 successes[0][KVM_EPK_DESTROY] + successes[1][KVM_EPK_DESTROY]);
	CHECK(successes[0][KVM_EPK_CREATE] && successes[1][KVM_EPK_CREATE]);
	CHECK_EQ(vm_stat(vm, "epk_views"), 2);
	vcpu_start_at(vcpus[0], guest_end);
	vcpu_run_done(vcpus[0]);
	vm_destroy(vm);
}

static void guest_enable(void)
{
	long result = epk_enable();

	GUEST_CHECK(is_one_of(result, 0, -EEXIST, 0));
	count(KVM_EPK_ENABLE, result);
	epk_layout();
	GUEST_EQ(try_vmfunc(0, 0), 0);
	GUEST_EQ(current_ept(), 0);
}

/* Just one of two enables EPK; it is on for both. */
static void enable(void)
{
	int round, i;

	for (round = 0; round < 10; round++) {
		struct vm *vm = vm_create();

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		for (i = 0; i < 2; i++)
			vcpu_add(vm, guest_enable);
		for (i = 0; i < 2; i++)
			vcpu_thread(&vm->vcpus[i]);
		for (i = 0; i < 2; i++)
			vcpu_join(&vm->vcpus[i]);
		CHECK_EQ(successes[0][KVM_EPK_ENABLE] + successes[1][KVM_EPK_ENABLE], round + 1);
		vm_destroy(vm);
	}
}

static void guest_leave(void)
{
	vmfunc(1);
	guest_sync(1);
	/* Destroyed while this vCPU was not running. */
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 1), UD);
	guest_sync(2);
	/* And created again: nobody moves there but by VMFUNC. */
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 1), 0);
	GUEST_EQ(try_read(alias(1, DATA)), DOMAIN_FAULT(0));
}

static void guest_destroy(void)
{
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 1, 0), 0);
	guest_sync(3);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 1, 0), 0);
}

static void destroyed_meanwhile(void)
{
	struct vm *vm = vm_create();
	struct vcpu *a = vcpu_add(vm, guest_begin), *b = vcpu_add(vm, guest_leave);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(a);
	vcpu_run_sync(b, 1);
	vcpu_start_at(a, guest_destroy);
	vcpu_run_sync(a, 3);
	vcpu_run_sync(b, 2);
	vcpu_run_done(a);
	vcpu_run_done(b);
	vm_destroy(vm);
}

static void guest_recreate(void)
{
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, 1, 1)), 0);
}

static void guest_after(void)
{
	/* The old EPT 1 with its block 0 is gone, whether or not this is the new one. */
	vmfunc(1);
	GUEST_EQ(read64(alias(1, DATA)), 1000);
}

/* Destroyed and made anew while a vCPU in it was not running. */
static void made_anew(void)
{
	struct vm *vm = vm_create();
	struct vcpu *a = vcpu_add(vm, guest_begin), *b = vcpu_add(vm, guest_after);
	uint64_t *block;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	block = vm_ram(vm, 1, 0, GiB, 2 * MiB);
	block[DATA / 8] = 1000;
	vcpu_run_done(a);
	vcpu_start_at(a, guest_recreate);
	vcpu_run_done(a);
	vcpu_run_done(b);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "change-and-use", change_and_use },
		{ "enable", enable },
		{ "destroyed-meanwhile", destroyed_meanwhile },
		{ "made-anew", made_anew },
	};

	return RUN_CASES(cases, argc, argv);
}
