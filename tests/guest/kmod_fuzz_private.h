/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk does with private domains and with stacks: 0 if it was done, else it
 * was refused.
 */
#ifndef KMOD_FUZZ_PRIVATE_H
#define KMOD_FUZZ_PRIVATE_H

#include "kmod_fuzz.h"

#include <sys/syscall.h>

extern const char fuzz_caught[];

/* All gates of the process, and where it goes on after a fault. */
static inline int set_gates(struct process *p)
{
	struct epk_gate gate = {
		(uintptr_t)private_gate, (uintptr_t)private_gate_end, (uintptr_t)private_gate,
	};
	struct epk_gates arg = {
		.num = 1, .gates = (uintptr_t)&gate, .fault = (uintptr_t)fuzz_fault,
		.caught = (uintptr_t)fuzz_caught,
	};

	private_alone = epk_device_is_alone(&p->dev);
	return ioctl(p->dev.fd, EPK_IOC_GATES, &arg);
}

/* A private domain that may be there, or 0, as it stands in epk_process.secrets. */
static uint64_t some_secret(struct thread *t)
{
	return __atomic_load_n(&t->process->secrets[below(&t->dice, NR_SECRETS)], __ATOMIC_RELAXED);
}

static char *page_of(struct process *p, int id)
{
	return (char *)EPK_NOTE_ADDR(p->notes[EPK_ID_INDEX(id)]);
}

/* Unmap domain memory, and have it known if it may be a private domain's. */
static int unmap(struct thread *t, char *addr, size_t len)
{
	uint32_t *shaped = &t->process->shaped;
	bool may = may_hold(t, 0);
	int ret;

	if (may)
		__atomic_fetch_add(shaped, 1, __ATOMIC_SEQ_CST);
	ret = epk_device_unmap(&t->process->dev, addr, len);
	if (may)
		__atomic_fetch_add(shaped, 1, __ATOMIC_SEQ_CST);
	return ret;
}

static void unmap_pages(struct thread *t, char *addr, size_t len)
{
	char *page;

	for (page = addr; page < addr + len; page += PAGE)
		unmap(t, page, PAGE);
}

/* A note, with which the domain becomes private mostly; then nobody holds it by a begin. */
static int op_note(struct thread *t)
{
	struct process *p = t->process;
	int id;
	char *page = owned_page(t, &id);
	uint32_t shaped = __atomic_load_n(&p->shaped, __ATOMIC_SEQ_CST);
	struct epk_note arg = { .id = id, .flags = EPK_NOTE_PRIVATE, .addr = (uintptr_t)page };
	struct epk_entry entry;

	if (one_in(&t->dice, 20))
		arg.id = some_id(t);
	if (one_in(&t->dice, 20))
		arg.addr = odd(&t->dice);
	if (one_in(&t->dice, 6))
		arg.flags = one_in(&t->dice, 4) ? odd(&t->dice) : 0;
	if (is_private(p, arg.id) && !may_hold(t, arg.id) && !is_gone(p, arg.id) &&
	    !ioctl(p->dev.fd, EPK_IOC_NOTE, &arg))
		fail("a note of a private domain that is not held", arg.id, page);
	if (ioctl(p->dev.fd, EPK_IOC_NOTE, &arg))
		return 1;
	if (!(arg.flags & EPK_NOTE_PRIVATE))
		return 0;
	entry = epk_device_entry(&p->dev, arg.id);
	if (entry.id == arg.id && (entry.pkey || entry.ept != EPK_EPT_NONE))
		fail("the table shows a private domain", arg.id, page);
	__atomic_store_n(&p->secrets[below(&t->dice, NR_SECRETS)],
			 (uint64_t)shaped << 32 | (uint32_t)arg.id, __ATOMIC_RELAXED);
	return 0;
}

/* 0 if the gate has opened it. */
static __attribute__((noinline)) int try_gate(const volatile uint64_t *note)
{
	return EPK_TRY_ONLY(if (!private_gate(note)) siglongjmp(epk_try_env, -1));
}

/* Through the gate, wherever the domain is; nothing is held so far. */
static int enter(struct thread *t, int id)
{
	struct process *p = t->process;
	struct epk_move move;
	struct epk_moves arg = {
		.num = 1, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)&move,
	};
	int tries, ret;

	for (tries = 0; tries < 4; tries++) {
		ret = try_gate(&p->notes[EPK_ID_INDEX(id)]);
		if (ret >= 0)
			return ret;
		move = (struct epk_move) { .id = id, .ept = EPK_EPT_ANY };
		change_begins(p);
		ret = ioctl(p->dev.fd, EPK_IOC_MOVE, &arg);
		change_ends(p);
		if (ret)
			return 1;
	}
	return 1;
}

/* Who does not follow has what key is open now, as long as the domain is there. */
static void holds_by_key(struct thread *t, int id)
{
	unsigned int pkey = open_keys() ? __builtin_ctz(open_keys()) / 2 : 0;

	t->holds = id;
	t->place = (struct epk_entry) {
		.id = id, .ept = t->process->dev.identity->ept, .pkey = pkey,
	};
	if (!pkey)
		leave(t);
}

static int op_enter(struct thread *t)
{
	struct process *p = t->process;
	int id = (int)(uint32_t)some_secret(t);
	unsigned int n = 1 + below(&t->dice, 6);
	char *page = page_of(p, id);

	leave(t);
	if (!id || is_gone(p, id) || enter(t, id)) {
		leave(t);
		return 1;
	}
	if (t->follows)
		note_right(t, id, PROT_READ | PROT_WRITE, true);
	else
		holds_by_key(t, id);
	recheck(t);
	while (n--) {
		touch(t, page, one_in(&t->dice, 2));
		if (t->follows && one_in(&t->dice, 3))
			begin(t, some_id(t), PROT_READ);
		page = one_in(&t->dice, 2) ? page_of(p, id) : some_page(&t->dice);
		if (one_in(&t->dice, 4))
			sched_yield();
		if (one_in(&t->dice, 30)) {
			change_begins(p);
			epk_device_free(&p->dev, 1, &id);
			change_ends(p);
		}
		recheck(t);
	}
	return 0;
}

/* What only who holds a private domain to write can do to its memory. */
static bool shapes(struct thread *t, int id, char *page)
{
	int fd = t->process->dev.fd;

	switch (below(&t->dice, 5)) {
	case 0:
		return !epk_device_unmap(&t->process->dev, page, PAGE);
	case 1:
		return !mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	case 2:
		return mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			    EPK_MMAP_DOMAIN(id)) != MAP_FAILED;
	case 3:
		return !madvise(page, PAGE, MADV_DONTNEED);
	default:
		return syscall(SYS_mremap, page, PAGE, 2 * PAGE, MREMAP_MAYMOVE) != -1;
	}
}

/*
 * Who does not hold it maps no more of it, and does nothing to the page of its note, which is
 * there if nobody has unmapped anything meanwhile who might hold a private domain.
 */
static int op_shape(struct thread *t)
{
	struct process *p = t->process;
	uint64_t secret = some_secret(t);
	int id = (int)(uint32_t)secret;
	char *page = page_of(p, id);
	bool done;

	if (may_hold(t, 0))
		leave(t);
	if (!id || !page)
		return 1;
	if (mmap(ELSEWHERE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, p->dev.fd,
		 EPK_MMAP_DOMAIN(id)) != MAP_FAILED) {
		if (!is_gone(p, id))
			fail("more of a private domain is mapped", id, page);
		epk_device_unmap(&p->dev, ELSEWHERE, PAGE);
	}
	if (__atomic_load_n(&p->shaped, __ATOMIC_SEQ_CST) != secret >> 32)
		return 1;
	done = shapes(t, id, page);
	if (done && !is_gone(p, id) && page_of(p, id) == page &&
	    __atomic_load_n(&p->shaped, __ATOMIC_SEQ_CST) == secret >> 32)
		fail("memory of a private domain changes", id, page);
	return done;
}

static void note_stack(struct stack *stack, const char *what, unsigned int page, unsigned int pages,
		       int with)
{
	unsigned int n = stack->nr_past++ % (sizeof(stack->past) / sizeof(*stack->past));

	stack->past[n].what = what;
	stack->past[n].page = page;
	stack->past[n].pages = pages;
	stack->past[n].with = with;
	stack->past[n].count = stack->count;
}

static uint64_t pagemap_of(const char *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pread(fd, &entry, sizeof(entry), (uintptr_t)page / PAGE * sizeof(entry)) < 0)
		entry = ~0ul;
	close(fd);
	return entry;
}

static void tell_stack(const struct thread *t)
{
	const unsigned int nr = sizeof(t->stack.past) / sizeof(*t->stack.past);
	unsigned int i, n;

	for (i = 0; i < nr; i++) {
		n = (t->stack.nr_past + i) % nr;
		if (t->stack.past[n].what)
			printf("thread %d of %d: %s page %u, %u pages, with %d: count was %lu\n",
			       t->number, getpid(), t->stack.past[n].what, t->stack.past[n].page,
			       t->stack.past[n].pages, t->stack.past[n].with,
			       t->stack.past[n].count);
	}
	/* The kernel's word: what came here, or to a child that shares the count. */
	for (i = 1; i < STACK_PAGES; i++)
		printf("page %u is %sthere, its pagemap %#lx\n", i, t->stack.there[i] ? "" : "not ",
		       pagemap_of(t->stack.at + i * PAGE));
}

/* Is it another count, of a mapping that was here before, or does another CPU see another? */
static void tell_count(const struct thread *t, const char *when, uint64_t count, uint64_t least,
		       uint64_t most)
{
	const volatile uint64_t *word = (void *)t->stack.at;
	int cpu = sched_getcpu();
	uint64_t again = *word;

	sched_yield();
	printf("%s, on CPU %d: %lu, at least %lu, at most %lu; again %lu, on CPU %d %lu; before, a stack at %p counted %lu\n",
	       when, cpu, count, least, most, again, sched_getcpu(), *word, t->stack.last_at,
	       t->stack.last_count);
	tell_stack(t);
}

/* What the count says has to lie between these, and nothing else is in its page. */
static void count_stack(struct thread *t, const char *when, uint64_t least, uint64_t most)
{
	const volatile uint64_t *page = (void *)t->stack.at;
	uint64_t count = page[0];
	unsigned int i;

	if (count < least || count > most) {
		tell_count(t, when, count, least, most);
		fail("pages that came to a stack", count, t->stack.at);
	}
	for (i = 1; i < PAGE / 8; i++) {
		if (page[i])
			fail("something behind the count", page[i], (void *)&page[i]);
	}
	__atomic_fetch_add(&counts->touched, count - t->stack.count, __ATOMIC_RELAXED);
	t->stack.count = count;
}

/* After anything else: none has come to it, and who looks for a fault knows what was done. */
static void recount_stack(struct thread *t, const char *after)
{
	const volatile uint64_t *word = (void *)t->stack.at;

	if (word && *word != t->stack.count)
		count_stack(t, after, t->stack.count, t->stack.count);
}

/* Touch one: it has what was written there, and is counted if it was not there. */
static void use_stack(struct thread *t, unsigned int i, bool write)
{
	struct stack *stack = &t->stack;
	volatile uint64_t *word = (void *)(stack->at + i * PAGE);
	uint64_t came = stack->count + !stack->there[i], found;

	note_stack(stack, "use", i, 1, write);
	if (write && !stack->there[i])
		stack->words[i] = *word = roll(&t->dice);
	found = *word;
	if (found != stack->words[i])
		fail("a word of a stack", found, (void *)word);
	if (write)
		stack->words[i] = *word = roll(&t->dice);
	stack->there[i] = true;
	count_stack(t, __func__, came, came);
}

/* These may have gone, and are zero then; or not. */
static void lose_stack(struct thread *t)
{
	struct stack *stack = &t->stack;
	unsigned int i;

	count_stack(t, __func__, stack->count, stack->count + STACK_PAGES - 1);
	for (i = 1; i < STACK_PAGES; i++) {
		volatile uint64_t *word = (void *)(stack->at + i * PAGE);
		uint64_t found = *word;

		if (found && found != stack->words[i])
			fail("a word of a stack that came back", found, (void *)word);
		stack->words[i] = found;
		count_stack(t, __func__, stack->count, stack->count + 1);
		stack->there[i] = true;
	}
}

/* All that its parent has; what comes to it counts. */
static __attribute__((noreturn)) void be_heir(struct thread *t)
{
	struct stack *stack = &t->stack;
	unsigned int i;

	epk_failures = 0;
	count_stack(t, __func__, stack->count, stack->count);
	for (i = 1; i < STACK_PAGES; i++) {
		volatile uint64_t *word = (void *)(stack->at + i * PAGE);

		if (*word != stack->words[i])
			fail("a word of the parent's stack", *word, (void *)word);
		count_stack(t, __func__, stack->count + !stack->there[i], stack->count + 1);
		*word = ~0ul;
		count_stack(t, __func__, stack->count, stack->count);
	}
	close(t->process->dev.fd);
	_exit(epk_failures ? 0xff : stack->count & 0x7f);
}

static int bequeath(struct thread *t)
{
	struct stack *stack = &t->stack;
	int status = -1;
	sigset_t own, old;
	pid_t pid;

	leave(t);
	sigemptyset(&own);
	sigaddset(&own, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &own, &old);
	note_stack(stack, "bequeath", 0, 0, 0);
	pid = fork();
	if (!pid)
		be_heir(t);
	if (pid > 0)
		status = status_of(pid);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return 1;
	if (status < 0 || status > 0x7f)
		fail("a child with a stack", status, stack->at);
	count_stack(t, __func__, stack->count, stack->count + STACK_PAGES - 1);
	if ((stack->count & 0x7f) != (unsigned int)status)
		fail("what came to a child's stack", stack->count, stack->at);
	recheck(t);
	return 0;
}

static int advise_stack(struct thread *t, char *from, size_t len)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_COLD, MADV_PAGEOUT, MADV_DODUMP,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_HUGEPAGE, MADV_WIPEONFORK, 24, 25,
	};
	int with = advice[below(&t->dice, sizeof(advice) / sizeof(*advice))], ret;

	note_stack(&t->stack, "advise", (from - t->stack.at) / PAGE, len / PAGE, with);
	ret = madvise(from, len, with);
	lose_stack(t);
	return ret;
}

/* It neither moves nor grows, nor is it run or shared. */
static int misuse_stack(struct thread *t, char *from, size_t len)
{
	int fd = t->process->dev.fd;

	note_stack(&t->stack, "misuse", (from - t->stack.at) / PAGE, len / PAGE, 0);
	if (syscall(SYS_mremap, from, len, len + PAGE * below(&t->dice, 3),
		    MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE) != -1)
		fail("a stack moves", len, from);
	if (!mprotect(from, len, PROT_READ | PROT_EXEC))
		fail("a stack is run", len, from);
	if (mmap(NULL, len, PROT_READ, MAP_SHARED, fd, EPK_MMAP_STACK) != MAP_FAILED)
		fail("a stack is shared", len, NULL);
	if (mmap(NULL, EPK_STACK_BYTES_MAX + PAGE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd,
		 EPK_MMAP_STACK) != MAP_FAILED)
		fail("a stack without bounds", 0, NULL);
	count_stack(t, __func__, t->stack.count, t->stack.count);
	return 0;
}

static int map_stack(struct thread *t)
{
	struct stack *stack = &t->stack;

	*stack = (struct stack){
		.last_at = stack->at, .last_count = stack->count,
		.at = mmap(NULL, STACK_PAGES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_NORESERVE, t->process->dev.fd, EPK_MMAP_STACK),
	};
	if (stack->at == MAP_FAILED)
		stack->at = NULL;
	else
		count_stack(t, __func__, 0, 0);
	return !stack->at;
}

/* Each thread's is its own: what it says is known. */
static int op_stack(struct thread *t)
{
	struct stack *stack = &t->stack;
	unsigned int i = 1 + below(&t->dice, STACK_PAGES - 1), n;
	size_t pages = 1 + below(&t->dice, STACK_PAGES - i);

	if (!stack->at)
		return map_stack(t);
	switch (below(&t->dice, 12)) {
	case 0:
		munmap(stack->at, STACK_PAGES * PAGE);
		return map_stack(t);
	case 1:
		return one_in(&t->dice, 3) ? bequeath(t) : 1;
	case 2:
		return misuse_stack(t, stack->at + i * PAGE, pages * PAGE);
	case 3:
		return advise_stack(t, stack->at + i * PAGE, pages * PAGE);
	case 4:
	case 5:
		note_stack(stack, "give back", i, pages, 0);
		if (madvise(stack->at + i * PAGE, pages * PAGE, MADV_DONTNEED))
			return 1;
		for (n = i; n < i + pages; n++) {
			stack->there[n] = false;
			stack->words[n] = 0;
		}
		count_stack(t, __func__, stack->count, stack->count);
		return 0;
	default:
		use_stack(t, i, one_in(&t->dice, 2));
		return 0;
	}
}

#endif /* KMOD_FUZZ_PRIVATE_H */
