// SPDX-License-Identifier: MIT
/*
 * SIGSEGV: an access to a domain that the thread holds, but that lies in another
 * EPT than the thread is in, is no error.  The backend sees to it that the
 * access works; what it does not know is the program's own affair.
 *
 * The program's handler is kept and called, whether it was installed before
 * this one or after: epk_fault_arm() puts this one in front again.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "backend.h"
#include "fault.h"

/* Handlers that were found in front of this one, the last first. */
#define NR_OTHERS	4

static struct sigaction others[NR_OTHERS];
static unsigned int nr_others;
static uint32_t pkru_offset;

/* How many handlers have passed the current fault on to this one. */
static __thread unsigned int level __attribute__((tls_model("initial-exec")));

#define PF_WRITE	2u
#define PF_PKEY		32u
#define XFEATURE_PKRU	(1ull << 9)
/* Where most kernels and CPUs have it, for the emulators that do not say. */
#define PKRU_OFFSET	2688

/* Intel SDM volume 1, 13.4.2: XSTATE_BV follows the 512 bytes of FXSAVE. */
static uint32_t *frame_pkru(ucontext_t *uc)
{
	char *area = (char *)uc->uc_mcontext.fpregs;
	const struct _fpx_sw_bytes *known;
	uint64_t *xstate_bv;
	uint32_t *pkru;

	if (!area)
		return NULL;
	known = (const void *)(area + 464);
	if (known->magic1 != FP_XSTATE_MAGIC1 || !(known->xstate_bv & XFEATURE_PKRU) ||
	    known->xstate_size < pkru_offset + sizeof(*pkru))
		return NULL;
	xstate_bv = (uint64_t *)(area + 512);
	pkru = (uint32_t *)(area + pkru_offset);
	if (!(*xstate_bv & XFEATURE_PKRU)) {
		/* In its initial state, which is not stored. */
		*pkru = 0;
		*xstate_bv |= XFEATURE_PKRU;
	}
	return pkru;
}

/* FNV-1a, by words. */
static uint64_t hash(const greg_t *gregs)
{
	uint64_t sum = 0xcbf29ce484222325;
	int i;

	for (i = REG_R8; i <= REG_RIP; i++)
		sum = (sum ^ (uint64_t)gregs[i]) * 0x100000001b3;
	return sum;
}

static int domain_at(uintptr_t addr)
{
	int busy = pthread_mutex_lock(&epk_lock);
	int id = epk_mapping_at(addr);

	if (!busy)
		pthread_mutex_unlock(&epk_lock);
	return id;
}

int epk_handle_fault(int signo, siginfo_t *info, void *context)
{
	const struct epk_backend *ops = epk_ops();
	struct epk_thread *t = epk_self;
	ucontext_t *uc = context;
	struct epk_fault fault;
	int id, done;

	if (signo != SIGSEGV || !info || !uc || !t || !ops || !ops->fault)
		return 0;
	/* A closed key, or no page at all: an evicted domain. */
	if (info->si_code != SEGV_PKUERR && info->si_code != SEGV_MAPERR)
		return 0;
	fault.addr = (uintptr_t)info->si_addr;
	fault.rip = uc->uc_mcontext.gregs[REG_RIP];
	fault.write = uc->uc_mcontext.gregs[REG_ERR] & PF_WRITE;
	fault.state = hash(uc->uc_mcontext.gregs);
	fault.pkru = frame_pkru(uc);
	id = domain_at(fault.addr);
	/* What a thread holds by its word alone is never out of reach. */
	if (!id || !fault.pkru || t->word->held != EPK_WORD_LIST)
		return 0;
	t->busy++;
	done = ops->fault(t, id, &fault);
	t->busy--;
	return done;
}

/*
 * As if there was no handler.  An access happens again, and ends the process as it
 * should.  A signal that somebody sent has to be sent again, if it was not ignored.
 */
static void act_by_default(int signo, const siginfo_t *info, bool ignored)
{
	bool sent = info->si_code <= 0;

	if (sent && ignored)
		return;
	signal(signo, SIG_DFL);
	if (sent)
		raise(signo);
}

static void call_other(const struct sigaction *other, int signo, siginfo_t *info, void *context)
{
	sigset_t old;

	if (!(other->sa_flags & SA_SIGINFO) &&
	    (other->sa_handler == SIG_DFL || other->sa_handler == SIG_IGN)) {
		act_by_default(signo, info, other->sa_handler == SIG_IGN);
		return;
	}
	pthread_sigmask(SIG_BLOCK, &other->sa_mask, &old);
	if (other->sa_flags & SA_SIGINFO)
		other->sa_sigaction(signo, info, context);
	else
		other->sa_handler(signo);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/*
 * A handler that was installed later and calls the one before it calls this one
 * a second time: go on with the one before that.  The kernel's own calls are
 * known by the signal frame, which then begins right above the return address.
 */
static __attribute__((noinline, optimize("no-omit-frame-pointer")))
void on_fault(int signo, siginfo_t *info, void *context)
{
	bool first = (char *)context == (char *)__builtin_frame_address(0) + 16;
	int saved_errno = errno;
	unsigned int nr;

	level = first ? 0 : level + 1;
	if (!first || !epk_handle_fault(signo, info, context)) {
		nr = __atomic_load_n(&nr_others, __ATOMIC_ACQUIRE);
		errno = saved_errno;
		if (level < nr)
			call_other(&others[nr - 1 - level], signo, info, context);
		else
			act_by_default(signo, info, false);
	}
	errno = saved_errno;
}

/* Puts on_fault() in front, and notes what was there.  Under epk_lock. */
static int install(void)
{
	struct sigaction action = { .sa_sigaction = on_fault }, now;

	if (sigaction(SIGSEGV, NULL, &now))
		return -errno;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault)
		return 0;
	/* One that comes and goes takes its own old place. */
	if (nr_others == NR_OTHERS) {
		memmove(&others[1], &others[2], (NR_OTHERS - 2) * sizeof(now));
		__atomic_store_n(&nr_others, NR_OTHERS - 1, __ATOMIC_RELEASE);
	}
	others[nr_others] = now;
	__atomic_store_n(&nr_others, nr_others + 1, __ATOMIC_RELEASE);
	/* On the alternate stack if the thread has one; a handler may fault itself. */
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGSEGV, &action, NULL) ? -errno : 0;
}

/* Under epk_lock. */
int epk_fault_setup(void)
{
	unsigned int eax, ebx, ecx, edx;

	pkru_offset = PKRU_OFFSET;
	if (__get_cpuid_count(0xd, 9, &eax, &ebx, &ecx, &edx) && ebx)
		pkru_offset = ebx;
	return install();
}

/* A thread begins to hold domains of several EPTs: it needs the handler. */
void epk_fault_arm(void)
{
	sigset_t old;
	int busy;

	if (!epk_now.handle_faults)
		return;
	epk_signals_block(&old);
	busy = pthread_mutex_lock(&epk_lock);
	/* Whom this thread's handler interrupted with the lock is not in here. */
	install();
	if (!busy)
		pthread_mutex_unlock(&epk_lock);
	epk_signals_restore(&old);
}
