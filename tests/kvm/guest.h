/* SPDX-License-Identifier: MIT */
/*
 * What the guest half of a topic uses.  The guest is this very program: its
 * image is a memslot, mapped at the same linear addresses, so functions and
 * global variables are common to both halves.  A guest function runs in 64-bit
 * mode at CPL 0; it must not call libc, and gets no interrupts.
 */
#ifndef EPK_TEST_GUEST_H
#define EPK_TEST_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "asm/kvm_epk.h"
#include "offsets.h"

/* Guest-physical addresses as the guest sees them: all of them, in 1 GiB pages. */
#define DIRECT_MAP		(1ull << 40)
#define at(gpa)			((void *)(DIRECT_MAP + (uint64_t)(gpa)))

/* What became of an instruction: 0, or the exception that it raised. */
#define FAULT(vector, error)	(0x80000000u | (vector) << 16 | (error))
#define UD			FAULT(6u, 0)
#define GP			FAULT(13u, 0)
#define PF(error)		FAULT(14u, error)
#define PF_P			(1u << 0)
#define PF_W			(1u << 1)
#define PF_U			(1u << 2)
#define PF_FETCH		(1u << 4)
#define PF_PK			(1u << 5)
#define DOMAIN_FAULT(bits)	PF(PF_P | PF_PK | (bits))

struct guest_cpu {
	struct guest_cpu *self;
	uint64_t kernel_stack;	/* while user code runs */
	uint64_t recover;	/* where an expected exception continues, or 0 */
	uint64_t outcome;	/* of the last attempt, as FAULT() */
	uint64_t user_stack;
	uint64_t fault_address;	/* CR2 of the last #PF */
	/* The host's struct vcpu, and its number in its VM. */
	void *owner;
	int number;
	/* The message that a call to the host carries. */
	const char *file, *what;
	int line;
	uint64_t value[2];
	void (*entry)(void);
};

static inline struct guest_cpu *this_cpu(void)
{
	struct guest_cpu *cpu;

	asm("movq %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

/* Calls to the host. */
enum guest_call {
	GUEST_DONE = 1,		/* the guest function returned */
	GUEST_SYNC,		/* guest_sync() */
	GUEST_FAILED,		/* a check failed; the guest goes on */
	GUEST_ABORT,		/* an exception that nobody expected */
};
#define GUEST_PORT		0xe0

static inline void guest_call(enum guest_call call)
{
	asm volatile("outl %0, %1" : : "a"(call), "i"(GUEST_PORT) : "memory");
}

/* Let the host do something; it sees @stage. */
void guest_sync(uint64_t stage);
void guest_failed(const char *file, int line, const char *what, uint64_t a, uint64_t b);
void guest_main(void);

#define GUEST_EQ(a, b) do {						\
	uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);		\
	if (a_ != b_)							\
		guest_failed(__FILE__, __LINE__, #a " == " #b, a_, b_);	\
} while (0)
#define GUEST_CHECK(a)		GUEST_EQ(!!(a), 1)

/* Run @function(@arg) at CPL 3, with I/O allowed; returns what it returns. */
long run_user(long (*function)(long), long arg);
/* A hypercall from a 32-bit code segment of a 64-bit guest. */
long hypercall_compat(uint32_t nr, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3);
/* VMFUNC from there; returns as try_vmfunc(). */
uint32_t vmfunc_compat(uint32_t leaf, uint32_t index);

/*
 * Execute an instruction that may fault; an exception continues after it.  What
 * is returned tells which.
 */
#define TRY(insn, outputs, inputs...) ({				\
	asm volatile("leaq 97f(%%rip), %%r11\n\t"			\
		     "movq %%r11, %%gs:16\n\t"				\
		     "movq $0, %%gs:24\n\t"				\
		     insn "\n"						\
		     "97:\tmovq $0, %%gs:16"				\
		     : outputs : inputs : "r11", "memory", "cc");	\
	(uint32_t)this_cpu()->outcome;					\
})

static inline uint32_t try_read(const volatile void *p)
{
	uint64_t value;

	return TRY("movq (%1), %0", "=&r"(value), "r"(p));
}

static inline uint32_t try_write(volatile void *p, uint64_t value)
{
	return TRY("movq %1, (%0)", , "r"(p), "r"(value));
}

/* Call code at @p, which returns at once if it can be fetched. */
static inline uint32_t try_fetch(const volatile void *p)
{
	uint64_t stack;

	return TRY("movq %%rsp, %0\n\tcall *%1\n97:\tmovq %0, %%rsp", "=&r"(stack), "r"(p));
}

static inline uint32_t try_vmfunc(uint64_t leaf, uint64_t index)
{
	return TRY(".byte 0x0f, 0x01, 0xd4", , "a"(leaf), "c"(index));
}

static inline void vmfunc(uint32_t index)
{
	asm volatile(".byte 0x0f, 0x01, 0xd4" : : "a"(0), "c"(index) : "memory");
}

static inline long hypercall_nr(uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	long result;

	asm volatile("vmcall" : "=a"(result)
		     : "a"(nr), "b"(a0), "c"(a1), "d"(a2), "S"(a3) : "memory");
	return result;
}

static inline long hypercall(uint64_t op, uint64_t a1, uint64_t a2, uint64_t a3)
{
	return hypercall_nr(KVM_HC_EPK, op, a1, a2, a3);
}

static inline long query(enum kvm_epk_query what)
{
	return hypercall(KVM_EPK_QUERY, what, 0, 0);
}

/* Where window memory and the identity page are. */
struct layout {
	uint64_t window_base, identity, slots, epts;
};

/* As the host says; valid after epk_enable() or epk_layout(). */
extern struct layout layout;
/* What epk_enable() asks for; where it has no slots, the upper half of what there is. */
extern struct layout wanted;

struct layout upper_half(int phys_bits, uint64_t max_epts);
void epk_layout(void);
/* Enable EPK with that layout: what the hypercall returns. */
long epk_enable_at(struct layout at);
long epk_enable(void);
/* Enable EPK, create EPTs up to @last, and alias block 0 in each of 0..@last. */
void epk_set_up(int last);

/* The address at which EPT @ept aliases @gpa if its slot 0 holds @gpa's block. */
static inline void *alias(uint32_t ept, uint64_t gpa)
{
	return at(layout.window_base + (ept * layout.slots << KVM_EPK_BLOCK_SHIFT) +
		  (gpa & ((1ull << KVM_EPK_BLOCK_SHIFT) - 1)));
}

static inline uint32_t current_ept(void)
{
	return ((volatile struct kvm_epk_identity *)at(layout.identity))->ept;
}

static inline uint64_t read64(const volatile void *p)
{
	return *(const volatile uint64_t *)p;
}

static inline void write64(volatile void *p, uint64_t value)
{
	*(volatile uint64_t *)p = value;
}

/* VMFUNC takes the emulator long: not too many in a time slice. */
static inline void pass_time(void)
{
	int i;

	for (i = 0; i < 2000; i++)
		asm volatile("pause");
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

#endif /* EPK_TEST_GUEST_H */
