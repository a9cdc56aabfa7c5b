// SPDX-License-Identifier: MIT
/*
 * The hypercalls, from a guest kernel that means harm: each argument wrong by
 * itself, and nothing changed by what is refused.
 *
 * hypercall_test off: before anything in this guest enabled EPK.
 * hypercall_test leave: as a kernel does that is rebooted without a word: the
 *	module has to cope with what it finds.
 * hypercall_test on: afterwards, on EPTs that the module does not use.
 */
#include "epk_test.h"
#include "raw/epk_raw.h"

#define KVM_ENOSYS	1000
#define FIRST		500	/* the module hands EPTs out from 0 upwards */
#define GiB		(1ull << KVM_EPK_BLOCK_SHIFT)

/* Windows of one slot: where another kernel than the module's may have put them. */
#define LEFT_BASE	(100 * GiB)
#define LEFT_IDENTITY	(900 * GiB + 4096)

static int raw = -1;

static long call_nr(uint64_t nr, uint64_t op, uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct epk_raw arg = { .nr = nr, .args = { op, a1, a2, a3 } };

	REQUIRE(ioctl(raw, EPK_RAW_CALL, &arg) == 0);
	return arg.result;
}

static long call(uint64_t op, uint64_t a1, uint64_t a2, uint64_t a3)
{
	return call_nr(KVM_HC_EPK, op, a1, a2, a3);
}

static long query(uint64_t what)
{
	return call(KVM_EPK_QUERY, what, 0, 0);
}

/* User mode has no business making hypercalls. */
static void check_user_mode(void)
{
	long result;

	asm volatile("vmcall" : "=a"(result)
		     : "a"(KVM_HC_EPK), "b"(KVM_EPK_CREATE), "c"(FIRST), "d"(1), "S"(0)
		     : "memory");
	CHECK_EQ(result, -EPERM);
}

static long enable(uint64_t base, uint64_t epts, uint64_t slots, uint64_t identity)
{
	return call(KVM_EPK_ENABLE, KVM_EPK_VERSION, KVM_EPK_WINDOWS(base / GiB, epts, slots),
		    identity);
}

static void check_query(void)
{
	CHECK_EQ(query(KVM_EPK_QUERY_VERSION), KVM_EPK_VERSION);
	CHECK_EQ(query(KVM_EPK_QUERY_NR_EPTS), 512);
	CHECK_EQ(query(KVM_EPK_QUERY_PHYS_BITS), 40);
	CHECK_EQ(query(KVM_EPK_QUERY_STAT_FAULTS + 1), -EINVAL);
	CHECK_EQ(query(~0ull), -EINVAL);
	CHECK_EQ(call(KVM_EPK_QUERY, 0, 1, 0), -EINVAL);
	CHECK_EQ(call(KVM_EPK_QUERY, 0, 0, 1), -EINVAL);
}

static void check_place(uint64_t base, uint64_t slots, uint64_t identity)
{
	CHECK_EQ(query(KVM_EPK_QUERY_WINDOW_BASE), base);
	CHECK_EQ(query(KVM_EPK_QUERY_WINDOW_SLOTS), slots);
	CHECK_EQ(query(KVM_EPK_QUERY_IDENTITY_GPA), identity);
}

/* Each number wrong by itself, from a place that is right; over the guest's RAM, too. */
static void check_wrong_places(void)
{
	static const struct { uint64_t base, epts, slots, identity; long error; } bad[] = {
		{ 100 * GiB, 0, 1, 900 * GiB, -EINVAL }, { 100 * GiB, 513, 1, 900 * GiB, -EINVAL },
		{ 100 * GiB, 0xffff, 1, 900 * GiB, -EINVAL },
		{ 100 * GiB, 4, 0, 900 * GiB, -EINVAL }, { 102 * GiB, 4, 3, 900 * GiB, -EINVAL },
		{ 0, 1, 1024, 900 * GiB, -EINVAL }, { 101 * GiB, 4, 2, 900 * GiB, -EINVAL },
		{ 0, 4, 1, 900 * GiB, -EINVAL }, { 3 * GiB, 4, 1, 900 * GiB, -EINVAL },
		{ 1021 * GiB, 4, 1, 900 * GiB, -EDOM }, { 1024 * GiB, 1, 1, 900 * GiB, -EDOM },
		{ 0xffffff * GiB, 1, 1, 900 * GiB, -EINVAL },
		{ 100 * GiB, 4, 1, 0, -EINVAL }, { 100 * GiB, 4, 1, 4096, -EINVAL },
		{ 100 * GiB, 4, 1, 900 * GiB + 8, -EINVAL }, { 100 * GiB, 4, 1, 1024 * GiB, -EDOM },
		{ 100 * GiB, 4, 1, 103 * GiB, -EINVAL }, { 100 * GiB, 4, 1, ~4095ull, -EINVAL },
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(enable(bad[i].base, bad[i].epts, bad[i].slots, bad[i].identity), bad[i].error);
}

static void check_unknown(void)
{
	CHECK_EQ(call(KVM_EPK_SAVE_AT + 1, 0, 0, 0), -KVM_ENOSYS);
	CHECK_EQ(call(~0ull, 0, 0, 0), -KVM_ENOSYS);
	CHECK_EQ(call_nr(KVM_HC_EPK | 1ull << 32, KVM_EPK_QUERY, 0, 0, 0), -KVM_ENOSYS);
}

static void test_off(void)
{
	const uint64_t windows = KVM_EPK_WINDOWS(LEFT_BASE / GiB, 512, 1);
	struct sigaction old;

	check_query();
	check_place(0, 0, 0);
	check_unknown();
	check_user_mode();
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), 0);

	CHECK_EQ(call(KVM_EPK_CREATE, FIRST, 1, 0), -EPERM);
	CHECK_EQ(call(KVM_EPK_FILL, 0, 1, KVM_EPK_RUN(0, 0, 1)), -EPERM);
	CHECK_EQ(call(KVM_EPK_EMPTY, 0, 1, KVM_EPK_RUN(0, 0, 1)), -EPERM);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST, 1, 0), -EPERM);
	CHECK_EQ(call(KVM_EPK_ENABLE, KVM_EPK_VERSION + 1, windows, LEFT_IDENTITY), -EINVAL);
	CHECK_EQ(call(KVM_EPK_ENABLE, KVM_EPK_VERSION - 1, windows, LEFT_IDENTITY), -EINVAL);
	CHECK_EQ(call(KVM_EPK_ENABLE, 0, windows, LEFT_IDENTITY), -EINVAL);
	CHECK_EQ(call(KVM_EPK_ENABLE, KVM_EPK_VERSION, 0, 0), -EINVAL);
	check_wrong_places();
	check_place(0, 0, 0);
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), 0);

	/* VMFUNC stays what it is without EPK. */
	sigaction(SIGILL, NULL, &old);
	epk_try_init();
	CHECK_EQ(EPK_TRY(epk_vmfunc(0)), SIGILL);
	sigaction(SIGILL, &old, NULL);
}

static void test_leave(void)
{
	CHECK_EQ(enable(LEFT_BASE, 512, 1, LEFT_IDENTITY), 0);
	check_place(LEFT_BASE, 1, LEFT_IDENTITY);
	CHECK_EQ(call(KVM_EPK_FILL, 0, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	CHECK_EQ(call(KVM_EPK_CREATE, 1, 3, 0), 0);
	CHECK_EQ(call(KVM_EPK_CREATE, 511, 1, 0), 0);
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), 5);
	epk_vmfunc(2);
}

/* EPT numbers and counts that must not get through in any operation. */
static void check_ranges(uint64_t op, uint64_t a3)
{
	static const struct { uint64_t first, count; } bad[] = {
		{ FIRST, 0 }, { 512, 1 }, { 511, 2 }, { 0, 513 }, { 1, 512 }, { FIRST, ~0ull },
		{ ~0ull, 1 }, { ~0ull, 2 }, { 1ull << 32, 1 }, { FIRST, 1ull << 32 },
		{ 0xffffffff, 2 }, { 1ull << 63, 1ull << 63 },
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(call(op, bad[i].first, bad[i].count, a3), -EINVAL);
}

static void check_runs(void)
{
	const uint64_t base = query(KVM_EPK_QUERY_WINDOW_BASE) / GiB;
	const uint64_t identity = query(KVM_EPK_QUERY_IDENTITY_GPA) / GiB;
	const uint64_t bad[] = {
		KVM_EPK_RUN(0, 0, 0), KVM_EPK_RUN(1, 0, 1), KVM_EPK_RUN(0, 0, 2),
		KVM_EPK_RUN(0xffff, 0, 1), KVM_EPK_RUN(0, 0, 0xffffff), KVM_EPK_RUN(0xffff, 0, 0xffffff),
		KVM_EPK_RUN(0, base, 1), KVM_EPK_RUN(0, base + 511, 1), KVM_EPK_RUN(0, identity, 1),
		KVM_EPK_RUN(0, 0xffffff, 1), ~0ull,
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(call(KVM_EPK_FILL, FIRST, 1, bad[i]), -EINVAL);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, KVM_EPK_RUN(0, 1, 1)), -EINVAL);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, KVM_EPK_RUN(0, 0, 0)), -EINVAL);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, KVM_EPK_RUN(1, 0, 1)), -EINVAL);
}

static void check_life(void)
{
	const uint64_t run = KVM_EPK_RUN(0, 0, 1);
	long epts = query(KVM_EPK_QUERY_EPTS);

	/* Nothing there yet. */
	CHECK_EQ(call(KVM_EPK_FILL, FIRST, 1, run), -ENOENT);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, run), -ENOENT);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST, 1, 0), -ENOENT);

	CHECK_EQ(call(KVM_EPK_CREATE, FIRST + 1, 1, 0), 0);
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), epts + 1);
	/* A range that meets what exists changes none of it. */
	CHECK_EQ(call(KVM_EPK_CREATE, FIRST + 1, 1, 0), -EEXIST);
	CHECK_EQ(call(KVM_EPK_CREATE, FIRST, 3, 0), -EEXIST);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST + 1, 2, 0), -ENOENT);
	CHECK_EQ(call(KVM_EPK_FILL, FIRST + 1, 2, run), -ENOENT);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST + 1, 1, 1), -EINVAL);
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), epts + 1);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST + 1, 1, run), -ENOENT);

	CHECK_EQ(call(KVM_EPK_CREATE, FIRST, 1, 0), 0);
	CHECK_EQ(call(KVM_EPK_FILL, FIRST, 1, run), 0);
	CHECK_EQ(call(KVM_EPK_FILL, FIRST, 1, run), -EEXIST);
	CHECK_EQ(call(KVM_EPK_FILL, FIRST, 2, run), -EEXIST);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 2, run), -ENOENT);
	check_runs();
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, run), 0);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, run), -ENOENT);
	CHECK_EQ(call(KVM_EPK_FILL, FIRST, 2, run), 0);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST, 2, 0), 0);
	/* Destroying empties. */
	CHECK_EQ(call(KVM_EPK_CREATE, FIRST, 2, 0), 0);
	CHECK_EQ(call(KVM_EPK_EMPTY, FIRST, 1, run), -ENOENT);
	CHECK_EQ(call(KVM_EPK_DESTROY, FIRST, 2, 0), 0);
	CHECK_EQ(query(KVM_EPK_QUERY_EPTS), epts);
}

/* The guest's EPT goes away under it: it finds itself in EPT 0. */
static void check_destroy_current(void)
{
	struct epk_device dev;
	int i;

	epk_device_open(&dev);
	for (i = 0; i < 3; i++) {
		CHECK_EQ(call(KVM_EPK_CREATE, FIRST, 1, 0), 0);
		epk_vmfunc(FIRST);
		CHECK_EQ(dev.identity->ept, FIRST);
		CHECK_EQ(call(KVM_EPK_DESTROY, FIRST, 1, 0), 0);
		CHECK_EQ(dev.identity->ept, 0);
		CHECK_EQ(EPK_TRY(epk_vmfunc(FIRST)), SIGILL);
		CHECK_EQ(dev.identity->ept, 0);
	}
	CHECK_EQ(EPK_TRY(epk_vmfunc_leaf(1, 0)), SIGILL);
	CHECK_EQ(EPK_TRY(epk_vmfunc(512)), SIGILL);
	CHECK_EQ(EPK_TRY(epk_vmfunc(~0u)), SIGILL);
	close(dev.fd);
}

/* All at once, several times; nothing is lost. */
static void check_all_epts(void)
{
	long epts = query(KVM_EPK_QUERY_EPTS);
	int i;

	for (i = 0; i < 3; i++) {
		CHECK_EQ(call(KVM_EPK_CREATE, epts, 512 - epts, 0), 0);
		CHECK_EQ(query(KVM_EPK_QUERY_EPTS), 512);
		CHECK_EQ(call(KVM_EPK_FILL, epts, 512 - epts, KVM_EPK_RUN(0, 0, 1)), 0);
		CHECK_EQ(call(KVM_EPK_DESTROY, epts, 512 - epts, 0), 0);
		CHECK_EQ(query(KVM_EPK_QUERY_EPTS), epts);
	}
}

static void test_on(void)
{
	uint64_t base = query(KVM_EPK_QUERY_WINDOW_BASE);

	check_query();
	/* The highest place that is free; what was left, if it was. */
	if (base == LEFT_BASE)
		check_place(LEFT_BASE, 1, LEFT_IDENTITY);
	else
		check_place(512 * GiB, 1, 512 * GiB - 4096);
	check_unknown();
	check_user_mode();
	CHECK_EQ(enable(LEFT_BASE, 512, 1, LEFT_IDENTITY), -EEXIST);
	CHECK_EQ(enable(200 * GiB, 100, 4, LEFT_IDENTITY), -EEXIST);
	/* EPT 0 is there to stay, and cannot be made. */
	CHECK_EQ(call(KVM_EPK_DESTROY, 0, 1, 0), -EINVAL);
	CHECK_EQ(call(KVM_EPK_CREATE, 0, 1, 0), -EEXIST);
	check_ranges(KVM_EPK_CREATE, 0);
	check_ranges(KVM_EPK_DESTROY, 0);
	check_ranges(KVM_EPK_FILL, KVM_EPK_RUN(0, 0, 1));
	check_ranges(KVM_EPK_EMPTY, KVM_EPK_RUN(0, 0, 1));
	check_life();
	check_destroy_current();
	/* The module made none yet, or took its own away: all above are ours. */
	REQUIRE(query(KVM_EPK_QUERY_EPTS) == 1);
	check_all_epts();
}

int main(int argc, char **argv)
{
	raw = open(EPK_RAW_DEVICE, O_RDWR | O_CLOEXEC);
	REQUIRE(raw >= 0);
	if (argc == 2 && !strcmp(argv[1], "off"))
		test_off();
	else if (argc == 2 && !strcmp(argv[1], "leave"))
		test_leave();
	else if (argc == 2 && !strcmp(argv[1], "on"))
		test_on();
	else
		exit(2);
	return epk_test_result();
}
