// SPDX-License-Identifier: MIT
/*
 * KVM's instruction emulator, in a guest that has windows: operands, code and
 * page tables there work as for the CPU, and fail as for the CPU.
 */
#include <fcntl.h>

#include "vmm.h"

#define DATA	0x5000ull
#define CODE	0x6000ull
#define TABLES	0x100000ull	/* two pages of guest page tables */
#define VIRTUAL	(2ull << 40)	/* what they map */
#define DEVICE	(512 * MiB)	/* no memslot */
#define PORT	0x200

/* The instruction that follows is emulated; see kvm.force_emulation_prefix. */
#define EMULATE	".byte 0x0f, 0x0b, 0x6b, 0x76, 0x6d\n\t"

static void force_emulation(void)
{
	int fd = open("/sys/module/kvm/parameters/force_emulation_prefix", O_WRONLY);

	REQUIRE(fd >= 0 && write(fd, "1", 1) == 1);
	close(fd);
}

static uint64_t scratch;

/* As the CPU does it and as the emulator does it. */
#define BOTH(expected, at, insn, inputs...) do {			\
	GUEST_EQ(TRY(insn, "=a"(scratch), inputs), expected);		\
	if (expected)							\
		GUEST_EQ(this_cpu()->fault_address, at);		\
	GUEST_EQ(TRY(EMULATE insn, "=a"(scratch), inputs), expected);	\
	if (expected)							\
		GUEST_EQ(this_cpu()->fault_address, at);		\
} while (0)

/* Each second time the emulator does it, so everything is there twice. */
static void operands(char *p, uint32_t user, bool allowed)
{
	uint32_t read = allowed ? 0 : DOMAIN_FAULT(user);
	uint32_t write = allowed ? 0 : DOMAIN_FAULT(PF_W | user);

	BOTH(read, p, "movq (%1), %0", "r"(p));
	BOTH(read, p + 48, "cmpq $0, 48(%1)", "r"(p));
	BOTH(write, p + 8, "movq %1, 8(%1)", "r"(p));
	BOTH(write, p + 16, "lock incq 16(%1)", "r"(p));
	BOTH(write, p + 24, "lock cmpxchgq %2, 24(%1)", "r"(p), "r"(1ull), "0"(0));
	BOTH(write, p + 32, "lock cmpxchg8b 32(%1)", "r"(p), "0"(0), "b"(2), "c"(0), "d"(0));
	BOTH(write, p + 40, "xchgq %0, 40(%1)", "r"(p), "0"(3));
	if (allowed) {
		GUEST_EQ(scratch, 3);
		GUEST_EQ(read64(p + 8), p);
		GUEST_EQ(read64(p + 24), 1);
		GUEST_EQ(read64(p + 32), 2);
	}
}

static long both_windows(long user)
{
	uint32_t ept;

	for (ept = 0; ept < 3; ept++) {
		vmfunc(ept);
		operands(alias(1, DATA), user, ept == 1);
		vmfunc(0);
		write64(at(DATA + 24), 0);
		write64(at(DATA + 32), 0);
	}
	return 0;
}

static void guest_operands(void)
{
	epk_set_up(2);
	both_windows(0);
	GUEST_EQ(read64(at(DATA + 16)), 2);
	run_user(both_windows, PF_U);
	GUEST_EQ(read64(at(DATA + 16)), 4);
}

static void memory_operands(void)
{
	force_emulation();
	run_guest(guest_operands);
}

/* Emulated code in a window, and operands where it ends. */
static void guest_code(void)
{
	static const uint8_t code[] = {
		0x0f, 0x0b, 0x6b, 0x76, 0x6d,	/* emulate */
		0x48, 0x8b, 0x07,		/* mov (%rdi), %rax */
		0xc3,				/* ret */
	};
	uint64_t (*function)(uint64_t *);
	uint8_t *end, *ordinary = at(CODE);
	unsigned int i;

	epk_set_up(2);
	end = alias(2, 0);
	for (i = 0; i < sizeof(code); i++)
		ordinary[i] = code[i];
	write64(at(DATA), 0x1234);
	vmfunc(1);
	function = alias(1, CODE);
	GUEST_EQ(function(at(DATA)), 0x1234);
	GUEST_EQ(function(alias(1, DATA)), 0x1234);

	/* An operand that the next window has a half of. */
	BOTH(DOMAIN_FAULT(0), end, "movq (%1), %0", "r"(end - 4));
	BOTH(DOMAIN_FAULT(PF_W), end, "movq %1, (%1)", "r"(end - 4));
	vmfunc(2);
	BOTH(DOMAIN_FAULT(0), end - 4, "movq (%1), %0", "r"(end - 4));
}

static void code(void)
{
	struct vm *vm = vm_create();

	force_emulation();
	vm_ram(vm, 0, 0, 0, 2 * MiB);
	vm_ram(vm, 1, 0, GiB - 2 * MiB, 2 * MiB);
	vcpu_run_done(vcpu_add(vm, guest_code));
	vm_destroy(vm);
}

/* Page tables in EPT 1's window, walked by the emulator before the CPU ever does. */
static void guest_tables(void)
{
	char *virtual = (char *)VIRTUAL + DATA;
	uint64_t *pd = at(TABLES), *pt = at(TABLES + PAGE);

	epk_set_up(2);
	pd[0] = ((uint64_t)alias(1, TABLES + PAGE) - DIRECT_MAP) | PTE_P | PTE_W | PTE_U;
	pt[DATA / PAGE] = DATA | PTE_P | PTE_W | PTE_U;
	write64(at(DATA), 77);

	vmfunc(1);
	GUEST_EQ(TRY(EMULATE "movq (%1), %0", "=a"(scratch), "r"(virtual)), 0);
	GUEST_EQ(scratch, 77);
	GUEST_EQ(pt[DATA / PAGE] & (PTE_A | PTE_D), PTE_A);
	GUEST_EQ(TRY(EMULATE "movq %0, (%1)", , "r"(78ull), "r"(virtual)), 0);
	GUEST_EQ(read64(at(DATA)), 78);
	GUEST_EQ(pt[DATA / PAGE] & (PTE_A | PTE_D), PTE_A | PTE_D);

	/* To set an accessed bit is a write, whatever the access is. */
	vmfunc(2);
	GUEST_EQ(TRY(EMULATE "movq (%1), %0", "=a"(scratch), "r"(virtual)) | PF_W,
		 DOMAIN_FAULT(PF_W));
	GUEST_EQ(this_cpu()->fault_address, virtual);
	GUEST_EQ(TRY(EMULATE "movq %0, (%1)", , "r"(79ull), "r"(virtual)), DOMAIN_FAULT(PF_W));
	GUEST_EQ(this_cpu()->fault_address, virtual);
	GUEST_EQ(read64(at(DATA)), 78);
}

static void page_tables(void)
{
	struct vm *vm = vm_create();

	force_emulation();
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	/* EPT 1's window at 40 address bits. */
	pages_map_table(vm, VIRTUAL, (1ull << 39) + GiB + TABLES, 3);
	vcpu_run_done(vcpu_add(vm, guest_tables));
	vm_destroy(vm);
}

static uint32_t try_outs(const void *from, uint64_t count)
{
	return TRY("rep outsb", "+S"(from), "c"(count), "d"(PORT));
}

static uint32_t try_ins(void *to, uint64_t count)
{
	return TRY("rep insb", "+D"(to), "c"(count), "d"(PORT));
}

static uint32_t try_movs(void *to, const void *from)
{
	return TRY("movsq", "+D"(to), "S"(from));
}

/* String I/O and MMIO with the other operand in a window. */
static void guest_io(void)
{
	epk_set_up(2);
	write64(at(DATA), 0x0807060504030201);
	vmfunc(1);
	GUEST_EQ(try_outs(alias(1, DATA), 8), 0);
	GUEST_EQ(try_ins(alias(1, DATA + 16), 8), 0);
	GUEST_EQ(read64(at(DATA + 16)), 0x1817161514131211);
	GUEST_EQ(try_outs(alias(2, DATA), 8), DOMAIN_FAULT(0));
	GUEST_EQ(this_cpu()->fault_address, alias(2, DATA));
	GUEST_EQ(try_ins(alias(2, DATA), 8), DOMAIN_FAULT(PF_W));
	GUEST_EQ(this_cpu()->fault_address, alias(2, DATA));

	GUEST_EQ(try_movs(alias(1, DATA + 24), at(DEVICE)), 0);
	GUEST_EQ(read64(at(DATA + 24)), 0xdeadbeef);
	GUEST_EQ(try_movs(at(DEVICE + 8), alias(1, DATA)), 0);
	GUEST_EQ(try_movs(at(DEVICE + 8), alias(2, DATA)), DOMAIN_FAULT(0));
	/* The device is read before the write fails. */
	GUEST_EQ(try_movs(alias(2, DATA + 32), at(DEVICE)), DOMAIN_FAULT(PF_W));
	GUEST_EQ(this_cpu()->fault_address, alias(2, DATA + 32));
	GUEST_EQ(read64(at(DATA + 32)), 0);
}

static void string_io(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_io);
	uint64_t out = 0, in = 0x1817161514131211, written = 0;
	unsigned int n_out = 0, n_in = 0, reads = 0, i;
	struct kvm_run *run = vcpu->run;

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	while (!vcpu_run_done_or_exit(vcpu)) {
		uint8_t *data = (uint8_t *)run + run->io.data_offset;

		if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT) {
			for (i = 0; i < run->io.count; i++) {
				if (run->io.direction == KVM_EXIT_IO_OUT)
					out |= (uint64_t)data[i] << 8 * n_out++;
				else
					data[i] = in >> 8 * n_in++;
			}
			continue;
		}
		REQUIRE(run->exit_reason == KVM_EXIT_MMIO);
		CHECK_EQ(run->mmio.len, 8);
		if (run->mmio.is_write) {
			CHECK_EQ(run->mmio.phys_addr, DEVICE + 8);
			memcpy(&written, run->mmio.data, 8);
		} else {
			CHECK_EQ(run->mmio.phys_addr, DEVICE);
			memcpy(run->mmio.data, "\xef\xbe\xad\xde\0\0\0\0", 8);
			reads++;
		}
	}
	CHECK_EQ(n_out, 8);
	CHECK_EQ(out, 0x0807060504030201);
	CHECK_EQ(written, 0x0807060504030201);
	CHECK_EQ(reads, 2);
	vm_destroy(vm);
}

static void guest_translate(void)
{
	epk_set_up(2);
	vmfunc(1);
	guest_sync(1);
}

static void check_translation(struct vcpu *vcpu, void *address, bool valid, uint64_t gpa)
{
	struct kvm_translation translation = { .linear_address = (uint64_t)address };

	REQUIRE(!ioctl(vcpu->fd, KVM_TRANSLATE, &translation));
	CHECK_EQ(translation.valid, valid);
	if (valid)
		CHECK_EQ(translation.physical_address, gpa);
}

/* A VMM that asks where the guest's memory is. */
static void translate(void)
{
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_translate);

	vm_ram(vm, 0, 0, 0, 16 * MiB);
	vcpu_run_sync(vcpu, 1);
	check_translation(vcpu, at(DATA), true, DATA);
	check_translation(vcpu, alias(1, DATA), true, DATA);
	check_translation(vcpu, alias(2, DATA), false, 0);
	check_translation(vcpu, alias(0, DATA), false, 0);
	vm_destroy(vm);
}

asm(".code32\n"
    "pae_guest:\n\t"
    "movl 0x80005000, %ebx\n\t"
    EMULATE "movl 0x80005000, %edx\n\t"
    EMULATE "movl %edx, 0x80005008\n\t"
    "hlt\n\t"
    "movl 0x80205000, %eax\n\t"
    ".code64");

extern char pae_guest[];

/* 32-bit code with PAE page tables, whose addresses reach the windows as well. */
static void pae(void)
{
	static uint64_t tables[5][512] __attribute__((aligned(PAGE)));
	struct vm *vm = vm_create();
	struct vcpu *vcpu = vcpu_add(vm, guest_translate);
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t *ram, i;

	force_emulation();
	ram = vm_ram(vm, 0, 0, 0, 16 * MiB);
	ram[DATA / 8] = 0x4321;
	vcpu_run_sync(vcpu, 1);
	/* The image where it is linked; from 0x80000000 up EPT 1's window and 2's. */
	tables[0][0] = image_gpa(tables[1]) | PTE_P;
	tables[0][2] = image_gpa(tables[2]) | PTE_P;
	for (i = 0; i < image_size() / PAGE; i++) {
		uint64_t at = (uint64_t)image_start() + i * PAGE, n = at / (2 * MiB) - 2;

		REQUIRE(n < 2);
		tables[1][n + 2] = image_gpa(tables[3 + n]) | PTE_P | PTE_W;
		tables[3 + n][at / PAGE % 512] = (IMAGE_GPA + i * PAGE) | PTE_P | PTE_W;
	}
	tables[2][0] = ((1ull << 39) + GiB) | PTE_P | PTE_W | PTE_PS;
	tables[2][1] = ((1ull << 39) + 2 * GiB) | PTE_P | PTE_W | PTE_PS;

	REQUIRE(!ioctl(vcpu->fd, KVM_GET_SREGS, &sregs));
	sregs.efer = 0;
	sregs.cr3 = image_gpa(tables[0]);
	sregs.cs.l = 0;
	sregs.cs.db = 1;
	sregs.idt.limit = 0;
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	regs.rip = (uint64_t)pae_guest;
	REQUIRE(!ioctl(vcpu->fd, KVM_SET_REGS, &regs));
	vcpu_run_exit(vcpu, KVM_EXIT_HLT);
	REQUIRE(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	CHECK_EQ(regs.rbx, 0x4321);
	CHECK_EQ(regs.rdx, 0x4321);
	CHECK_EQ(ram[DATA / 8 + 1], 0x4321);
	/* Nothing handles the fault of the last access. */
	vcpu_run_exit(vcpu, KVM_EXIT_SHUTDOWN);
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "memory-operands", memory_operands },
		{ "code", code },
		{ "page-tables", page_tables },
		{ "string-io", string_io },
		{ "translate", translate },
		{ "pae", pae },
	};

	return RUN_CASES(cases, argc, argv);
}
