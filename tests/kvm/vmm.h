/* SPDX-License-Identifier: MIT */
/*
 * A small VMM: what the host half of a topic uses.  Raw KVM ioctls, no device.
 *
 * A topic is a file *_test.c.  Its cases are a table; each runs in a process of
 * its own, where global variables are fresh.  See README.md.
 */
#ifndef EPK_TEST_VMM_H
#define EPK_TEST_VMM_H

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

#define PAGE		4096ull
#define MiB		(1ull << 20)
#define GiB		(1ull << 30)
/* Of a memslot's number: it is of the address space of SMM. */
#define SMM_SPACE	(1u << 16)

#define MAX_VMS		2
#define MAX_VCPUS	4

/* The memslot of the program's image, and where the guest has it. */
#define IMAGE_SLOT	30
#define IMAGE_GPA	0x3f000000ull

struct vcpu {
	struct vm *vm;
	struct guest_cpu *cpu;
	struct kvm_run *run;
	int fd, stats_fd;
	pthread_t thread;
	int pcpu;		/* to run on, or -1 */
};

struct vm {
	int fd, stats_fd;
	int phys_bits;		/* MAXPHYADDR of its vCPUs */
	int nr_vcpus;
	struct vcpu vcpus[MAX_VCPUS];
	struct page_tables *tables;
};

/* cases.c: the table of a topic, and checks */
struct test_case {
	const char *name;
	void (*run)(void);
};

int run_cases(const struct test_case *cases, int nr, int argc, char **argv);
#define RUN_CASES(cases, argc, argv) \
	run_cases(cases, sizeof(cases) / sizeof((cases)[0]), argc, argv)

void check_failed(const char *file, int line, const char *what, long a, long b);
/* fork(), which does not fail; what was printed is printed once. */
pid_t fork_case(void);

void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...);
/* Of the kernel's, to write a setting to; dies if it is refused. */
void write_file(const char *path, const char *text);

#define CHECK_EQ(a, b) do {						\
	long a_ = (long)(a), b_ = (long)(b);				\
	if (a_ != b_)							\
		check_failed(__FILE__, __LINE__, #a " == " #b, a_, b_);	\
} while (0)
#define CHECK(a)	CHECK_EQ(!!(a), 1)
#define REQUIRE(a) do {							\
	if (!(a))							\
		die("%s:%d: %s: %s", __FILE__, __LINE__, #a, strerror(errno)); \
} while (0)

/* vm.c */
extern int kvm_fd;	/* /dev/kvm, open */
/* A VM with the program's image and nothing else; no vCPU yet. */
struct vm *vm_create(void);
/* The same, where MAXPHYADDR is not the usual one (at most 40). */
struct vm *vm_create_narrow(int phys_bits);
void vm_destroy(struct vm *vm);
/* Set, change or (size 0) delete a memslot; 0 or -errno. */
int vm_memslot(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
	       void *memory);
/* Anonymous memory, aligned to 2 MiB, as a memslot. */
void *vm_ram(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size);
void *huge_aligned_memory(uint64_t size);
/* A page of which the kernel is to find nothing until it is told what is there: a userfaultfd. */
int hold_page(void *page);
int vm_enable_cap(struct vm *vm, uint32_t cap, uint64_t arg0);
/* A statistic of KVM by its name; dies if there is none. */
uint64_t vm_stat(struct vm *vm, const char *name);
uint64_t vcpu_stat(struct vcpu *vcpu, const char *name);

/* vcpu.c */
struct vcpu *vcpu_add(struct vm *vm, void (*guest)(void));
/* What KVM supports, with that MAXPHYADDR; 0 or -errno. */
int vcpu_set_cpuid(struct vcpu *vcpu, int phys_bits);
/* Put a vCPU into 64-bit mode, about to call @guest. */
void vcpu_start_at(struct vcpu *vcpu, void (*guest)(void));
/* Go on as @from, with its registers and its stack. */
void vcpu_take_over(struct vcpu *vcpu, struct vcpu *from);
/* Run until the guest function returned. */
void vcpu_run_done(struct vcpu *vcpu);
/* The same, or (false) until another exit. */
bool vcpu_run_done_or_exit(struct vcpu *vcpu);
/* Run until guest_sync(@stage). */
void vcpu_run_sync(struct vcpu *vcpu, uint64_t stage);
/* The same, or (false) until another exit. */
bool vcpu_run_sync_or_exit(struct vcpu *vcpu, uint64_t stage);
/* Run until an exit of this reason that is no call to the host. */
void vcpu_run_exit(struct vcpu *vcpu, uint32_t reason);
/* The same as vcpu_run_done() in a thread. */
void vcpu_thread(struct vcpu *vcpu);
void vcpu_join(struct vcpu *vcpu);
/* KVM_SET_MSRS of one */
void vcpu_set_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value);

/* pages.c: the guest's page tables */
#define PTE_P	(1ull << 0)
#define PTE_W	(1ull << 1)
#define PTE_U	(1ull << 2)
#define PTE_A	(1ull << 5)
#define PTE_D	(1ull << 6)
#define PTE_PS	(1ull << 7)

void pages_init(struct vm *vm);
void pages_free(struct vm *vm);
/* Have the entry at @level point to a table that the topic makes. */
void pages_map_table(struct vm *vm, uint64_t gva, uint64_t table, int level);
uint64_t pages_cr3(struct vm *vm);
/* Where the guest has a thing of this program's image. */
uint64_t image_gpa(const void *p);
uint64_t image_size(void);
void *image_start(void);

/* module.c: KVM's modules, in the emulated host */
/* Load kvm-intel again with these parameters, e.g. "epk=off", for this case. */
void kvm_reload(const char *parameters);
/* The same, and KVM's common module has no TDP MMU. */
void kvm_reload_without_tdp_mmu(const char *parameters);
/* The value of a parameter, or "" where there is none. */
void kvm_parameter(const char *name, char value[16]);
/* Between cases: those that topics change, and have them be so again. */
#define KVM_PARAMETERS	128
void kvm_parameters(char values[KVM_PARAMETERS]);
void kvm_restore(const char values[KVM_PARAMETERS]);

/* probe.c: what goes on inside KVM, in the emulated host */
/* enum kvm_epk_invalidation */
enum invalidation {
	NOTHING = -1,
	VIEW_CREATED, VIEW_DESTROYED, SLOT_EMPTIED, TABLE_REMOVED, ROOTS_INVALIDATED, LINK_REPLACED,
};

/* Have KVM leave out all invalidations of one kind. */
void leave_out(enum invalidation why);
void leave_nothing_out(void);
/* Threads are to wait where they call @function; @skip, or "", is to do nothing from then on. */
void hold_at(const char *function, const char *skip);
/* Until one has come. */
void hold_wait(void);
void hold_release(void);
/* Nobody is there any more. */
void hold_end(void);
/* Warnings in the kernel's log. */
int kernel_warnings(void);

/* A whole VM of one vCPU: RAM of 16 MiB at 0, one guest function, to its end. */
void run_guest(void (*guest)(void));

#endif /* EPK_TEST_VMM_H */
