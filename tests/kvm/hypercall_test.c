// SPDX-License-Identifier: MIT
/* Each argument of the hypercalls wrong by itself, and no effect of what fails. */
#include <linux/kvm_para.h>

#include "vmm.h"

#define RUN	KVM_EPK_RUN(0, 0, 1)

static const uint64_t operations[] = {
	KVM_EPK_CREATE, KVM_EPK_FILL, KVM_EPK_EMPTY, KVM_EPK_DESTROY,
};

#define NR_OPERATIONS	(sizeof(operations) / sizeof(operations[0]))

static uint64_t run_argument(uint64_t op)
{
	return op == KVM_EPK_FILL || op == KVM_EPK_EMPTY ? RUN : 0;
}

static void queries(void)
{
	GUEST_EQ(query(KVM_EPK_QUERY_VERSION), KVM_EPK_VERSION);
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), 512);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_SLOTS), 1);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_BASE), 1ll << 39);
	GUEST_EQ(query(KVM_EPK_QUERY_IDENTITY_GPA), (1ll << 39) - 4096);
	GUEST_EQ(query(KVM_EPK_QUERY_STAT_FAULTS + 1), -EINVAL);
	GUEST_EQ(query(-1), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 1ull << 32, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 0, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 0, 0, 1), -EINVAL);
}

static void guest_before(void)
{
	unsigned int i;

	queries();
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	for (i = 0; i < NR_OPERATIONS; i++)
		GUEST_EQ(hypercall(operations[i], 1, 1, run_argument(operations[i])), -EPERM);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY + 1, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall(1ull << 32, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall(-1, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall_nr(KVM_HC_EPK | 1ull << 32, KVM_EPK_QUERY, 0, 0, 0), -KVM_ENOSYS);

	GUEST_EQ(hypercall(KVM_EPK_ENABLE, 0, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION + 1, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION | 1ull << 32, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 1), -EINVAL);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	GUEST_EQ(try_vmfunc(0, 0), UD);

	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), 0);
	queries();
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 1);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION + 1, 0, 0), -EINVAL);
}

static void order(void)
{
	run_guest(guest_before);
}

static long hypercall_from_user(long op)
{
	return hypercall(op, op == KVM_EPK_ENABLE ? KVM_EPK_VERSION : 1, 0, 0);
}

static void guest_user(void)
{
	long op;

	for (op = KVM_EPK_QUERY; op <= KVM_EPK_DESTROY + 1; op++)
		GUEST_EQ(run_user(hypercall_from_user, op), -KVM_EPERM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	epk_set_up(1);
	for (op = KVM_EPK_QUERY; op <= KVM_EPK_DESTROY + 1; op++)
		GUEST_EQ(run_user(hypercall_from_user, op), -KVM_EPERM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 2);
}

static void user_mode(void)
{
	run_guest(guest_user);
}

static void guest_compat(void)
{
	GUEST_EQ(hypercall_compat(KVM_HC_EPK, KVM_EPK_QUERY, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall_compat(KVM_HC_EPK, KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	epk_set_up(1);
	GUEST_EQ(hypercall_compat(KVM_HC_EPK, KVM_EPK_CREATE, 2, 1, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall_compat(KVM_HC_EPK, KVM_EPK_DESTROY, 1, 1, 0), -KVM_ENOSYS);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 2);
}

static void compat_mode(void)
{
	run_guest(guest_compat);
}

static void guest_ranges(void)
{
	static const struct {
		uint64_t first, count;
	} bad[] = {
		{ 1, 0 }, { 512, 1 }, { 511, 2 }, { 0, 513 }, { 1, 512 }, { 1, ~0ull },
		{ ~0ull, 1 }, { ~0ull, 2 }, { 1ull << 32, 1 }, { 1 | 1ull << 32, 1 },
		{ 1, 1ull << 32 }, { 1, 1 | 1ull << 32 }, { 0xffffffff, 1 }, { 0xffffffff, 2 },
		{ 1, 0xffffffff }, { 1ull << 63, 1ull << 63 }, { 513, ~0ull - 512 },
	};
	unsigned int i, j;
	uint64_t op;

	epk_set_up(511);
	for (i = 0; i < NR_OPERATIONS; i++) {
		op = operations[i];
		for (j = 0; j < sizeof(bad) / sizeof(bad[0]); j++)
			GUEST_EQ(hypercall(op, bad[j].first, bad[j].count, run_argument(op)), -EINVAL);
	}
	/* EPT 0 stays. */
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 0, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 0, 512, 0), -EINVAL);
	/* Arguments that an operation does not take. */
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 1, RUN), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 1, RUN), -EINVAL);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 512);
	/* Nothing was emptied. */
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 0, 512, RUN), 0);
}

static void ranges(void)
{
	run_guest(guest_ranges);
}

static void guest_runs(void)
{
	/* The block that holds the identity page, and the first of the windows. */
	const uint64_t last = (1ull << 39 >> KVM_EPK_BLOCK_SHIFT) - 1;
	const uint64_t bad[] = {
		KVM_EPK_RUN(0, 0, 0), KVM_EPK_RUN(1, 0, 1), KVM_EPK_RUN(0, 0, 2),
		KVM_EPK_RUN(1, 0, ~0ull), KVM_EPK_RUN(0xffff, 0, 1), KVM_EPK_RUN(0xffff, 0, 0xffffff),
		KVM_EPK_RUN(0, last, 1), KVM_EPK_RUN(0, last + 1, 1), KVM_EPK_RUN(0, 0xffffff, 1),
		KVM_EPK_RUN(0, last - 1, 2), 0, ~0ull,
	};
	unsigned int i;

	epk_set_up(1);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 0, 2, RUN), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, bad[i]), -EINVAL);
		GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, bad[i]), -EINVAL);
	}
	/* Emptying takes no block. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, 5, 1)), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, KVM_EPK_RUN(0, 5, 1)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, RUN), 0);
	/* The last block of ordinary memory is one. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, last - 1, 1)), 0);
}

static void runs(void)
{
	run_guest(guest_runs);
}

static void guest_overlap(void)
{
	epk_set_up(0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 1, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 1, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 1, 0), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 0, 1, 0), -EEXIST);

	GUEST_EQ(hypercall(KVM_EPK_CREATE, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 4, 2, 0), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 6, 2, 0), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 5, 2, 0), -EEXIST);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 3);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 4, 2, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 2, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 2, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 1, RUN), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 2, RUN), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 2, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 6, 2, 0), -ENOENT);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 3);
	/* 5 is still empty and 6 is filled. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 1, RUN), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 1, RUN), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 6, 1, KVM_EPK_RUN(0, 1, 1)), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 2, RUN), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 1, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 5, 2, RUN), 0);
	/* Destroying empties. */
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 1, 0), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 5, 2, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 5, 2, RUN), -ENOENT);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 5, 2, 0), 0);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 1);
}

static void overlap(void)
{
	run_guest(guest_overlap);
}

static int bits;

/* Fewer address bits: fewer EPTs, and at some point no room for any. */
static void guest_narrow(void)
{
	long epts = 1ll << (bits - 1) >> KVM_EPK_BLOCK_SHIFT;

	if (bits < 32) {
		GUEST_EQ(query(KVM_EPK_QUERY_VERSION), -KVM_ENOSYS);
		GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -KVM_ENOSYS);
		return;
	}
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), epts);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_SLOTS), 1);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_BASE), 1ll << (bits - 1));
	epk_set_up(epts - 1);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, epts, 1, 0), -EINVAL);
	vmfunc(epts - 1);
	GUEST_EQ(current_ept(), epts - 1);
	write64(alias(epts - 1, 0x5000), bits);
	GUEST_EQ(read64(at(0x5000)), bits);
	GUEST_EQ(try_read(alias(0, 0x5000)), epts > 1 ? DOMAIN_FAULT(0) : 0);
	GUEST_EQ(try_vmfunc(0, epts), UD);
}

static void narrow(void)
{
	for (bits = 31; bits <= 39; bits += bits < 34 ? 1 : 5) {
		struct vm *vm = vm_create_narrow(bits);

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vcpu_run_done(vcpu_add(vm, guest_narrow));
		vm_destroy(vm);
	}
}

static void guest_enable_twice(void)
{
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -EBUSY);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	GUEST_EQ(try_vmfunc(0, 0), UD);
	guest_sync(1);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), 0);
}

/* A memslot where the windows or the identity page would be. */
static void memslot_in_the_way(void)
{
	static const uint64_t where[] = { (1ull << 39) - GiB, (1ull << 39) - PAGE, 1ull << 39,
					  (1ull << 40) - PAGE };
	unsigned int i;

	for (i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		struct vm *vm = vm_create();
		struct vcpu *vcpu = vcpu_add(vm, guest_enable_twice);

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vm_ram(vm, 1, 0, where[i], PAGE);
		vcpu_run_sync(vcpu, 1);
		CHECK_EQ(vm_memslot(vm, 1, 0, where[i], 0, NULL), 0);
		vcpu_run_done(vcpu);
		vm_destroy(vm);
	}
}

static void guest_differ(void)
{
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -EDOM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	guest_sync(1);
	epk_set_up(1);
	guest_sync(2);
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), 512);
}

static void guest_other(void)
{
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 2);
	vmfunc(1);
	GUEST_EQ(current_ept(), 1);
}

/* All vCPUs have the width that the windows were laid out for. */
static void widths(void)
{
	static const int others[] = { 31, 36, 39 };
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_differ), *other = vcpu_add(vm, guest_other);
	unsigned int i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	CHECK_EQ(vcpu_set_cpuid(other, 36), 0);
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(vcpu_set_cpuid(other, 40), 0);
	vcpu_run_sync(vcpu, 2);
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		CHECK_EQ(vcpu_set_cpuid(other, others[i]), -EINVAL);
	CHECK_EQ(vcpu_set_cpuid(other, 40), 0);
	vcpu_run_done(other);
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "order", order },
		{ "user-mode", user_mode },
		{ "compat-mode", compat_mode },
		{ "ranges", ranges },
		{ "runs", runs },
		{ "overlap", overlap },
		{ "narrow", narrow },
		{ "memslot-in-the-way", memslot_in_the_way },
		{ "widths", widths },
	};

	return RUN_CASES(cases, argc, argv);
}
