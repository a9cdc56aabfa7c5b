// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "component.h"
#include "pkru.h"
#include "pool.h"
#include "stack.h"

struct epk_slot epk_slots[EPK_SLOTS];
__thread struct epk_thread *epk_self __attribute__((tls_model("initial-exec")));
__thread struct epk_word epk_word __attribute__((tls_model("initial-exec"))) = {
	.switches = &epk_slots[0].switches,
};

int epk_membarrier(int cmd)
{
	return syscall(SYS_membarrier, cmd, 0, 0) ? -errno : 0;
}

static pthread_key_t thread_key;
static bool have_key;
static struct epk_thread *threads;
static struct epk_pool pool = { .size = sizeof(struct epk_thread) };
static uint64_t past_switches;
/* No slot from here on was ever used. */
static unsigned int slots_used = 1;

/* Under epk_lock. */
static void unlink_thread(struct epk_thread *t)
{
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	past_switches += t->switches + t->slot->switches;
	memset(t->slot, 0, sizeof(*t->slot));
}

/*
 * Has the thread ended without thread_exit()?  It did not come to that if it began a domain in the
 * last of PTHREAD_DESTRUCTOR_ITERATIONS.
 */
bool epk_thread_is_gone(pid_t tid)
{
	int saved_errno = errno;
	bool gone = syscall(SYS_tgkill, epk_now.pid, tid, 0) && errno == ESRCH;

	errno = saved_errno;
	return gone;
}

/* Under epk_lock. */
static bool is_gone(const struct epk_thread *t)
{
	return t != epk_self && epk_thread_is_gone(t->tid);
}

/* Under epk_lock: all that are gone; of @tid there can be no other. */
static void purge(pid_t tid)
{
	struct epk_thread *t, *next;

	for (t = threads; t; t = next) {
		next = t->next;
		if (tid ? t->tid != tid : !is_gone(t))
			continue;
		unlink_thread(t);
		epk_pool_put(&pool, t);
	}
}

static struct epk_slot *find_slot(void)
{
	unsigned int i;

	for (i = 1; i < EPK_SLOTS; i++)
		if (!epk_slots[i].tid)
			break;
	if (i == EPK_SLOTS)
		return NULL;
	if (i >= slots_used)
		slots_used = i + 1;
	return &epk_slots[i];
}

/* Under epk_lock.  NULL if too many threads have one. */
static struct epk_slot *take_slot(pid_t tid)
{
	struct epk_slot *slot = find_slot();

	if (!slot) {
		purge(0);
		slot = find_slot();
	}
	if (slot)
		*slot = (struct epk_slot){ .tid = tid };
	return slot;
}

static void forget_slot(void)
{
	epk_word.follows = 0;
	epk_word.switches = &epk_slots[0].switches;
	epk_word.slot = 0;
	epk_word.component = 0;
	epk_word.comp_slot = 0;
	epk_word.confined = NULL;
}

static void thread_exit(void *arg)
{
	struct epk_thread *t = arg;
	sigset_t old;

	epk_signals_block(&old);
	if (epk_word.comp_slot) {
		epk_ops()->thread_stop(t);
		epk_now.release();
	}
	epk_self = NULL;
	forget_slot();
	if (epk_ops()->thread_stop)
		epk_ops()->thread_stop(t);
	pthread_mutex_lock(&epk_lock);
	/* With musl, which unwinds nothing, the thread may end on it, and leaves it behind. */
	if (t->stack.low && (uintptr_t)&old - (uintptr_t)t->stack.low >= EPK_STACK_BYTES)
		epk_stack_unmap(t->stack.low);
	if (t->records)
		munmap(t->records, EPK_PAGE_SIZE);
	unlink_thread(t);
	epk_pool_put(&pool, t);
	pthread_mutex_unlock(&epk_lock);
	epk_signals_restore(&old);
}

int epk_thread_setup(void)
{
	int err;

	if (have_key)
		return 0;
	err = pthread_key_create(&thread_key, thread_exit);
	have_key = !err;
	return -err;
}

/* A library that is unloaded must not leave its destructor with the threads. */
__attribute__((destructor)) static void thread_unload(void)
{
	if (have_key)
		pthread_key_delete(thread_key);
}

/* Where the thread's stack lies, if that can be found out. */
static void find_stack(struct epk_thread *t)
{
	pthread_attr_t attr;
	size_t bytes;
	void *low;

	if (pthread_getattr_np(pthread_self(), &attr))
		return;
	if (!pthread_attr_getstack(&attr, &low, &bytes)) {
		t->own_low = (uintptr_t)low;
		t->own_bytes = bytes;
		t->own_quick = epk_stack_watched() ? 0 : bytes;
	}
	pthread_attr_destroy(&attr);
}

/* Under epk_lock. */
static int start(struct epk_thread *t)
{
	const struct epk_backend *ops = epk_ops();
	int err;

	purge(t->tid);
	t->slot = take_slot(t->tid);
	if (!t->slot)
		return -ENOMEM;
	err = ops->thread_start ? ops->thread_start(t) : 0;
	if (!err)
		err = -pthread_setspecific(thread_key, t);
	if (err) {
		t->slot->tid = 0;
		return err;
	}
	t->next = threads;
	t->link = &threads;
	if (threads)
		threads->link = &t->next;
	threads = t;
	epk_word.switches = &t->slot->switches;
	epk_word.slot = (t->slot - epk_slots) * EPK_SLOT_BYTES;
	epk_self = t;
	return 0;
}

/*
 * Gets the calling thread ready for its first domain.  -EDEADLK: in a handler that interrupted a
 * call of the library, perhaps this one.
 */
int epk_thread_start(void)
{
	struct epk_thread *t;
	int err;

	/* A child of vfork(2) runs in its parent's memory. */
	if (getpid() != epk_now.pid)
		return epk_because(EPK_CAUSE_VFORK);
	err = -pthread_mutex_lock(&epk_lock);
	if (err)
		return err;
	t = epk_pool_get(&pool);
	if (t) {
		t->tid = gettid();
		err = start(t);
		if (err)
			epk_pool_put(&pool, t);
	} else {
		err = -ENOMEM;
	}
	pthread_mutex_unlock(&epk_lock);
	/* By malloc(), among other things. */
	if (!err)
		find_stack(epk_self);
	return err;
}

/*
 * For epk_last_fault(): what the module has said in registers, and the function that has faulted cannot have
 * written to.
 */
__attribute__((used)) void epk_call_noted(uint64_t ip, uint64_t addr, uint64_t what);

void epk_call_noted(uint64_t ip, uint64_t addr, uint64_t what)
{
	struct epk_thread *t = epk_self;

	if (!t)
		return;
	t->fault = (struct epk_fault) {
		.size = sizeof(t->fault),
		.addr = (void *)addr,
		.instruction = (void *)ip,
		.signal = EPK_CAUGHT_SIGNAL(what),
		.code = EPK_CAUGHT_CODE(what),
		.prot = EPK_CAUGHT_PROT(what),
	};
}

/* Under epk_lock.  A begin at the same time in another thread may be missed. */
bool epk_threads_hold(int id)
{
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		if (epk_held_find(t, id) >= 0 && !is_gone(t))
			return true;
	return false;
}

/* Under epk_lock. */
bool epk_threads_pin(unsigned int pkey)
{
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		if (__atomic_load_n(&t->slot->pins[pkey], __ATOMIC_RELAXED) && !is_gone(t))
			return true;
	return false;
}

/*
 * A gate pins a key before it sees that the key is no longer the domain's, and takes the pin back
 * at once, unless its thread is preempted or interrupted there.  So what is pinned by others may be
 * so for a moment only.  Without epk_lock; false after about 50 ms.
 */
bool epk_wait_for_pins(unsigned int tries)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	if (tries >= 60)
		return false;
	if (tries < 10)
		sched_yield();
	else
		/* Not by the C library's call, in which threads can be cancelled. */
		syscall(SYS_nanosleep, &pause, NULL);
	return true;
}

/* Under epk_lock. */
uint64_t epk_threads_switches(void)
{
	uint64_t sum = past_switches;
	const struct epk_thread *t;

	for (t = threads; t; t = t->next)
		sum += __atomic_load_n(&t->switches, __ATOMIC_RELAXED) +
		       __atomic_load_n(&t->slot->switches, __ATOMIC_RELAXED);
	return sum;
}

/* In a forked child: only the calling thread exists, and it holds nothing. */
void epk_threads_forget(void)
{
	struct epk_thread *t;

	while ((t = threads)) {
		threads = t->next;
		epk_pool_put(&pool, t);
	}
	past_switches = 0;
	epk_self = NULL;
	forget_slot();
	/* A gate that was interrupted goes on with its own. */
	memset(epk_slots, 0, slots_used * sizeof(*epk_slots));
	pthread_setspecific(thread_key, NULL);
}
