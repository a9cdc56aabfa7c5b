// SPDX-License-Identifier: MIT
/* Components: what component_gate.S cannot do alone, and how a domain becomes one. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "aside.h"
#include "component.h"
#include "heap.h"
#include "registry.h"

_Static_assert(EPK_IOC_CALL == EPK_IOC_CALL_NR && EPK_IOC_RETURN == EPK_IOC_RETURN_NR &&
	       EPK_IOC_MOVE == EPK_IOC_MOVE_NR && EPK_RETURN_NOTHING == EPK_RETURNS_NOTHING &&
	       EPK_MOVES_ADMIT_ONE == (1 | (uint64_t)EPK_MOVES_ADMIT << 32) &&
	       EPK_MOVE_ANY == (uint64_t)EPK_EPT_ANY << 32 &&
	       offsetof(struct epk_moves, flags) == 4 && offsetof(struct epk_moves, moves) == 8 &&
	       offsetof(struct epk_move, ept) == 4 &&
	       sizeof(struct epk_moves) + sizeof(struct epk_move) ==
		       sizeof(((struct epk_word *)0)->moves), "as in component.h");

#define STACK_BYTES	(32ul * 1024)
#define STACK_LEAST	(16ul * 1024)
#define STACK_MOST	(1ul << 30)
#define HEAP_MOST	(1ul << 40)
#define THREADS		16
#define THREADS_MOST	1024

/* RDFSBASE, which the kernel has to allow. */
#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE	(1 << 1)
#endif

static bool cpu_can(void)
{
	unsigned int eax, ebx, ecx = 0, edx;

	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_AES &&
	       getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

/*
 * That the module has rights of a thread's in its record the closed keys tell: there is to be one while a
 * component is open, or what it calls had these, too.
 */
static bool shows_records(void)
{
	return epk_now.pkeys & (epk_now.pkeys - 1);
}

/**
 * struct plan - what a component is to be
 * @id: its domain
 * @nr: its entries
 * @entries: where they are
 * @threads: that can be in it at a time, a power of two
 * @stack_bytes: for each of them, with a guard page
 * @tls_bytes: of these, for its thread-local variables: a page behind its FS base, the rest below
 * @heap_bytes: of its heap, if it cannot grow later
 * @confined: it is EPK_COMPONENT_CONFINED
 */
struct plan {
	int id;
	unsigned int nr;
	long (*const *entries)(void *arg);
	size_t threads;
	size_t stack_bytes;
	size_t tls_bytes;
	size_t heap_bytes;
	bool confined;
};

/* What lies before the header: gates that do not confine find that instead. */
static size_t before_header(const struct plan *plan)
{
	return plan->confined ? EPK_CONF_HEADER : 0;
}

static size_t header_bytes(const struct plan *plan)
{
	size_t bytes = EPK_COMP_SLOTS + plan->threads * EPK_COMP_SLOT_BYTES;

	return (bytes + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
}

static size_t all_bytes(const struct plan *plan)
{
	return before_header(plan) + header_bytes(plan) + plan->threads * plan->stack_bytes;
}

/* Each stack ends at a page that nobody can touch. */
static int add_guard_pages(const struct plan *plan, char *mem)
{
	char *stack = mem + before_header(plan) + header_bytes(plan);
	size_t i;

	if (plan->confined && mprotect(mem, before_header(plan), PROT_NONE))
		return -errno;
	for (i = 0; i < plan->threads; i++, stack += plan->stack_bytes)
		if (mprotect(stack, EPK_PAGE_SIZE, PROT_NONE))
			return -errno;
	return 0;
}

/* The thread holds the domain alone. */
static int fill(const struct plan *plan, struct epk_component *component)
{
	uint64_t top = (uintptr_t)component + header_bytes(plan);
	size_t i;

	component->nr = plan->nr;
	component->mask = (plan->threads - 1) * EPK_COMP_SLOT_BYTES;
	for (i = 0; i < plan->nr; i++)
		component->entries[i] = plan->entries[i];
	for (i = 0; i < plan->threads; i++) {
		component->slots[i].least = top + EPK_PAGE_SIZE + EPK_COMP_NESTED;
		top += plan->stack_bytes;
		component->slots[i].top = top - plan->tls_bytes;
		component->slots[i].tls = top - EPK_PAGE_SIZE;
		component->slots[i].owner = 1;
		/* No two of its calls have one number. */
		component->slots[i].count = i << 48;
	}
	return getrandom(component->keys, sizeof(component->keys), 0) ==
	       sizeof(component->keys) ? 0 : -EIO;
}

static int make_private(const struct plan *plan, const void *mem)
{
	struct epk_note arg = {
		.id = plan->id, .flags = EPK_NOTE_PRIVATE, .addr = (uintptr_t)mem,
	};

	if (plan->confined)
		arg.flags |= EPK_NOTE_CONFINED;
	return ioctl(epk_now.fd, EPK_IOC_NOTE, &arg) ? -errno : 0;
}

/* In one function, since the stack pointer has to be the same. */
static int make(const struct plan *plan)
{
	char *mem = domain_mmap(plan->id, NULL, all_bytes(plan), PROT_READ | PROT_WRITE, 0);
	struct epk_component *component = (struct epk_component *)(mem + before_header(plan));
	struct heap *heap = NULL;
	struct epk_aside aside;
	int err;

	if (mem == MAP_FAILED)
		return -errno;
	err = add_guard_pages(plan, mem);
	if (!err)
		err = epk_thread_ready();
	if (!err)
		err = epk_put_aside(&aside, plan->id);
	if (!err) {
		err = fill(plan, component);
		if (!err && plan->heap_bytes) {
			heap = epk_heap_make(plan->id, plan->heap_bytes, plan->confined);
			component->heap = heap;
			err = heap ? 0 : -errno;
		}
		epk_take_back(&aside);
	}
	if (!err)
		err = make_private(plan, mem);
	if (err && heap)
		epk_heap_unmake(heap, plan->heap_bytes);
	if (err)
		domain_munmap(mem, all_bytes(plan));
	return err;
}

static int read_options(const struct epk_component_options *options, struct plan *plan)
{
	struct epk_component_options known = { 0 };
	size_t size = options ? options->size : 0, threads;
	int err;

	/* No member is there in part. */
	if (options && (!size || (size < sizeof(known) && size % sizeof(size_t))))
		return epk_because(EPK_CAUSE_SIZE);
	err = options ? epk_options_copy(&known, sizeof(known), options, size) : 0;
	if (err)
		return err;
	if (!known.stack_bytes)
		known.stack_bytes = STACK_BYTES;
	threads = known.threads ? known.threads : THREADS;
	plan->confined = known.flags & EPK_COMPONENT_CONFINED;
	if (known.flags & ~EPK_COMPONENT_CONFINED || threads > THREADS_MOST ||
	    known.stack_bytes < STACK_LEAST || known.stack_bytes > STACK_MOST ||
	    known.heap_bytes > HEAP_MOST)
		return epk_because(EPK_CAUSE_OPTION);
	for (plan->threads = 1; plan->threads < threads; plan->threads *= 2)
		;
	plan->stack_bytes = (known.stack_bytes + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
	plan->tls_bytes = 0;
	if (plan->confined)
		plan->tls_bytes = EPK_PAGE_SIZE + ((epk_now.tls_below + EPK_PAGE_SIZE - 1) &
						   ~(EPK_PAGE_SIZE - 1));
	plan->stack_bytes += plan->tls_bytes;
	plan->heap_bytes = (known.heap_bytes + EPK_PAGE_SIZE - 1) & ~(EPK_PAGE_SIZE - 1);
	return 0;
}

static int create(struct plan *plan, const struct epk_component_options *options)
{
	struct epk_entry entry;
	unsigned int i;
	int err;

	if (!plan->nr || plan->nr > EPK_COMP_ENTRIES_MAX || !plan->entries)
		return epk_because(EPK_CAUSE_ENTRIES);
	for (i = 0; i < plan->nr; i++)
		if (!plan->entries[i])
			return epk_because(EPK_CAUSE_ENTRIES);
	err = read_options(options, plan);
	if (err)
		return err;
	if (!epk_ops())
		return -ENOENT;
	err = epk_lookup(plan->id, &entry);
	if (err)
		return err;
	if (strcmp(epk_ops()->name, "epk") || !cpu_can() || !shows_records())
		return epk_because(EPK_CAUSE_COMPONENT);
	/* The module looks again. */
	if (epk_note(plan->id) || epk_ops()->common_prot(plan->id) > 0)
		return epk_because(EPK_CAUSE_USED);
	return make(plan);
}

int epk_component_create(int dom_id, long (*const entries[])(void *arg), unsigned int nr,
			 const struct epk_component_options *options)
{
	struct plan plan = { .id = dom_id, .nr = nr, .entries = entries };
	int saved_errno = errno, err = create(&plan, options);

	errno = saved_errno;
	return epk_explain("epk_component_create", dom_id, err);
}

static int records_make(void)
{
	char *records = mmap(NULL, EPK_PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (records == MAP_FAILED)
		return -ENOMEM;
	epk_self->records = records;
	epk_word.confined = records;
	return 0;
}

static int admit(int id)
{
	struct epk_move move = { .id = id, .ept = EPK_EPT_ANY };
	struct epk_moves moves = {
		.num = 1, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)&move,
	};

	return ioctl(epk_now.fd, EPK_IOC_MOVE, &moves) ? -errno : 0;
}

static int thread_make(void)
{
	int err = epk_self ? 0 : epk_thread_ready();

	if (!err && !epk_word.follows) {
		err = ioctl(epk_now.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) ?
		      -errno : 0;
		epk_word.follows = !err;
	}
	if (!err)
		err = records_make();
	if (!err)
		epk_word.comp_slot = epk_word.slot / EPK_SLOT_BYTES * EPK_COMP_SLOT_BYTES;
	return err;
}

/*
 * A thread's first call.  Not from a component, which somebody has told that it is: what this
 * writes to can be written over to lie in it.
 */
static int first_call(void)
{
	struct epk_aside aside;
	int err = epk_hold_nothing(&aside);

	if (!err)
		err = epk_held(NULL, 0) ? -EPERM : thread_make();
	epk_take_back(&aside);
	return err;
}

/* Why it could not be called, if that can be helped now. */
static int prepare(int id)
{
	struct epk_entry entry;
	int err;

	err = epk_lookup(id, &entry);
	if (err)
		return err;
	if (!epk_ops()->in_module || !epk_note_is_private(id))
		return epk_because(EPK_CAUSE_ENTRY);
	return epk_word.comp_slot ? 0 : first_call();
}

#define TRIES	64

/*
 * What the thread holds besides its component is put aside meanwhile.  In one function, since the
 * stack pointer has to be the same.
 */
static int call_slowly(int id, unsigned int entry, void *arg, long *result)
{
	struct epk_aside aside = { .aside = false };
	int err = prepare(id), tries;

	if (!err)
		err = epk_put_aside(&aside, 0);
	for (tries = 0; !err && tries < TRIES; tries++) {
		err = epk_gate_try(id, entry, arg, result);
		if (err != -EAGAIN)
			break;
		err = admit(id);
	}
	if (epk_take_back(&aside) && !err)
		err = -EIO;
	return err;
}

int epk_gate_call_slow(int id, unsigned int entry, void *arg, long *result)
{
	int saved_errno = errno, err = call_slowly(id, entry, arg, result);

	errno = saved_errno;
	return epk_explain("epk_gate_call", id, err);
}

/* The thread ends; what is left of it in components is others' to use. */
void epk_components_release(void)
{
	uint32_t index, high = epk_registry_high();

	for (index = 1; index < high && index < EPK_INDICES; index++) {
		int id = epk_entry_load(index).id;

		if (id <= 0 || !epk_note_is_private(id))
			continue;
		/* One that has no place cannot be looked into. */
		if (!EPK_NOTE_PKEY(epk_note(id)))
			admit(id);
		if (epk_note(id) & EPK_NOTE_IS_CONFINED)
			epk_gate_release_confined(id);
		else
			epk_gate_release(id);
	}
}
