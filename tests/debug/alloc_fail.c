// SPDX-License-Identifier: MIT
/*
 * alloc_fail [STEP]: let each allocation of each step fail, one after the other.
 * It has to be refused cleanly (-ENOMEM to the guest or from KVM_RUN), leave the
 * state as it was, work when it is tried again, and leave nothing behind.
 *
 * Wants a kernel with failslab and fail_page_alloc: kernel.sh debug.
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "account.h"
#include "ops.h"
#include "host.h"

/* More than any step takes. */
#define MAX_NTH		2000

#define WINDOW(ept)	(at_upper.window_base + (uint64_t)(ept) * at_upper.slots * GiB)

static int fail_fd;
static struct layout at_upper;

struct step {
	const char *name;
	/* Before each attempt, nothing fails. */
	void (*prepare)(struct machine *machine);
	/* 0, or -errno. */
	int (*attempt)(struct machine *machine);
	/* After one that succeeded. */
	void (*undo)(struct machine *machine);
	/* A new VM for each attempt: there is no undo. */
	bool fresh;
};

static void fail_init(void)
{
	write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/failslab/verbose", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/verbose", "0");
}

/* Let allocation number @nth of this thread fail from now on; 0: none. */
static void fail_nth(unsigned int nth)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u", nth);

	REQUIRE(pwrite(fail_fd, text, n, 0) == n);
}

/* Has it? */
static bool fail_happened(void)
{
	char text[16] = "";

	REQUIRE(pread(fail_fd, text, sizeof(text) - 1, 0) > 0);
	return strtoul(text, NULL, 10) == 0;
}

/* A hypercall by the first vCPU, while KVM_RUN may fail. */
static int try_hypercall(struct machine *machine, uint64_t op, uint64_t a1, uint64_t a2,
			 uint64_t a3)
{
	struct runner *runner = &machine->cpu[0];
	int r;

	runner->ops[0] = (struct op){ .kind = OP_HYPERCALL, .a = { op, a1, a2, a3 } };
	runner->ops[1].kind = OP_END;
	runner->nr_mmio = 0;
	r = runner_try(runner);
	return r ? r : runner->ops[0].result;
}

static int try_accesses(struct machine *machine, unsigned int nr, const uint64_t *gpas)
{
	struct runner *runner = &machine->cpu[0];
	unsigned int i;
	int r;

	for (i = 0; i < nr; i++)
		runner->ops[i] = (struct op){ .kind = i % 2 ? OP_WRITE : OP_READ,
					      .a = { gpas[i], i } };
	runner->ops[nr].kind = OP_END;
	runner->nr_mmio = 0;
	r = runner_try(runner);
	for (i = 0; !r && i < nr; i++) {
		if (runner->ops[i].fault)
			die("access %u: fault %#lx at %#lx", i, runner->ops[i].fault, gpas[i]);
	}
	return r;
}

static void must(int r, const char *what)
{
	if (r)
		die("%s, with nothing failing: %d", what, r);
}

static int attempt_enable(struct machine *machine)
{
	return try_hypercall(machine, KVM_EPK_ENABLE, KVM_EPK_VERSION,
			     KVM_EPK_WINDOWS(at_upper.window_base / GiB, at_upper.epts,
					     at_upper.slots), at_upper.identity);
}

static void enable(struct machine *machine)
{
	must(attempt_enable(machine), "enable");
}

/* EPT 1 exists; EPTs 0 and 1 alias block 0. */
static void set_up(struct machine *machine)
{
	enable(machine);
	must(try_hypercall(machine, KVM_EPK_CREATE, 1, 1, 0), "create");
	must(try_hypercall(machine, KVM_EPK_FILL, 0, 2, KVM_EPK_RUN(0, 0, 1)), "fill");
}

static int attempt_create_one(struct machine *machine)
{
	return try_hypercall(machine, KVM_EPK_CREATE, 5, 1, 0);
}

static void undo_create_one(struct machine *machine)
{
	must(try_hypercall(machine, KVM_EPK_DESTROY, 5, 1, 0), "destroy");
}

static int attempt_create_some(struct machine *machine)
{
	return try_hypercall(machine, KVM_EPK_CREATE, 7, 4, 0);
}

static void undo_create_some(struct machine *machine)
{
	must(try_hypercall(machine, KVM_EPK_DESTROY, 7, 4, 0), "destroy");
}

static void prepare_destroy(struct machine *machine)
{
	must(try_hypercall(machine, KVM_EPK_CREATE, 9, 1, 0), "create");
	must(try_hypercall(machine, KVM_EPK_FILL, 9, 1, KVM_EPK_RUN(0, 1, 1)), "fill");
}

static int attempt_destroy(struct machine *machine)
{
	return try_hypercall(machine, KVM_EPK_DESTROY, 9, 1, 0);
}

static int attempt_fill(struct machine *machine)
{
	int r = try_hypercall(machine, KVM_EPK_EMPTY, 1, 1, KVM_EPK_RUN(0, 0, 1));

	return r ? r : try_hypercall(machine, KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, 0, 1));
}

/* KVM has no page table for anything, and no link. */
static void forget_tables(struct machine *machine)
{
	REQUIRE(!machine_set_ram(machine, 1, NO_RAM));
	REQUIRE(!machine_set_ram(machine, 1, 0));
}

static int attempt_touch(struct machine *machine)
{
	const uint64_t gpas[] = {
		WINDOW(0) + 0x80000, WINDOW(0) + 0x80008, GiB + 0x80000, GiB + 0x80008,
		WINDOW(0) + 0x200000,
	};

	return try_accesses(machine, 5, gpas);
}

static int attempt_mmio(struct machine *machine)
{
	const uint64_t gpas[] = { WINDOW(0) + 0x20000000, WINDOW(0) + 0x20000008 };

	return try_accesses(machine, 2, gpas);
}

static int attempt_domain_fault(struct machine *machine)
{
	struct runner *runner = &machine->cpu[0];
	int r;

	runner->ops[0] = (struct op){ .kind = OP_VMFUNC, .a = { 0, 1 } };
	runner->ops[1] = (struct op){ .kind = OP_READ, .a = { WINDOW(0) } };
	runner->ops[2] = (struct op){ .kind = OP_VMFUNC, .a = { 0, 300 } };
	runner->ops[3] = (struct op){ .kind = OP_VMFUNC, .a = { 0, 0 } };
	runner->ops[4].kind = OP_END;
	r = runner_try(runner);
	if (!r && (runner->ops[1].fault != PF(PF_P | PF_PK) || runner->ops[2].fault != UD))
		die("faults %#lx, %#lx", runner->ops[1].fault, runner->ops[2].fault);
	return r;
}

/* The pages that views share with KVM's root are split, and logged. */
static void prepare_log(struct machine *machine)
{
	must(attempt_touch(machine), "touch");
	REQUIRE(!machine_set_ram(machine, 0, KVM_MEM_LOG_DIRTY_PAGES));
}

static void undo_log(struct machine *machine)
{
	REQUIRE(!machine_set_ram(machine, 0, 0));
}

/* What a VMM restores: EPTs 0 to 2, each with one block. */
static int attempt_restore(struct machine *machine)
{
	struct {
		struct kvm_epk_state state;
		struct kvm_epk_run run;
	} saved = {
		.state = {
			.version = KVM_EPK_VERSION,
			.window_slots = at_upper.slots,
			.window_base = at_upper.window_base,
			.identity = at_upper.identity,
			.nr_epts = at_upper.epts,
			.epts = { 7 },
			.nr_runs = 1,
		},
		.run = { .first = 0, .count = 3, .run = KVM_EPK_RUN(0, 1, 1) },
	};

	return ioctl(machine->vm->fd, KVM_SET_EPK_STATE, &saved) ? -errno : 0;
}

static const struct step steps[] = {
	{ "enable", NULL, attempt_enable, NULL, true },
	{ "create-one", NULL, attempt_create_one, undo_create_one, false },
	{ "create-some", NULL, attempt_create_some, undo_create_some, false },
	{ "destroy", prepare_destroy, attempt_destroy, NULL, false },
	{ "empty-fill", NULL, attempt_fill, NULL, false },
	{ "touch-first", set_up, attempt_touch, NULL, true },
	{ "touch", forget_tables, attempt_touch, NULL, false },
	{ "mmio", forget_tables, attempt_mmio, NULL, false },
	{ "domain-fault", forget_tables, attempt_domain_fault, NULL, false },
	{ "log", prepare_log, attempt_touch, undo_log, false },
	{ "restore", NULL, attempt_restore, NULL, true },
};

static void new_machine(struct machine *machine)
{
	machine_create(machine, 1, 40, max_epts());
	at_upper = upper_half(40, machine_hypercall(machine, KVM_EPK_QUERY,
						    KVM_EPK_QUERY_NR_EPTS, 0, 0));
}

/* Fail allocation @nth of one attempt.  False if there are not so many. */
static bool one_failure(const struct step *step, struct machine *machine, unsigned int nth,
			unsigned int *refused)
{
	bool happened;
	int64_t epts;
	int r;

	if (step->prepare)
		step->prepare(machine);
	epts = machine_hypercall(machine, KVM_EPK_QUERY, KVM_EPK_QUERY_EPTS, 0, 0);
	fail_nth(nth);
	r = step->attempt(machine);
	happened = fail_happened();
	fail_nth(0);

	if (r && (!happened || r != -ENOMEM))
		die("%s: %d when allocation %u %s", step->name, r, nth,
		    happened ? "failed" : "did not fail");
	if (r && machine->cpu[0].unfinished) {
		/* KVM_RUN refused; it goes on where it was. */
		++*refused;
		must(runner_try(&machine->cpu[0]), step->name);
	} else if (r) {
		++*refused;
		if (machine_hypercall(machine, KVM_EPK_QUERY, KVM_EPK_QUERY_EPTS, 0, 0) != epts)
			die("%s: refused when allocation %u failed, and done", step->name, nth);
		must(step->attempt(machine), step->name);
	}
	if (step->undo)
		step->undo(machine);
	return happened;
}

static void run_step(const struct step *step)
{
	unsigned int nth, refused = 0;
	struct machine machine;

	fail_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	REQUIRE(fail_fd >= 0);
	if (!step->fresh) {
		new_machine(&machine);
		set_up(&machine);
	}
	for (nth = 1; nth < MAX_NTH; nth++) {
		bool more;

		if (step->fresh)
			new_machine(&machine);
		more = one_failure(step, &machine, nth, &refused);
		if (step->fresh || !more)
			machine_destroy(&machine);
		if (!more)
			break;
	}
	if (nth == MAX_NTH)
		die("%s: no end of allocations", step->name);
	printf("%s: %u allocations failed, %u attempts refused\n", step->name, nth - 1, refused);
}

static bool fork_step(const struct step *step)
{
	pid_t pid = fork_case();
	int status;

	if (!pid) {
		run_step(step);
		fflush(stdout);
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	if (status)
		printf("%s: status %#x\n", step->name, status);
	return !status;
}

int main(int argc, char **argv)
{
	unsigned int i, nr = 0, failed = 0;
	uint64_t before = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ram_init();
	fail_init();
	account_begin();
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (argc > 1 && strcmp(argv[1], steps[i].name))
			continue;
		failed += !fork_step(&steps[i]);
		if (!nr++)
			before = account_kernel_bytes();
	}
	if (!nr)
		die("no such step");
	return !(account_clean(before) && !failed);
}
