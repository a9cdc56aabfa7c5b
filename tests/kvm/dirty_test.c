// SPDX-License-Identifier: MIT
/*
 * Dirty logging: what a guest writes through windows is logged once, at the
 * ordinary address, however the log is kept.
 */
#include "vmm.h"

#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define SLOT_PAGES	1024
#define LAST		511

/* Writes of one round: (EPT, page, through its window). */
struct write {
	uint32_t ept, page;
	bool window;
};

static const struct write round_one[] = {
	{ 0, 0, true }, { 1, 1, true }, { 511, 2, true }, { 256, 511, true }, { 7, 512, true },
	/* The same page by several ways. */
	{ 3, 700, true }, { 4, 700, true }, { 5, 700, false }, { 5, 700, true },
	{ 9, 1023, false },
};
static const struct write round_two[] = { { 2, 1, true }, { 1, 2, true }, { 511, 513, true } };

#define NR(array)	(sizeof(array) / sizeof((array)[0]))

static const struct write *writes;
static unsigned int nr_writes;

static void guest_write(void)
{
	uint64_t stage;
	unsigned int i;

	epk_set_up(LAST);
	for (stage = 0; ; stage++) {
		guest_sync(stage);
		for (i = 0; i < nr_writes; i++) {
			uint64_t gpa = SLOT_GPA + writes[i].page * PAGE;

			vmfunc(writes[i].ept);
			/* Reading is not writing. */
			GUEST_EQ(read64(at(SLOT_GPA + 800 * PAGE)), 0);
			GUEST_EQ(read64(alias(writes[i].ept, SLOT_GPA + 801 * PAGE)), 0);
			write64(writes[i].window ? alias(writes[i].ept, gpa) : at(gpa), stage);
		}
	}
}

static void set_bits(uint64_t *bitmap, const struct write *w, unsigned int nr)
{
	memset(bitmap, 0, SLOT_PAGES / 8);
	while (nr--)
		bitmap[w[nr].page / 64] |= 1ull << w[nr].page % 64;
}

static void get_log(struct vm *vm, uint32_t slot, uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };

	REQUIRE(!ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
}

static void check_log(struct vm *vm, const struct write *w, unsigned int nr)
{
	uint64_t expected[SLOT_PAGES / 64], bitmap[SLOT_PAGES / 64];
	unsigned int i;

	set_bits(expected, w, nr);
	get_log(vm, SLOT, bitmap);
	for (i = 0; i < NR(bitmap); i++)
		CHECK_EQ(bitmap[i], expected[i]);
}

static void clear_log(struct vm *vm, uint32_t first, uint32_t pages)
{
	uint64_t all[SLOT_PAGES / 64];
	struct kvm_clear_dirty_log clear = { .slot = SLOT, .num_pages = pages,
					     .first_page = first, .dirty_bitmap = all };

	memset(all, 0xff, sizeof(all));
	REQUIRE(!ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear));
}

static uint64_t next_stage;

/* Have the guest make these writes. */
static void play(struct vcpu *vcpu, const struct write *w, unsigned int nr)
{
	writes = w;
	nr_writes = nr;
	vcpu_run_sync(vcpu, ++next_stage);
}

static struct vm *start(struct vcpu **vcpu, uint32_t flags, void **memory)
{
	struct vm *vm = vm_create();

	next_stage = 0;
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	*memory = vm_ram(vm, SLOT, flags, SLOT_GPA, SLOT_PAGES * PAGE);
	/* A page that is read counts as written if a neighbour gave it a huge page. */
	REQUIRE(!madvise(*memory, SLOT_PAGES * PAGE, MADV_NOHUGEPAGE));
	*vcpu = vcpu_add(vm, guest_write);
	vcpu_run_sync(*vcpu, 0);
	return vm;
}

/* The log on, read, read again, off and on again. */
static void log_on_off(void)
{
	void *memory;
	struct vcpu *vcpu;
	struct vm *vm = start(&vcpu, 0, &memory);

	/* Every mapping warm, and huge where it can be. */
	play(vcpu, round_one, NR(round_one));
	REQUIRE(!vm_memslot(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SLOT_PAGES * PAGE, memory));
	check_log(vm, NULL, 0);
	play(vcpu, round_one, NR(round_one));
	check_log(vm, round_one, NR(round_one));
	check_log(vm, NULL, 0);
	play(vcpu, round_two, NR(round_two));
	check_log(vm, round_two, NR(round_two));
	/* What was logged is logged again when it is written again. */
	play(vcpu, round_two, NR(round_two));
	check_log(vm, round_two, NR(round_two));

	REQUIRE(!vm_memslot(vm, SLOT, 0, SLOT_GPA, SLOT_PAGES * PAGE, memory));
	play(vcpu, round_one, NR(round_one));
	REQUIRE(!vm_memslot(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SLOT_PAGES * PAGE, memory));
	check_log(vm, NULL, 0);
	play(vcpu, round_one, NR(round_one));
	check_log(vm, round_one, NR(round_one));
	vm_destroy(vm);
}

/* With the page-modification log, then by write protection. */
static void log_with_pml(void)
{
	char pml[16];

	kvm_parameter("pml", pml);
	CHECK_EQ(pml[0], 'Y');
	log_on_off();
}

static void log_without_pml(void)
{
	kvm_reload("epk=any pml=0");
	log_on_off();
}

static void log_without_ad(void)
{
	kvm_reload("epk=any eptad=0");
	log_on_off();
}

static void manual(uint64_t how)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu;
	uint64_t bitmap[SLOT_PAGES / 64];
	unsigned int i;

	next_stage = 0;
	REQUIRE(!vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, how));
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SLOT_PAGES * PAGE);
	vcpu = vcpu_add(vm, guest_write);
	vcpu_run_sync(vcpu, 0);
	play(vcpu, round_one, NR(round_one));
	if (how & KVM_DIRTY_LOG_INITIALLY_SET) {
		get_log(vm, SLOT, bitmap);
		for (i = 0; i < NR(bitmap); i++)
			CHECK_EQ(bitmap[i], ~0ull);
		clear_log(vm, 0, SLOT_PAGES);
		check_log(vm, NULL, 0);
		play(vcpu, round_one, NR(round_one));
	}
	/* Getting clears nothing, clearing a part only that. */
	check_log(vm, round_one, NR(round_one));
	check_log(vm, round_one, NR(round_one));
	clear_log(vm, 64, SLOT_PAGES - 64);
	check_log(vm, round_one, 3);
	clear_log(vm, 0, 64);
	check_log(vm, NULL, 0);
	play(vcpu, round_two, NR(round_two));
	check_log(vm, round_two, NR(round_two));
	vm_destroy(vm);
}

static void manual_protect(void)
{
	manual(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
}

static void initially_set(void)
{
	manual(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
}

#define RING_ENTRIES	1024

/* Collect what the ring holds: each page just once, and nothing else. */
static void check_ring(struct vcpu *vcpu, struct kvm_dirty_gfn *ring, uint32_t *next,
		       const struct write *w, unsigned int nr)
{
	uint64_t expected[SLOT_PAGES / 64], seen[SLOT_PAGES / 64] = {};
	struct kvm_dirty_gfn *entry;
	unsigned int i;

	set_bits(expected, w, nr);
	for (; ; (*next)++) {
		entry = &ring[*next % RING_ENTRIES];
		if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			break;
		CHECK_EQ(entry->slot, SLOT);
		REQUIRE(entry->offset < SLOT_PAGES);
		CHECK_EQ(seen[entry->offset / 64] >> entry->offset % 64 & 1, 0);
		seen[entry->offset / 64] |= 1ull << entry->offset % 64;
		__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	for (i = 0; i < NR(seen); i++)
		CHECK_EQ(seen[i], expected[i]);
	REQUIRE(ioctl(vcpu->vm->fd, KVM_RESET_DIRTY_RINGS) >= 0);
}

static void dirty_ring(void)
{
	struct vm *vm = vm_create();
	struct kvm_dirty_gfn *ring;
	struct vcpu *vcpu;
	uint32_t next = 0;

	next_stage = 0;
	REQUIRE(!vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, RING_ENTRIES * sizeof(*ring)));
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SLOT_PAGES * PAGE);
	vcpu = vcpu_add(vm, guest_write);
	ring = mmap(NULL, RING_ENTRIES * sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED,
		    vcpu->fd, KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
	REQUIRE(ring != MAP_FAILED);
	vcpu_run_sync(vcpu, 0);
	play(vcpu, round_one, NR(round_one));
	check_ring(vcpu, ring, &next, round_one, NR(round_one));
	play(vcpu, round_two, NR(round_two));
	check_ring(vcpu, ring, &next, round_two, NR(round_two));
	play(vcpu, round_one, NR(round_one));
	check_ring(vcpu, ring, &next, round_one, NR(round_one));
	vm_destroy(vm);
}

/* A slot gets another block while pages are being logged, here or elsewhere. */
static void guest_refill(void)
{
	const uint64_t run = KVM_EPK_RUN(0, 0, 1), other = KVM_EPK_RUN(0, 1, 1);

	epk_set_up(2);
	guest_sync(1);
	vmfunc(1);
	write64(alias(1, SLOT_GPA), 1);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, run), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, other), 0);
	write64(alias(1, SLOT_GPA + PAGE), 5);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, run), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, run), 0);
	write64(alias(1, SLOT_GPA + 3 * PAGE), 1);
	/* Destroying empties. */
	vmfunc(2);
	write64(alias(2, SLOT_GPA + 2 * PAGE), 1);
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 2, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 2, 1, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 2, 1, other), 0);
	vmfunc(2);
	write64(alias(2, SLOT_GPA + 4 * PAGE), 6);
	GUEST_EQ(read64(at(GiB + SLOT_GPA + PAGE)), 5);
	GUEST_EQ(read64(at(GiB + SLOT_GPA + 4 * PAGE)), 6);
	GUEST_EQ(read64(at(SLOT_GPA + PAGE)), 0);
	guest_sync(2);
}

/* Block 1 has a memslot of the same shape, which is not logged. */
static void refill_slot(uint32_t flags, uint32_t elsewhere)
{
	static const struct write written[] = { { 1, 0, true }, { 1, 3, true }, { 2, 2, true } };
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_refill);
	void *memory;

	vm_ram(vm, 0, elsewhere, 0, 16 * MiB);
	vm_ram(vm, 2, 0, GiB + SLOT_GPA, 2 * MiB);
	memory = vm_ram(vm, SLOT, flags, SLOT_GPA, SLOT_PAGES * PAGE);
	/* The guest reads a page, see start(). */
	REQUIRE(!madvise(memory, SLOT_PAGES * PAGE, MADV_NOHUGEPAGE));
	vcpu_run_sync(vcpu, 1);
	vcpu_run_sync(vcpu, 2);
	if (flags)
		check_log(vm, written, NR(written));
	vm_destroy(vm);
}

static void refill(void)
{
	refill_slot(KVM_MEM_LOG_DIRTY_PAGES, 0);
}

/* As of a screen, whose memory QEMU always logs. */
static void refill_elsewhere(void)
{
	refill_slot(0, KVM_MEM_LOG_DIRTY_PAGES);
}

static void refill_without_pml(void)
{
	kvm_reload("epk=any pml=0");
	refill_slot(KVM_MEM_LOG_DIRTY_PAGES, 0);
	refill_slot(0, KVM_MEM_LOG_DIRTY_PAGES);
}

#define REFILLS		250

static volatile uint64_t page_to_write, over;

/* Writes one page over and over, whatever its window leads to, or to nothing. */
static void guest_writes(void)
{
	uint64_t page;

	vmfunc(1);
	while (!over) {
		page = page_to_write;
		try_write(alias(1, SLOT_GPA + page * PAGE), page + 1);
	}
}

static void guest_refills(void)
{
	uint64_t i;

	epk_set_up(1);
	for (i = 0; i < SLOT_PAGES; i++) {
		write64(at(SLOT_GPA + i * PAGE), 1);
		write64(at(GiB + SLOT_GPA + i * PAGE), 1);
	}
	for (i = 0; ; i++) {
		guest_sync(0);
		GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, KVM_EPK_RUN(0, 0, 1)), 0);
		GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, ~i & 1, 1)), 0);
	}
}

/* The number of pages that were written; each of them was logged. */
static uint64_t check_all_logged(struct vm *vm, uint32_t slot, const char *memory)
{
	uint64_t bitmap[SLOT_PAGES / 64], page, written = 0;

	get_log(vm, slot, bitmap);
	for (page = 0; page < SLOT_PAGES; page++) {
		if (!*(uint64_t *)(memory + page * PAGE))
			continue;
		CHECK_EQ(bitmap[page / 64] >> page % 64 & 1, 1);
		written++;
	}
	return written;
}

/*
 * Another vCPU writes through the slot meanwhile.  All pages are mapped, and clean
 * since the log was read, so that it is the CPU that logs the first write to each, by
 * its address in the window.  The vCPU loses its CPU, to the one that wakes up,
 * between the exit and the reading of that log, and the slot gets the other block.
 */
static void refill_meanwhile(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_refills), *writer = vcpu_add(vm, guest_writes);
	uint32_t flags = KVM_MEM_LOG_DIRTY_PAGES;
	uint64_t bitmap[SLOT_PAGES / 64];
	char *memory[2];
	int i;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	memory[0] = vm_ram(vm, 1, flags, SLOT_GPA, SLOT_PAGES * PAGE);
	memory[1] = vm_ram(vm, 2, flags, GiB + SLOT_GPA, SLOT_PAGES * PAGE);
	for (i = 0; i < 2; i++)
		REQUIRE(!madvise(memory[i], SLOT_PAGES * PAGE, MADV_NOHUGEPAGE));
	vcpu_run_sync(vcpu, 0);
	for (i = 0; i < 2; i++) {
		get_log(vm, i + 1, bitmap);
		memset(memory[i], 0, SLOT_PAGES * PAGE);
	}
	vcpu_thread(writer);
	for (i = 0; i < REFILLS; i++) {
		/* One that is clean each time. */
		page_to_write = i;
		usleep(300);
		vcpu_run_sync(vcpu, 0);
	}
	over = 1;
	vcpu_join(writer);
	/* Both blocks had their share. */
	CHECK(check_all_logged(vm, 1, memory[0]) > REFILLS / 4);
	CHECK(check_all_logged(vm, 2, memory[1]) > REFILLS / 4);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "log-with-pml", log_with_pml },
		{ "log-without-pml", log_without_pml },
		{ "log-without-ad", log_without_ad },
		{ "manual-protect", manual_protect },
		{ "initially-set", initially_set },
		{ "dirty-ring", dirty_ring },
		{ "refill", refill },
		{ "refill-elsewhere", refill_elsewhere },
		{ "refill-without-pml", refill_without_pml },
		{ "refill-meanwhile", refill_meanwhile },
	};

	return RUN_CASES(cases, argc, argv);
}
