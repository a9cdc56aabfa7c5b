// SPDX-License-Identifier: MIT
/* What an access to a window does: in its EPT, in another, and during events. */
#include "vmm.h"

#define DATA	0x5000ull	/* ordinary memory that the windows alias */
#define CODE	0x6000ull	/* holds a RET */

/* Every kind of access to @p; 0 if it is allowed, else the bits it must show. */
static void accesses(void *data, void *code, uint32_t user, bool allowed)
{
	GUEST_EQ(try_read(data), allowed ? 0 : DOMAIN_FAULT(user));
	if (!allowed)
		GUEST_EQ(this_cpu()->fault_address, data);
	GUEST_EQ(try_write(data + 8, 1), allowed ? 0 : DOMAIN_FAULT(PF_W | user));
	if (!allowed)
		GUEST_EQ(this_cpu()->fault_address, data + 8);
	/* Keys do not restrict fetches; it fails as from a no-execute page. */
	GUEST_EQ(try_fetch(code), allowed ? 0 : PF(PF_P | PF_FETCH | user));
	if (!allowed)
		GUEST_EQ(this_cpu()->fault_address, code);
	/* One that reads and writes is a write. */
	GUEST_EQ(TRY("lock incq (%0)", , "r"(data + 16)), allowed ? 0 : DOMAIN_FAULT(PF_W | user));
}

static long all_windows(long user)
{
	static const uint32_t epts[] = { 0, 1, 2, 255, 256, 510, 511 };
	const unsigned int nr = sizeof(epts) / sizeof(epts[0]);
	unsigned int in, of;

	for (in = 0; in < nr; in++) {
		vmfunc(epts[in]);
		for (of = 0; of < nr; of++)
			accesses(alias(epts[of], DATA), alias(epts[of], CODE), user, in == of);
	}
	vmfunc(0);
	return 0;
}

static void guest_windows(void)
{
	long faults;

	epk_set_up(511);
	*(uint8_t *)at(CODE) = 0xc3;
	all_windows(0);
	GUEST_EQ(read64(at(DATA + 16)), 7);
	faults = query(KVM_EPK_QUERY_STAT_FAULTS);
	GUEST_EQ(faults, 7 * 6 * 4);
	run_user(all_windows, PF_U);
	GUEST_EQ(query(KVM_EPK_QUERY_STAT_FAULTS), 2 * faults);
	GUEST_EQ(read64(at(DATA + 16)), 14);
}

static void windows(void)
{
	run_guest(guest_windows);
}

static void guest_empty(void)
{
	epk_set_up(2);
	vmfunc(1);
	write64(alias(1, DATA), 1);
	GUEST_EQ(hypercall(KVM_EPK_EMPTY, 1, 1, KVM_EPK_RUN(0, 0, 1)), 0);
	GUEST_EQ(try_read(alias(1, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(try_write(alias(1, DATA), 2), DOMAIN_FAULT(PF_W));
	GUEST_EQ(read64(at(DATA)), 1);
	/* EPT 2 has kept its own. */
	vmfunc(2);
	GUEST_EQ(read64(alias(2, DATA)), 1);

	/* Another block. */
	vmfunc(1);
	write64(at(GiB + DATA), 3);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 1, 1, KVM_EPK_RUN(0, 1, 1)), 0);
	GUEST_EQ(read64(alias(1, DATA)), 3);
	write64(alias(1, DATA), 4);
	GUEST_EQ(read64(at(GiB + DATA)), 4);
	GUEST_EQ(read64(at(DATA)), 1);

	/* Destroyed in it: in EPT 0; created again: empty. */
	GUEST_EQ(hypercall(KVM_EPK_DESTROY, 1, 1, 0), 0);
	GUEST_EQ(current_ept(), 0);
	GUEST_EQ(try_vmfunc(0, 1), UD);
	GUEST_EQ(try_read(alias(1, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, 1, 0), 0);
	vmfunc(1);
	GUEST_EQ(try_read(alias(1, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(try_read(alias(0, DATA)), DOMAIN_FAULT(0));
}

static void empty(void)
{
	struct vm *vm = vm_create();

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, 1, 0, GiB, 4 * MiB);
	vcpu_run_done(vcpu_add(vm, guest_empty));
	vm_destroy(vm);
}

static long identity_accesses(long user)
{
	const uint64_t *page = at(layout.identity);
	uint32_t ept, i;

	for (ept = 0; ept < 512; ept++) {
		vmfunc(ept);
		GUEST_EQ(read64(page), ept | (uint64_t)KVM_EPK_VERSION << 32);
	}
	for (i = 1; i < 512; i++)
		GUEST_EQ(read64(page + i), 0);
	for (ept = 0; ept < 512; ept += 511) {
		vmfunc(ept);
		GUEST_EQ(try_write((void *)page, 0), DOMAIN_FAULT(PF_W | user));
		GUEST_EQ(this_cpu()->fault_address, page);
		GUEST_EQ(try_write((void *)(page + 511), 0), DOMAIN_FAULT(PF_W | user));
		GUEST_EQ(try_fetch(page), PF(PF_P | PF_FETCH | user));
		GUEST_EQ(current_ept(), ept);
	}
	return 0;
}

static void guest_identity(void)
{
	epk_set_up(511);
	identity_accesses(0);
	run_user(identity_accesses, PF_U);
}

static void identity(void)
{
	run_guest(guest_identity);
}

/* The last bytes of one window and the first of the next, in one access. */
static void guest_straddle(void)
{
	char *last;

	epk_set_up(2);
	vmfunc(1);
	last = alias(2, 0);
	GUEST_EQ(try_read(last - 4), DOMAIN_FAULT(0));
	GUEST_EQ(this_cpu()->fault_address, last);
	GUEST_EQ(try_write(last - 4, 0), DOMAIN_FAULT(PF_W));
	vmfunc(2);
	GUEST_EQ(try_read(last - 4), DOMAIN_FAULT(0));
	GUEST_EQ(this_cpu()->fault_address, last - 4);
}

static void straddle(void)
{
	struct vm *vm = vm_create();

	vm_ram(vm, 0, 0, 0, 2 * MiB);
	vm_ram(vm, 1, 0, GiB - 2 * MiB, 2 * MiB);
	vcpu_run_done(vcpu_add(vm, guest_straddle));
	vm_destroy(vm);
}

/*
 * A guest that keeps what the CPU needs for an event in a window that is not
 * there: only itself is stopped.
 */
static enum { IDT, STACK, GDT, TABLES_ROOT, EVENTS } where;

static void load_table(const char *what, uint64_t base)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) table = { 4095, base };

	if (*what == 'i')
		asm volatile("lidt %0" : : "m"(table));
	else
		asm volatile("lgdt %0" : : "m"(table));
}

static void guest_event(void)
{
	void *foreign;

	epk_set_up(1);
	foreign = alias(1, DATA);
	switch (where) {
	case IDT:
		load_table("idt", (uint64_t)foreign);
		asm volatile("ud2");
		break;
	case STACK:
		asm volatile("movq %0, %%rsp; ud2" : : "r"(foreign));
		break;
	case TABLES_ROOT:
		asm volatile("movq %0, %%cr3" : : "r"((uint64_t)foreign - DIRECT_MAP) : "memory");
		break;
	default:
		load_table("gdt", (uint64_t)foreign);
		asm volatile("ud2");
	}
}

static void events(void)
{
	for (where = IDT; where < EVENTS; where++) {
		struct vm *vm = vm_create();
		struct vcpu *vcpu = vcpu_add(vm, guest_event);

		vm_ram(vm, 0, 0, 0, 16 * MiB);
		vcpu_run_exit(vcpu, KVM_EXIT_SHUTDOWN);
		vm_destroy(vm);
	}
}

static void guest_nmi(void)
{
	epk_set_up(1);
	load_table("idt", (uint64_t)alias(1, DATA));
	guest_sync(1);
	GUEST_CHECK(false);
}

/* An event from outside, not raised by the guest. */
static void nmi(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_nmi);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	REQUIRE(!ioctl(vcpu->fd, KVM_NMI));
	vcpu_run_exit(vcpu, KVM_EXIT_SHUTDOWN);
	vm_destroy(vm);
}

#define TABLES	0x100000ull	/* two pages of guest page tables */
#define VIRTUAL	(2ull << 40)	/* what they map */

static uint64_t tables_alias;
static struct vm *tables_vm;

/* Tables in a window: as good as any in its EPT, a fault in another. */
static void guest_tables(void)
{
	volatile uint64_t *virtual = (void *)(VIRTUAL + DATA);
	uint64_t *pd = at(TABLES), *pt = at(TABLES + PAGE);

	epk_set_up(2);
	pd[0] = (tables_alias + PAGE) | PTE_P | PTE_W | PTE_U;
	pt[DATA / PAGE] = DATA | PTE_P | PTE_W | PTE_U;
	GUEST_EQ((uint64_t)alias(1, TABLES) - DIRECT_MAP, tables_alias);
	write64(at(DATA), 77);

	vmfunc(1);
	GUEST_EQ(read64(virtual), 77);
	GUEST_EQ(pt[DATA / PAGE] & (PTE_A | PTE_D), PTE_A);
	write64(virtual, 78);
	GUEST_EQ(read64(at(DATA)), 78);
	GUEST_EQ(pt[DATA / PAGE] & (PTE_A | PTE_D), PTE_A | PTE_D);

	/* Setting an accessed bit makes it a write, whatever the access is. */
	vmfunc(2);
	GUEST_EQ(try_read(virtual) | PF_W, DOMAIN_FAULT(PF_W));
	GUEST_EQ(this_cpu()->fault_address, virtual);
	GUEST_EQ(try_write(virtual, 79), DOMAIN_FAULT(PF_W));
	vmfunc(1);
	GUEST_EQ(read64(virtual), 78);
}

static void page_tables(void)
{
	tables_vm = vm_create();
	vm_ram(tables_vm, 0, 0, 0, 16 * MiB);
	/* EPT 1's window at 40 address bits. */
	tables_alias = (1ull << 39) + GiB + TABLES;
	pages_map_table(tables_vm, VIRTUAL, tables_alias, 3);
	vcpu_run_done(vcpu_add(tables_vm, guest_tables));
	vm_destroy(tables_vm);
}

/* Linux 6.12 has it, the headers here may be older. */
#ifndef KVM_CAP_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY	236
#define KVM_PRE_FAULT_MEMORY		_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
struct kvm_pre_fault_memory {
	__u64 gpa, size, flags, padding[5];
};
#endif

#define HIGH		(600 * GiB)	/* memory in the 512 GiB of EPT 1's window */

/*
 * EPT 0 gets KVM's table for these 512 GiB, and sees what is there for the window: it has to be
 * nothing, also where KVM was asked to map it, or an access is no fault.
 */
static void guest_pre_fault(void)
{
	wanted = (struct layout){ .window_base = 511 * GiB, .identity = 510 * GiB, .slots = 1, .epts = 2 };
	epk_set_up(1);
	write64(at(DATA), 7);
	GUEST_EQ(read64(at(HIGH)), 0);
	guest_sync(1);
	GUEST_EQ(try_read(alias(1, DATA)), DOMAIN_FAULT(0));
	GUEST_EQ(try_write(alias(1, DATA), 8), DOMAIN_FAULT(PF_W));
	GUEST_EQ(current_ept(), 0);
	vmfunc(1);
	GUEST_EQ(read64(alias(1, DATA)), 7);
	GUEST_EQ(read64(at(HIGH + PAGE)), 0);
}

static int map_beforehand(struct vcpu *vcpu, uint64_t gpa)
{
	struct kvm_pre_fault_memory range = { .gpa = gpa, .size = PAGE };

	return ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, &range) ? -errno : 0;
}

static void pre_fault(void)
{
	struct vm *vm = vm_create();
	bool there = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) > 0;
	struct vcpu *vcpu, *idle;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vm_ram(vm, 1, 0, HIGH, 2 * MiB);
	vcpu = vcpu_add(vm, guest_pre_fault);
	/* It never runs, and yet has a root that is zapped as the other enables EPK. */
	idle = vcpu_add(vm, guest_pre_fault);
	if (there)
		CHECK_EQ(map_beforehand(idle, DATA), 0);
	vcpu_run_sync(vcpu, 1);
	if (there) {
		CHECK_EQ(map_beforehand(idle, DATA), 0);
		CHECK_EQ(map_beforehand(idle, 512 * GiB + DATA), -ENOENT);
		CHECK_EQ(map_beforehand(vcpu, 512 * GiB + DATA), -ENOENT);
		CHECK_EQ(map_beforehand(vcpu, 510 * GiB), -ENOENT);
		CHECK_EQ(map_beforehand(vcpu, 700 * GiB), -ENOENT);
		CHECK_EQ(map_beforehand(vcpu, HIGH + PAGE), 0);
	}
	vcpu_run_done(vcpu);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "windows", windows },
		{ "empty", empty },
		{ "identity", identity },
		{ "straddle", straddle },
		{ "events", events },
		{ "nmi", nmi },
		{ "page-tables", page_tables },
		{ "pre-fault", pre_fault },
	};

	return RUN_CASES(cases, argc, argv);
}
