// SPDX-License-Identifier: MIT
/* The guest's half of the small kernel: start, exceptions, calls to the host. */
#include "guest.h"

struct layout layout, wanted;

struct frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

static uint64_t read_cr2(void)
{
	uint64_t cr2;

	asm volatile("movq %%cr2, %0" : "=r"(cr2));
	return cr2;
}

/* Called from entry.S. */
void guest_exception(struct frame *frame);
void guest_exception(struct frame *frame)
{
	struct guest_cpu *cpu = this_cpu();

	if (frame->vector == 14)
		cpu->fault_address = read_cr2();
	if (cpu->recover) {
		cpu->outcome = FAULT(frame->vector, frame->error);
		frame->rip = cpu->recover;
		/* It may have happened in 32-bit code. */
		frame->cs = frame->cs & 3 ? SEL_USER_CODE64 : SEL_CODE64;
		cpu->recover = 0;
		return;
	}
	cpu->value[0] = FAULT(frame->vector, frame->error);
	cpu->value[1] = frame->rip;
	guest_call(GUEST_ABORT);
}

void guest_failed(const char *file, int line, const char *what, uint64_t a, uint64_t b)
{
	struct guest_cpu *cpu = this_cpu();

	cpu->file = file;
	cpu->line = line;
	cpu->what = what;
	cpu->value[0] = a;
	cpu->value[1] = b;
	guest_call(GUEST_FAILED);
}

void guest_sync(uint64_t stage)
{
	this_cpu()->value[0] = stage;
	guest_call(GUEST_SYNC);
}

/* Where each vCPU starts. */
void guest_main(void)
{
	for (;;) {
		this_cpu()->entry();
		guest_call(GUEST_DONE);
	}
}

void epk_layout(void)
{
	layout.window_base = query(KVM_EPK_QUERY_WINDOW_BASE);
	layout.identity = query(KVM_EPK_QUERY_IDENTITY_GPA);
	layout.slots = query(KVM_EPK_QUERY_WINDOW_SLOTS);
	layout.epts = query(KVM_EPK_QUERY_NR_EPTS);
}

/* The identity page is the last below. */
struct layout upper_half(int phys_bits, uint64_t max_epts)
{
	uint64_t half = 1ull << (phys_bits - 1), blocks = half >> KVM_EPK_BLOCK_SHIFT;
	uint64_t epts = blocks < max_epts ? blocks : max_epts;

	return (struct layout){
		.window_base = half,
		.identity = half - 4096,
		.epts = epts,
		.slots = 1ull << (63 - __builtin_clzll(blocks / epts)),
	};
}

long epk_enable_at(struct layout at)
{
	return hypercall(KVM_EPK_ENABLE, KVM_EPK_VERSION,
			 KVM_EPK_WINDOWS(at.window_base >> KVM_EPK_BLOCK_SHIFT, at.epts, at.slots),
			 at.identity);
}

long epk_enable(void)
{
	long result;

	layout = wanted.slots ? wanted : upper_half(query(KVM_EPK_QUERY_PHYS_BITS),
						    query(KVM_EPK_QUERY_NR_EPTS));
	result = epk_enable_at(layout);
	if (!result)
		epk_layout();
	return result;
}

void epk_set_up(int last)
{
	GUEST_EQ(epk_enable(), 0);
	if (last)
		GUEST_EQ(hypercall(KVM_EPK_CREATE, 1, last, 0), 0);
	GUEST_EQ(hypercall(KVM_EPK_FILL, 0, last + 1, KVM_EPK_RUN(0, 0, 1)), 0);
}
