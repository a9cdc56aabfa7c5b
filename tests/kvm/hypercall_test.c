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

/* A layout as good as any. */
static const struct layout some = {
	.window_base = 300 * GiB, .identity = 9 * GiB + 0x5000, .slots = 4, .epts = 100,
};

/* @at has no slots before EPK is enabled. */
static void queries(struct layout at)
{
	GUEST_EQ(query(KVM_EPK_QUERY_VERSION), KVM_EPK_VERSION);
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), at.slots ? at.epts : 512);
	GUEST_EQ(query(KVM_EPK_QUERY_PHYS_BITS), 40);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_SLOTS), at.slots);
	GUEST_EQ(query(KVM_EPK_QUERY_WINDOW_BASE), at.window_base);
	GUEST_EQ(query(KVM_EPK_QUERY_IDENTITY_GPA), at.identity);
	GUEST_EQ(query(KVM_EPK_QUERY_STAT_FAULTS + 1), -EINVAL);
	GUEST_EQ(query(-1), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 1ull << 32, 0, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 0, 1, 0), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_QUERY, 0, 0, 1), -EINVAL);
}

/* Each part of a layout wrong by itself, from one that is right; what overlaps, too. */
static void wrong_layouts(void)
{
	static const struct layout wrong[] = {
		{ 300 * GiB, 9 * GiB, 0, 100 }, { 300 * GiB, 9 * GiB, 3, 100 },
		{ 300 * GiB, 9 * GiB, 6, 10 }, { 0, 9 * GiB, 1024, 1 }, { 512 * GiB, 9 * GiB, 1024, 1 },
		{ 300 * GiB, 9 * GiB, 4, 0 }, { 300 * GiB, 9 * GiB, 1, 513 },
		{ 300 * GiB, 9 * GiB, 1, 0xffff },
		/* Not aligned; below 4 GiB; beyond 48 bits. */
		{ 301 * GiB, 9 * GiB, 4, 100 }, { 302 * GiB, 9 * GiB, 4, 100 },
		{ 256 * GiB, 9 * GiB, 512, 1 }, { 3 * GiB, 9 * GiB, 1, 1 }, { 0, 9 * GiB, 1, 1 },
		{ 0, 700 * GiB, 512, 1 }, { 1ull << 48, 9 * GiB, 1, 1 },
		{ (1ull << 48) - GiB, 9 * GiB, 1, 2 }, { 0xffffffull * GiB, 9 * GiB, 1, 1 },
		{ 512 * GiB, 9 * GiB, 512, 512 },
		/* The identity page. */
		{ 300 * GiB, 0, 4, 100 }, { 300 * GiB, 4 * GiB - 4096, 4, 100 },
		{ 300 * GiB, 9 * GiB + 8, 4, 100 }, { 300 * GiB, 1ull << 48, 4, 100 },
		{ 300 * GiB, ~4095ull, 4, 100 }, { 300 * GiB, 1ull << 63, 4, 100 },
		{ 300 * GiB, 300 * GiB, 4, 100 }, { 300 * GiB, 700 * GiB - 4096, 4, 100 },
		{ 300 * GiB, 500 * GiB + 4096, 4, 100 },
	};
	/* Beyond the vCPU's 40 bits. */
	static const struct layout far[] = {
		{ 1ull << 40, 9 * GiB, 1, 1 }, { (1ull << 40) - GiB, 9 * GiB, 1, 2 },
		{ 300 * GiB, 1ull << 40, 4, 100 }, { 512 * GiB, 9 * GiB, 2, 512 },
		{ (1ull << 48) - GiB, 9 * GiB, 1, 1 },
	};
	unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		GUEST_EQ(epk_enable_at(wrong[i]), -EINVAL);
	for (i = 0; i < sizeof(far) / sizeof(far[0]); i++)
		GUEST_EQ(epk_enable_at(far[i]), -EDOM);
	/* Bits of the word that mean too much. */
	for (i = 40; i < 64; i++) {
		if (i != 42)
			GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION,
					   KVM_EPK_WINDOWS(300, 100, 4) | 1ull << i, some.identity),
				 -EINVAL);
	}
}

static void guest_before(void)
{
	static const uint64_t versions[] = {
		0, KVM_EPK_VERSION - 1, KVM_EPK_VERSION + 1, KVM_EPK_VERSION | 1ull << 32, ~0ull,
	};
	const uint64_t windows = KVM_EPK_WINDOWS(300, 100, 4);
	struct layout none = { 0 };
	unsigned int i;

	queries(none);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	for (i = 0; i < NR_OPERATIONS; i++)
		GUEST_EQ(hypercall(operations[i], 1, 1, run_argument(operations[i])), -EPERM);
	GUEST_EQ(hypercall(KVM_EPK_SAVE_AT + 1, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall(1ull << 32, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall(-1, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall_nr(KVM_HC_EPK | 1ull << 32, KVM_EPK_QUERY, 0, 0, 0), -KVM_ENOSYS);

	for (i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		GUEST_EQ(hypercall(KVM_EPK_ENABLE, versions[i], windows, some.identity), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -EINVAL);
	wrong_layouts();
	queries(none);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	GUEST_EQ(try_vmfunc(0, 0), UD);

	GUEST_EQ(epk_enable_at(some), 0);
	queries(some);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 1);
	GUEST_EQ(epk_enable_at(some), -EEXIST);
	GUEST_EQ(epk_enable_at(upper_half(40, 512)), -EEXIST);
	GUEST_EQ(hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION + 1, windows, some.identity), -EINVAL);
	queries(some);
}

static void order(void)
{
	run_guest(guest_before);
}

static long hypercall_from_user(long op)
{
	if (op == KVM_EPK_ENABLE)
		return epk_enable_at(some);
	return hypercall(op, 1, 0, 0);
}

static void guest_user(void)
{
	long op;

	for (op = KVM_EPK_QUERY; op <= KVM_EPK_SAVE_AT + 1; op++)
		GUEST_EQ(run_user(hypercall_from_user, op), -KVM_EPERM);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	epk_set_up(1);
	for (op = KVM_EPK_QUERY; op <= KVM_EPK_SAVE_AT + 1; op++)
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
	/* Which could not say where, in 32 bits. */
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
	long epts = (1ll << bits >> KVM_EPK_BLOCK_SHIFT) - 5;

	if (bits < 33) {
		GUEST_EQ(query(KVM_EPK_QUERY_VERSION), -KVM_ENOSYS);
		GUEST_EQ(epk_enable_at(some), -KVM_ENOSYS);
		return;
	}
	/* All above 4 GiB, where at 33 bits the blocks are 4 to 7. */
	wanted = (struct layout){ 5 * GiB, 4 * GiB, 1, epts };
	GUEST_EQ(query(KVM_EPK_QUERY_NR_EPTS), 512);
	GUEST_EQ(query(KVM_EPK_QUERY_PHYS_BITS), bits);
	wanted.epts++;
	GUEST_EQ(epk_enable(), -EDOM);
	wanted.epts--;
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
	for (bits = 32; bits <= 39; bits += bits < 34 ? 1 : 5) {
		struct vm *vm = vm_create_narrow(bits);

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vcpu_run_done(vcpu_add(vm, guest_narrow));
		vm_destroy(vm);
	}
}

/*
 * Windows and identity page anywhere: beside memory and above it, in the table of 1 GiB entries that
 * has memory or not, with each other or not.
 */
static const struct layout layouts_of[] = {
	{ 8 * GiB, 7 * GiB, 1, 500 },
	{ 500 * GiB, 1022 * GiB, 2, 256 },
	{ 4 * GiB, 1000 * GiB, 1, 400 },
	{ 504 * GiB, 503 * GiB + 0x3000, 4, 8 },
	{ 512 * GiB, 1023 * GiB - 4096, 256, 1 },
	{ 512 * GiB, 5 * GiB, 512, 1 },
	{ 256 * GiB, 1000 * GiB, 32, 20 },
};

#define HIGH	(1023 * GiB)	/* RAM above the windows, but where that is one */
#define LOW	(2 * GiB)
#define DATA	0x5000ull

static struct layout chosen;
static uint64_t high;

/* What is at both of its RAM, by ordinary addresses and by aliases, from @ept. */
static void see(uint32_t ept, uint64_t value)
{
	uint64_t last = layout.slots - 1;
	char *window = alias(ept, 0);

	vmfunc(ept);
	GUEST_EQ(current_ept(), ept);
	GUEST_EQ(read64(at(LOW + DATA)), value);
	GUEST_EQ(read64(at(high + DATA)), value + 1);
	GUEST_EQ(read64(window + last * GiB + DATA), value + (last ? 1 : 0));
	if (last)
		GUEST_EQ(read64(window + DATA), value);
	/* Others' first and last slots. */
	if (ept)
		GUEST_EQ(try_read(window - GiB + DATA), DOMAIN_FAULT(0));
	if (ept + 1 < layout.epts)
		GUEST_EQ(try_read(window + layout.slots * GiB + DATA), DOMAIN_FAULT(0));
	GUEST_EQ(try_write(at(layout.identity), 0), DOMAIN_FAULT(PF_W));
}

static void guest_in_layout(void)
{
	const uint32_t epts[] = { 0, 1, 2, 5, chosen.epts / 2, chosen.epts - 1 };
	uint64_t stage, base = chosen.window_base / GiB;
	unsigned int i;

	wanted = chosen;
	GUEST_EQ(epk_enable(), 0);
	GUEST_CHECK(!__builtin_memcmp(&layout, &chosen, sizeof(layout)));
	if (layout.epts > 1)
		GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, layout.epts - 1, 0), 0);
	/* A block of windows is no memory, nor is the identity page's. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, 1, KVM_EPK_RUN(0, base, 1)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, 1,
			   KVM_EPK_RUN(0, base + layout.epts * layout.slots - 1, 1)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, 1, KVM_EPK_RUN(0, layout.identity / GiB, 1)), -EINVAL);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, 1, KVM_EPK_RUN(0, 1ull << 18, 1)), -EINVAL);
	/* One slot shows the memory below, more both. */
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, layout.epts, KVM_EPK_RUN(0, LOW / GiB, 1)), 0);
	if (layout.slots > 1)
		GUEST_EQ(hypercall(KVM_EPK_FILL, 0, layout.epts,
				   KVM_EPK_RUN(layout.slots - 1, high / GiB, 1)), 0);
	for (stage = 1; stage <= 3; stage++) {
		for (i = 0; i < sizeof(epts) / sizeof(epts[0]); i++) {
			if (epts[i] < layout.epts)
				see(epts[i], stage * 10);
		}
		guest_sync(stage);
	}
}

/* Memory by the windows goes and comes again, and all links to it. */
static void layouts(void)
{
	unsigned int i, stage;

	for (i = 0; i < sizeof(layouts_of) / sizeof(layouts_of[0]); i++) {
		struct vm *vm = vm_create();
		struct vcpu *vcpu = vcpu_add(vm, guest_in_layout);
		uint64_t *low, *above;

		chosen = layouts_of[i];
		high = HIGH;
		if (chosen.identity / GiB >= high / GiB ||
		    chosen.window_base + chosen.epts * chosen.slots * GiB > high)
			high = 6 * GiB;
		vm_ram(vm, 0, 0, 0, 16 * MiB);
		for (stage = 1; stage <= 3; stage++) {
			low = huge_aligned_memory(2 * MiB);
			above = huge_aligned_memory(2 * MiB);
			low[DATA / 8] = stage * 10;
			above[DATA / 8] = stage * 10 + 1;
			if (stage > 1) {
				REQUIRE(!vm_memslot(vm, 1, 0, LOW, 0, NULL));
				REQUIRE(!vm_memslot(vm, 2, 0, high, 0, NULL));
			}
			REQUIRE(!vm_memslot(vm, 1, 0, LOW, 2 * MiB, low));
			REQUIRE(!vm_memslot(vm, 2, 0, high, 2 * MiB, above));
			vcpu_run_sync(vcpu, stage);
		}
		CHECK_EQ(vm_memslot(vm, 3, 0, chosen.window_base, PAGE, low), -EINVAL);
		CHECK_EQ(vm_memslot(vm, 3, 0, chosen.identity & -GiB, PAGE, low), -EINVAL);
		CHECK_EQ(vm_memslot(vm, 3, 0, chosen.window_base +
				    chosen.epts * chosen.slots * GiB - PAGE, PAGE, low), -EINVAL);
		vm_destroy(vm);
	}
}

static void guest_enable_twice(void)
{
	GUEST_EQ(epk_enable(), -EBUSY);
	GUEST_EQ(query(KVM_EPK_QUERY_EPTS), 0);
	GUEST_EQ(try_vmfunc(0, 0), UD);
	guest_sync(1);
	GUEST_EQ(epk_enable(), 0);
}

/* A memslot where the windows or the identity page would be. */
static void memslot_in_the_way(void)
{
	static const uint64_t where[] = { (1ull << 39) - GiB, (1ull << 39) - PAGE, 1ull << 39,
					  (1ull << 40) - PAGE };
	unsigned int i;

	/* Of both address spaces. */
	for (i = 0; i < 2 * sizeof(where) / sizeof(where[0]); i++) {
		struct vm *vm = vm_create();
		struct vcpu *vcpu = vcpu_add(vm, guest_enable_twice);
		uint32_t slot = i % 2 ? SMM_SPACE | 1 : 1;

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vm_ram(vm, slot, 0, where[i / 2], PAGE);
		vcpu_run_sync(vcpu, 1);
		CHECK_EQ(vm_memslot(vm, slot, 0, where[i / 2], 0, NULL), 0);
		vcpu_run_done(vcpu);
		vm_destroy(vm);
	}
}

static void guest_differ(void)
{
	GUEST_EQ(epk_enable(), -EDOM);
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

/* All vCPUs reach the windows, whose end is that of 40 bits. */
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

static long map_range(uint64_t gpa, uint64_t pages)
{
	return hypercall_nr(KVM_HC_MAP_GPA_RANGE, gpa, pages, 0, 0);
}

/* Ranges that are passed on to userspace, in this order: the first before there are windows. */
static const uint64_t passed_on[][2] = {
	{ 300 * GiB, 1 }, { 0, 16 }, { 9 * GiB - PAGE, 1 }, { 10 * GiB, 1 }, { 300 * GiB - PAGE, 1 },
	{ 700 * GiB, 1 }, { (1ull << 48) - PAGE, 1 },
};

#define NR_PASSED_ON	(sizeof(passed_on) / sizeof(passed_on[0]))

static void guest_map_range(void)
{
	static const uint64_t refused[][2] = {
		/* The first and last page, what touches them, all, and more than there is. */
		{ 300 * GiB, 1 }, { 304 * GiB + 0x5000, 1 }, { 700 * GiB - PAGE, 1 },
		{ 300 * GiB - PAGE, 2 }, { 700 * GiB - PAGE, 2 }, { 0, 700 * GiB / PAGE },
		/* The identity page, and its block. */
		{ 9 * GiB + 0x5000, 1 }, { 9 * GiB, 1 }, { 10 * GiB - PAGE, 1 }, { 9 * GiB - PAGE, 2 },
		/* Beyond what views map. */
		{ 1ull << 48, 1 }, { (1ull << 48) - PAGE, 2 }, { ~0ull - PAGE + 1, 1 },
		{ 0, ~0ull }, { PAGE, 1ull << 63 }, { 0, 1ull << 52 },
	};
	unsigned int i;

	GUEST_EQ(map_range(passed_on[0][0], passed_on[0][1]), 0);
	GUEST_EQ(epk_enable_at(some), 0);
	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		GUEST_EQ(map_range(refused[i][0], refused[i][1]), -EINVAL);
	for (i = 1; i < NR_PASSED_ON; i++)
		GUEST_EQ(map_range(passed_on[i][0], passed_on[i][1]), 0);
	GUEST_EQ(map_range(8, 1), -EINVAL);
	GUEST_EQ(map_range(0, 0), -EINVAL);
}

/* Userspace, which is to change what these pages are, knows of no windows. */
static void map_gpa_range(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;
	unsigned int n = 0;

	REQUIRE(!vm_enable_cap(vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE));
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu = vcpu_add(vm, guest_map_range);
	while (!vcpu_run_done_or_exit(vcpu)) {
		REQUIRE(vcpu->run->exit_reason == KVM_EXIT_HYPERCALL && n < NR_PASSED_ON);
		CHECK_EQ(vcpu->run->hypercall.nr, KVM_HC_MAP_GPA_RANGE);
		CHECK_EQ(vcpu->run->hypercall.args[0], passed_on[n][0]);
		CHECK_EQ(vcpu->run->hypercall.args[1], passed_on[n][1]);
		vcpu->run->hypercall.ret = 0;
		n++;
	}
	CHECK_EQ(n, NR_PASSED_ON);
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
		{ "layouts", layouts },
		{ "memslot-in-the-way", memslot_in_the_way },
		{ "widths", widths },
		{ "map-gpa-range", map_gpa_range },
	};

	return RUN_CASES(cases, argc, argv);
}
