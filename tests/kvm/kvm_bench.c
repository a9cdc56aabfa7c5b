// SPDX-License-Identifier: MIT
/*
 * What the series costs, in instructions: the emulator's time stamp counter
 * counts one for each, the kernel's included.  The least of many is free of
 * interrupts.  Four KVMs are measured in one run: as Debian ships it, the series
 * with epk=off, and with EPK on and 1 or 512 EPTs, all warm; and what EPTs take to have, also
 * of numbers between these.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "vmm.h"

#define STOCK		"/epk/selftests/stock"
#define SERIES		"/epk"
#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define SLOT_PAGES	512ull
#define ROUNDS		5
#define NONE		(~0ull)

static const struct variant {
	const char *name, *modules, *parameters;
	uint32_t epts;
	/* Measured: what they take to have, and no more. */
	bool few;
} variants[] = {
	{ "stock KVM", STOCK, "", 0, false },
	{ "series, epk=off", SERIES, "epk=off", 0, false },
	{ "1 EPT", SERIES, "epk=any", 1, false },
	{ "8 EPTs", SERIES, "epk=any", 8, true },
	{ "64 EPTs", SERIES, "epk=any", 64, true },
	{ "512 EPTs", SERIES, "epk=any", 512, false },
};

#define NR_VARIANTS	(int)(sizeof(variants) / sizeof(variants[0]))
enum { V_STOCK, V_OFF, V_ONE, V_ALL = 5 };

/* What a variant takes; shared with the process that measures it. */
struct result {
	uint64_t invalidation, dirty_pass, violation, alias_violation;
	uint64_t create, switches, switch_each, switch_exits;
	uint64_t bytes[2];
};

static const struct variant *variant;
static struct result *result;
static volatile enum { TOUCH, TOUCH_ALIAS, WRITE_ALL } task;
static volatile uint64_t least;

static void less(uint64_t *best, uint64_t value)
{
	if (value < *best)
		*best = value;
}

static void guest_touch(bool alias_of)
{
	uint64_t i, start, took;

	for (i = 0; i < SLOT_PAGES; i++) {
		uint64_t gpa = SLOT_GPA + i * PAGE;
		void *p = alias_of ? alias(variant->epts - 1, gpa) : at(gpa);

		start = rdtsc();
		write64(p, i);
		took = rdtsc() - start;
		if (took < least)
			least = took;
	}
}

/* Create and fill all EPTs, and use each once. */
static void guest_epts(void)
{
	uint32_t n = variant->epts, i;
	uint64_t start;

	GUEST_EQ(epk_enable(), 0);
	guest_sync(10);
	start = rdtsc();
	if (n > 1)
		GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, n - 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, n, KVM_EPK_RUN(0, 0, 1)), 0);
	result->create = (rdtsc() - start) / n;
	guest_sync(11);
	for (i = 0; i < n; i++) {
		vmfunc(i);
		write64(alias(i, SLOT_GPA), i);
		GUEST_EQ(read64(at(SLOT_GPA)), i);
	}
}

/* Every EPT to another one, with an access to its window. */
static void guest_switch(void)
{
	uint64_t start = rdtsc(), i, n = result->switches;

	for (i = 0; i < n; i++) {
		uint32_t ept = i * 211 & (variant->epts - 1);

		vmfunc(ept);
		write64(alias(ept, SLOT_GPA), i);
	}
	result->switch_each = (rdtsc() - start) / n;
	vmfunc(variant->epts - 1);
}

static void guest_bench(void)
{
	if (variant->epts) {
		guest_epts();
		/* Once for what the code itself has to have mapped. */
		guest_switch();
		guest_sync(12);
		guest_switch();
		guest_sync(13);
	}
	for (;;) {
		guest_sync(1);
		guest_touch(task == TOUCH_ALIAS);
	}
}

static void load(const char *folder, const char *module, const char *parameters)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, module);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0))
		die("%s does not load: %s", path, strerror(errno));
	close(fd);
}

static void load_kvm(const char *modules, const char *kvm, const char *kvm_intel)
{
	REQUIRE(!syscall(SYS_delete_module, "kvm_intel", 0));
	REQUIRE(!syscall(SYS_delete_module, "kvm", 0));
	load(modules, "kvm.ko", kvm);
	load(modules, "kvm-intel.ko", kvm_intel);
}

/* Pages that are free, those in the lists of each CPU included. */
static uint64_t free_pages(void)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	unsigned long n, pages = 0;
	char line[256];

	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " pages free %lu", &n) == 1 || sscanf(line, " count: %lu", &n) == 1)
			pages += n;
	}
	fclose(f);
	return pages;
}

/* The guest up to its loop, with @ram bytes of memory. */
static struct vcpu *start(struct vm *vm, uint64_t ram, uint64_t *bytes)
{
	struct vcpu *vcpu = vcpu_add(vm, guest_bench);
	uint64_t before, exits;

	vm_ram(vm, 0, 0, 0, ram);
	if (!variant->epts)
		return vcpu;
	result->switches = 512;
	vcpu_run_sync(vcpu, 10);
	before = free_pages();
	vcpu_run_sync(vcpu, 11);
	/* Whole pages, as a few more are for something else, which with few EPTs is too much. */
	if (variant->epts >= 64)
		*bytes = (before - free_pages()) / (variant->epts - 1) * PAGE;
	vcpu_run_sync(vcpu, 12);
	exits = vcpu_stat(vcpu, "exits") - vcpu_stat(vcpu, "irq_exits");
	vcpu_run_sync(vcpu, 13);
	/* One exit is the call to the host. */
	result->switch_exits = vcpu_stat(vcpu, "exits") - vcpu_stat(vcpu, "irq_exits") - exits - 1;
	return vcpu;
}

static void touch(struct vcpu *vcpu, int how, uint64_t *best)
{
	task = how;
	least = NONE;
	vcpu_run_sync(vcpu, 1);
	less(best, least);
}

static void measure_faults(struct vcpu *vcpu, char *memory)
{
	uint64_t i, round, start;

	for (round = 0; round < 2 * ROUNDS; round++) {
		for (i = 0; i < SLOT_PAGES; i++) {
			start = rdtsc();
			REQUIRE(!madvise(memory + i * PAGE, PAGE, MADV_DONTNEED));
			/* In the first round the guest has mapped nothing. */
			if (round)
				less(&result->invalidation, rdtsc() - start);
			/* So that the guest's fault finds the page. */
			memory[i * PAGE] = 1;
		}
		if (round & 1 && variant->epts)
			touch(vcpu, TOUCH_ALIAS, &result->alias_violation);
		else
			touch(vcpu, TOUCH, &result->violation);
	}
}

static void measure_dirty_log(struct vm *vm, struct vcpu *vcpu, void *memory)
{
	static uint64_t bitmap[SLOT_PAGES / 64];
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bitmap };
	uint64_t round, start, unused = NONE;

	REQUIRE(!vm_memslot(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SLOT_PAGES * PAGE, memory));
	for (round = 0; round < ROUNDS; round++) {
		touch(vcpu, TOUCH, &unused);
		start = rdtsc();
		REQUIRE(!ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
		if (round)
			less(&result->dirty_pass, rdtsc() - start);
		CHECK_EQ(bitmap[0], NONE);
	}
}

static void measure(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;
	char *memory;

	memory = vm_ram(vm, SLOT, 0, SLOT_GPA, SLOT_PAGES * PAGE);
	REQUIRE(!madvise(memory, SLOT_PAGES * PAGE, MADV_NOHUGEPAGE));
	vcpu = start(vm, 16 * MiB, &result->bytes[0]);
	if (!variant->few) {
		vcpu_run_sync(vcpu, 1);
		measure_faults(vcpu, memory);
		measure_dirty_log(vm, vcpu, memory);
	}
	vm_destroy(vm);

	/* A larger guest has EPTs of the same size. */
	vm = vm_create();
	vm_ram(vm, SLOT, 0, SLOT_GPA, SLOT_PAGES * PAGE);
	vm_ram(vm, 2, 0, GiB, 64 * GiB);
	start(vm, 32 * MiB, &result->bytes[1]);
	vm_destroy(vm);
}

/* A line for bench/figures.py, as bench/figure.h has it; here without floating point. */
static void figure(const char *what, const char *variant, const char *baseline, uint64_t value)
{
	printf("{\"table\": \"KVM\", \"case\": \"%s: %s\", \"baseline\": \"%s%s%s\", ", what, variant,
	       baseline ? what : "-", baseline ? ": " : "", baseline ? baseline : "");
	printf("\"count\": %lu}\n", value);
}

/* What stock KVM has no figure of is compared with one EPT's. */
static void figures(const char *what, const struct result *results, size_t field)
{
	const char *first = NULL;
	int i;

	for (i = 0; i < NR_VARIANTS; i++) {
		uint64_t value = *(const uint64_t *)((const char *)&results[i] + field);

		if (value == NONE || !value)
			continue;
		figure(what, variants[i].name, first, value);
		if (!first)
			first = variants[i].name;
	}
}

static void row(const char *what, const struct result *results, size_t field)
{
	int i;

	figures(what, results, field);
	printf("%-44s", what);
	for (i = 0; i < NR_VARIANTS; i++) {
		uint64_t value = *(const uint64_t *)((const char *)&results[i] + field);

		if (value == NONE)
			printf("%16s", "-");
		else
			printf("%16lu", value);
	}
	printf("\n");
}

static int within(const char *what, uint64_t value, uint64_t limit)
{
	printf("%-4s %s: %lu, at most %lu\n", value <= limit ? "ok" : "FAIL", what, value, limit);
	return value > limit;
}

/* @value against @base, in hundredths of a per cent. */
static int compare(const char *what, uint64_t value, uint64_t base, uint64_t limit)
{
	int64_t more = ((int64_t)value - (int64_t)base) * 10000 / (int64_t)base;
	bool ok = more <= (int64_t)limit;

	printf("%-4s %s: %s%ld.%02ld %%, at most %lu %%\n", ok ? "ok" : "FAIL", what,
	       more < 0 ? "-" : "+", labs(more) / 100, labs(more) % 100, limit / 100);
	return !ok;
}

static int judge(const struct result *r)
{
	int bad = 0;

	bad += within("VM exits of 512 switches and accesses", r[V_ALL].switch_exits, 0);
	bad += within("create and fill, instructions an EPT", r[V_ALL].create, 8000);
	bad += within("host memory, bytes an EPT", r[V_ALL].bytes[0], 24 << 10);
	bad += within("the same in a guest of 64 GiB", r[V_ALL].bytes[1], 24 << 10);
	bad += compare("invalidation, 512 EPTs against 1", r[V_ALL].invalidation,
		       r[V_ONE].invalidation, 500);
	bad += compare("dirty-log pass, 512 EPTs against 1", r[V_ALL].dirty_pass,
		       r[V_ONE].dirty_pass, 500);
	bad += compare("EPT violation, 512 EPTs against 1", r[V_ALL].violation,
		       r[V_ONE].violation, 500);
	bad += compare("EPT violation in a window, 512 EPTs against 1", r[V_ALL].alias_violation,
		       r[V_ONE].alias_violation, 500);
	bad += compare("invalidation, epk=off against stock", r[V_OFF].invalidation,
		       r[V_STOCK].invalidation, 100);
	bad += compare("dirty-log pass, epk=off against stock", r[V_OFF].dirty_pass,
		       r[V_STOCK].dirty_pass, 100);
	bad += compare("EPT violation, epk=off against stock", r[V_OFF].violation,
		       r[V_STOCK].violation, 100);
	return bad;
}

static void print(const struct result *results)
{
#define FIELD(name)	__builtin_offsetof(struct result, name)
	int i;

	printf("%-44s", "instructions in the emulator, the least");
	for (i = 0; i < NR_VARIANTS; i++)
		printf("%16s", variants[i].name);
	printf("\n");
	row("MMU-notifier invalidation of a page, madvise()", results, FIELD(invalidation));
	row("dirty-log pass, 512 dirty pages", results, FIELD(dirty_pass));
	row("EPT violation, page present", results, FIELD(violation));
	row("EPT violation in a window", results, FIELD(alias_violation));
	row("VMFUNC and an access to the window", results, FIELD(switch_each));
	row("VM exits of 512 of these", results, FIELD(switch_exits));
	row("create and fill, for each EPT", results, FIELD(create));
	row("host memory of an EPT, bytes", results, FIELD(bytes[0]));
	row("the same in a guest of 64 GiB", results, FIELD(bytes[1]));
}

int main(void)
{
	struct result *results;
	int i, status, bad = 0;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	results = mmap(NULL, sizeof(*results) * NR_VARIANTS, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(results != MAP_FAILED);
	memset(results, 0xff, sizeof(*results) * NR_VARIANTS);
	for (i = 0; i < NR_VARIANTS; i++) {
		load_kvm(variants[i].modules, "", variants[i].parameters);
		pid = fork();
		if (!pid) {
			static struct result mine;

			/* In the image, which the guest writes to. */
			memset(&mine, 0xff, sizeof(mine));
			variant = &variants[i];
			result = &mine;
			measure();
			results[i] = mine;
			_exit(0);
		}
		REQUIRE(waitpid(pid, &status, 0) == pid);
		if (status)
			printf("FAIL %s\n", variants[i].name);
		bad += status != 0;
	}
	/* As the testbed has it; its checks of each guest entry would be counted. */
	load_kvm(SERIES, "epk_debug=1", "epk=any");
	print(results);
	return judge(results) + bad != 0;
}
