// SPDX-License-Identifier: MIT
/* vCPUs: registers to start with, and what they exit with. */
#include <stddef.h>

#include "vmm.h"

#define STACK_SIZE	16384

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
} __attribute__((packed));

struct tss {
	uint32_t reserved;
	uint64_t rsp0;
	uint8_t rest[92];
} __attribute__((packed));

/* All that a vCPU needs in guest memory. */
static struct vcpu_area {
	uint8_t stack[STACK_SIZE], user_stack[STACK_SIZE], fault_stack[STACK_SIZE];
	struct gate idt[256];
	uint64_t gdt[8];
	struct tss tss;
	struct guest_cpu cpu;
} __attribute__((aligned(64))) areas[MAX_VMS * MAX_VCPUS];

extern char exception_entries[], user_return_entry[];

_Static_assert(offsetof(struct guest_cpu, kernel_stack) == CPU_KERNEL_STACK, "entry.S");
_Static_assert(offsetof(struct guest_cpu, recover) == CPU_RECOVER, "entry.S");
_Static_assert(offsetof(struct guest_cpu, outcome) == CPU_OUTCOME, "entry.S");
_Static_assert(offsetof(struct guest_cpu, user_stack) == CPU_USER_STACK, "entry.S");

static void set_gate(struct gate *gate, const char *entry, uint8_t type)
{
	uint64_t address = (uint64_t)entry;

	*gate = (struct gate) {
		.offset_low = address,
		.selector = SEL_CODE64,
		.type = type,
		.offset_middle = address >> 16,
		.offset_high = address >> 32,
	};
}

static void area_init(struct vcpu_area *area)
{
	uint64_t tss = (uint64_t)&area->tss;
	int i;

	memset(area, 0, sizeof(*area));
	area->cpu.self = &area->cpu;
	area->cpu.user_stack = (uint64_t)(area->user_stack + STACK_SIZE);
	area->tss.rsp0 = (uint64_t)(area->fault_stack + STACK_SIZE);
	area->gdt[SEL_CODE64 / 8] = 0x00af9b000000ffff;
	area->gdt[SEL_DATA / 8] = 0x00cf93000000ffff;
	area->gdt[SEL_USER_DATA / 8] = 0x00cff3000000ffff;
	area->gdt[SEL_USER_CODE64 / 8] = 0x00affb000000ffff;
	area->gdt[SEL_CODE32 / 8] = 0x00cf9b000000ffff;
	area->gdt[SEL_TSS / 8] = (sizeof(area->tss) - 1) | (tss & 0xffffff) << 16 |
				 0x8bull << 40 | (tss >> 24 & 0xff) << 56;
	area->gdt[SEL_TSS / 8 + 1] = tss >> 32;
	for (i = 0; i < 32; i++)
		set_gate(&area->idt[i], exception_entries + 16 * i, 0x8e);
	set_gate(&area->idt[USER_RETURN_VECTOR], user_return_entry, 0xee);
}

static struct vcpu_area *area_of(struct vcpu *vcpu)
{
	return (void *)((char *)vcpu->cpu - offsetof(struct vcpu_area, cpu));
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code, uint64_t base)
{
	return (struct kvm_segment) {
		.base = base,
		.limit = type == 11 && !code ? sizeof(struct tss) - 1 : 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = selector & 3,
		.s = type != 11 || code,
		.l = code,
		.db = !code && type == 3,
		.g = type != 11 || code,
	};
}

void vcpu_start_at(struct vcpu *vcpu, void (*guest)(void))
{
	struct vcpu_area *area = area_of(vcpu);
	struct kvm_regs regs = {
		.rip = (uint64_t)guest_main,
		/* As after a call. */
		.rsp = (uint64_t)(area->stack + STACK_SIZE - 8),
		/* On, as Bochs interrupts no guest that is entered with interrupts off. */
		.rflags = 0x202,
	};
	struct kvm_sregs sregs;

	vcpu->cpu->entry = guest;
	vcpu->cpu->recover = 0;
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_SREGS, &sregs));
	sregs.cr0 = 0x80050033;		/* PG, AM, WP, NE, ET, MP, PE */
	sregs.cr3 = pages_cr3(vcpu->vm);
	sregs.cr4 = 0x620;		/* OSXMMEXCPT, OSFXSR, PAE */
	sregs.efer = 0xd01;		/* NXE, LMA, LME, SCE */
	sregs.cs = segment(SEL_CODE64, 11, true, 0);
	sregs.ss = segment(SEL_DATA, 3, false, 0);
	sregs.ds = segment(SEL_USER_DATA, 3, false, 0);
	sregs.es = sregs.fs = sregs.ds;
	sregs.gs = segment(SEL_USER_DATA, 3, false, (uint64_t)vcpu->cpu);
	sregs.tr = segment(SEL_TSS, 11, false, (uint64_t)&area->tss);
	sregs.gdt.base = (uint64_t)area->gdt;
	sregs.gdt.limit = sizeof(area->gdt) - 1;
	sregs.idt.base = (uint64_t)area->idt;
	sregs.idt.limit = sizeof(area->idt) - 1;
	/* The usual place is no address. */
	if (vcpu->vm->phys_bits < 32)
		sregs.apic_base = 0x3ee00900;
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_REGS, &regs));
}

int vcpu_set_cpuid(struct vcpu *vcpu, int phys_bits)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} cpuid = { .head.nent = 128 };
	uint32_t i;

	REQUIRE(!ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid));
	for (i = 0; i < cpuid.head.nent; i++) {
		if (cpuid.entries[i].function == 0x80000008)
			cpuid.entries[i].eax = (cpuid.entries[i].eax & ~0xff) | phys_bits;
	}
	return ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid) ? -errno : 0;
}

struct vcpu *vcpu_add(struct vm *vm, void (*guest)(void))
{
	int number = vm->nr_vcpus++, size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct vcpu *vcpu = &vm->vcpus[number];
	struct vcpu_area *area = areas;

	while (area < areas + MAX_VMS * MAX_VCPUS && area->cpu.self)
		area++;
	REQUIRE(number < MAX_VCPUS && area < areas + MAX_VMS * MAX_VCPUS);
	memset(vcpu, 0, sizeof(*vcpu));
	area_init(area);
	vcpu->vm = vm;
	vcpu->cpu = &area->cpu;
	vcpu->cpu->owner = vcpu;
	vcpu->cpu->number = number;
	vcpu->pcpu = -1;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, number);
	REQUIRE(vcpu->fd >= 0);
	vcpu->stats_fd = ioctl(vcpu->fd, KVM_GET_STATS_FD);
	REQUIRE(vcpu->stats_fd >= 0);
	vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	REQUIRE(vcpu->run != MAP_FAILED);
	REQUIRE(!vcpu_set_cpuid(vcpu, vm->phys_bits));
	vcpu_start_at(vcpu, guest);
	return vcpu;
}

void vcpu_take_over(struct vcpu *vcpu, struct vcpu *from)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	/* Have it complete the call that it was stopped at. */
	from->run->immediate_exit = 1;
	REQUIRE(ioctl(from->fd, KVM_RUN, 0) && errno == EINTR);
	REQUIRE(!ioctl(from->fd, KVM_GET_SREGS, &sregs));
	REQUIRE(!ioctl(from->fd, KVM_GET_REGS, &regs));
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_REGS, &regs));
	vcpu->cpu->self = NULL;
	vcpu->cpu = from->cpu;
	vcpu->cpu->owner = vcpu;
}

/* Run until a call that is the topic's business, or (0) another exit. */
static int run_to_event(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct guest_cpu *cpu = vcpu->cpu;
	uint32_t call;

	for (;;) {
		if (ioctl(vcpu->fd, KVM_RUN, 0)) {
			if (errno == EINTR)
				continue;
			return 0;
		}
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != GUEST_PORT)
			return 0;
		call = *(uint32_t *)((char *)run + run->io.data_offset);
		if (call == GUEST_ABORT)
			die("vCPU %d: exception %#lx at %#lx, CR2 %#lx", cpu->number,
			    cpu->value[0], cpu->value[1], cpu->fault_address);
		if (call != GUEST_FAILED)
			return call;
		check_failed(cpu->file, cpu->line, cpu->what, cpu->value[0], cpu->value[1]);
	}
}

static void unexpected(struct vcpu *vcpu, int call, const char *wanted)
{
	struct kvm_regs regs;
	struct kvm_run *run = vcpu->run;

	REQUIRE(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	die("vCPU %d: wanted %s, got call %d (%#lx), exit %u (%#llx %#llx %#llx), errno %d, rip %#llx",
	    vcpu->cpu->number, wanted, call, call ? vcpu->cpu->value[0] : 0, run->exit_reason,
	    run->internal.ndata ? run->internal.data[0] : 0, run->mmio.phys_addr,
	    run->internal.data[1], errno, regs.rip);
}

void vcpu_run_done(struct vcpu *vcpu)
{
	int call = run_to_event(vcpu);

	if (call != GUEST_DONE)
		unexpected(vcpu, call, "the end");
}

bool vcpu_run_done_or_exit(struct vcpu *vcpu)
{
	int call = run_to_event(vcpu);

	if (call && call != GUEST_DONE)
		unexpected(vcpu, call, "the end");
	return call == GUEST_DONE;
}

bool vcpu_run_sync_or_exit(struct vcpu *vcpu, uint64_t stage)
{
	int call = run_to_event(vcpu);
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "stage %lu", stage);
	if (call && (call != GUEST_SYNC || vcpu->cpu->value[0] != stage))
		unexpected(vcpu, call, wanted);
	return call;
}

void vcpu_run_sync(struct vcpu *vcpu, uint64_t stage)
{
	if (!vcpu_run_sync_or_exit(vcpu, stage))
		unexpected(vcpu, 0, "a stage");
}

void vcpu_run_exit(struct vcpu *vcpu, uint32_t reason)
{
	int call = run_to_event(vcpu);
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "exit %u", reason);
	if (call || vcpu->run->exit_reason != reason)
		unexpected(vcpu, call, wanted);
}

static void *vcpu_thread_main(void *arg)
{
	struct vcpu *vcpu = arg;
	cpu_set_t set;

	if (vcpu->pcpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(vcpu->pcpu, &set);
		REQUIRE(!sched_setaffinity(0, sizeof(set), &set));
	}
	vcpu_run_done(vcpu);
	return NULL;
}

void vcpu_thread(struct vcpu *vcpu)
{
	REQUIRE(!pthread_create(&vcpu->thread, NULL, vcpu_thread_main, vcpu));
}

void vcpu_join(struct vcpu *vcpu)
{
	REQUIRE(!pthread_join(vcpu->thread, NULL));
}

void vcpu_set_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = msr, .data = value } };

	REQUIRE(ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) == 1);
}

void run_guest(void (*guest)(void))
{
	struct vm *vm = vm_create();

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_done(vcpu_add(vm, guest));
	vm_destroy(vm);
}
