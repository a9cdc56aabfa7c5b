// SPDX-License-Identifier: MIT
/*
 * Calls: what the caller holds is put aside, so that what is called holds its one domain alone, and
 * is held again by who returns with the caller's stack pointer; through signals, moves,
 * evictions, and other calls; and nobody gains by a return that is none.
 */
#include "call_test.h"

#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

#include "forge.h"

/* Stack pointers: nothing is kept there. */
static char stacks[80][16384] __attribute__((aligned(64)));

static void *sp(int n)
{
	return stacks[n] + sizeof(stacks[n]) - 256;
}

static int x, y, z;		/* two apart, and one to be called */

static void hold_two(void)
{
	int *two;

	end_all();
	/* So that not all are without a place. */
	CHECK_EQ(begin(ids[0]), 0);
	CHECK_EQ(end(ids[0]), 0);
	two = apart();
	x = two[0];
	y = two[1];
	for (z = 0; z == x || z == y; z++)
		;
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), 0);
}

/* What hold_two() began, and nothing else. */
static void holds_two(int line)
{
	list(ids[x], PROT_READ | PROT_WRITE, ids[y], PROT_READ);
	epk_check(reaches(x) && reaches(y) && !reaches(z), __FILE__, line, "reaches the two", "");
	CHECK_EQ(begin(ids[x]), -EALREADY);
	CHECK_EQ(begin_prot(ids[y], PROT_READ), -EALREADY);
}

static void holds_z(int line)
{
	list(ids[z], PROT_READ | PROT_WRITE, 0, 0);
	epk_check(reaches(z) && !reaches(x) && !reaches(y), __FILE__, line, "reaches the one", "");
}

static void end_two(void)
{
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(end(ids[y]), 0);
	holds_nothing(__LINE__);
}

/* What fails has changed nothing. */
static void answers(void)
{
	uint32_t pkru, ept;

	hold_two();
	pkru = epk_rdpkru(), ept = dev.identity->ept;
	CHECK_EQ(call(sp(0), 0), -ENOENT);
	CHECK_EQ(call(sp(0), -1), -ENOENT);
	CHECK_EQ(call(sp(0), ids[z] + (1 << EPK_ID_INDEX_BITS)), -ENOENT);
	CHECK_EQ(call_prot(sp(0), ids[z], 0), -EINVAL);
	CHECK_EQ(call_prot(sp(0), ids[z], PROT_EXEC), -EINVAL);
	CHECK_EQ(ioctl_at(sp(0), EPK_IOC_RETURN, 2), -EACCES);
	/* There is no call to be left. */
	CHECK_EQ(ioctl_at(sp(0), EPK_IOC_RETURN, EPK_RETURN_NOTHING), -EACCES);
	CHECK_EQ(epk_rdpkru(), pkru);
	CHECK_EQ(dev.identity->ept, ept);
	holds_two(__LINE__);
	/* None of them counts as a call. */
	CHECK_EQ(call_return(sp(0)), -EACCES);
	holds_nothing(__LINE__);
	CHECK_EQ(dev.identity->ept, 0);
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
}

/* Nothing is held, whatever was; what the call does counts for nothing afterwards. */
static void calls_nothing(void)
{
	uint32_t pkru, ept;

	hold_two();
	pkru = epk_rdpkru(), ept = dev.identity->ept;
	CHECK_EQ(ioctl_at(sp(0), EPK_IOC_CALL, 0), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(dev.identity->ept, ept);
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
	CHECK_EQ(begin(ids[z]), 0);
	CHECK_EQ(ioctl_at(sp(1), EPK_IOC_CALL, 0), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(sp(1)), 0);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), 0);
	if (!epk_device_is_alone(&dev)) {
		CHECK_EQ(epk_rdpkru(), pkru);
		CHECK_EQ(dev.identity->ept, ept);
	}
	holds_two(__LINE__);
	end_two();
}

/* By a jump: the last call alone is gone. */
static void is_left(void)
{
	int i;

	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(call(sp(1), ids[x]), 0);
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(ioctl_at(sp(3), EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
	holds_nothing(__LINE__);
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	/* More often than there is room for. */
	for (i = 0; i < 3 * EPK_CALLS_MAX; i++) {
		CHECK_EQ(call(sp(i % 70), ids[z]), 0);
		CHECK_EQ(ioctl_at(sp(0), EPK_IOC_RETURN, EPK_RETURN_NOTHING), 0);
		holds_nothing(__LINE__);
		CHECK_EQ(begin(ids[x]), 0);
	}
	CHECK_EQ(ioctl_at(sp(0), EPK_IOC_RETURN, EPK_RETURN_NOTHING), -EACCES);
	CHECK_EQ(end(ids[x]), 0);
	holds_nothing(__LINE__);
}

static void returns(void)
{
	uint32_t pkru, ept;

	hold_two();
	pkru = epk_rdpkru(), ept = dev.identity->ept;
	CHECK_EQ(call(sp(0), ids[z]), 0);
	/* With nothing in the record no key has its held bit. */
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_ALLOW(epk_device_entry(&dev, ids[z]).pkey));
	CHECK_EQ(dev.identity->ept, epk_device_entry(&dev, ids[z]).ept);
	holds_z(__LINE__);
	CHECK_EQ(end(ids[x]), -EACCES);
	CHECK_EQ(call_return(sp(0)), 0);
	/* The call may have made another go that had a place. */
	if (!epk_device_is_alone(&dev)) {
		CHECK_EQ(epk_rdpkru(), pkru);
		CHECK_EQ(dev.identity->ept, ept);
	}
	holds_two(__LINE__);
	/* What the caller holds itself, to read only; and what is called begins more. */
	CHECK_EQ(call_prot(sp(0), ids[x], PROT_READ), 0);
	list(ids[x], PROT_READ, 0, 0);
	CHECK_EQ(begin(ids[z]), 0);
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(end(ids[x]), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	end_two();
	/* Nothing is put aside, and is nothing afterwards. */
	CHECK_EQ(call(sp(0), ids[z]), 0);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_nothing(__LINE__);
}

/* A touch that is refused: the handler is left by a jump, and what it interrupted stays below. */
static void refused(void)
{
	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(touch(pages[z], 1), 0);
	CHECK_EQ(touch(pages[x], 0), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	holds_nothing(__LINE__);
	CHECK_EQ(touch(pages[z], 0), SIGSEGV);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	end_two();
}

static void by_stack_pointer(void)
{
	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(call(sp(1), ids[y]), 0);
	CHECK_EQ(call(sp(2), ids[x]), 0);
	/* Out of both: what they have put aside is forgotten. */
	CHECK_EQ(call_return(sp(1)), 0);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(2)), -EACCES);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);
	holds_nothing(__LINE__);

	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(call(sp(1), ids[y]), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	CHECK_EQ(call_return(sp(1)), -EACCES);
	holds_nothing(__LINE__);

	/* A byte beside it is another. */
	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(call_return(sp(0) + 8), -EACCES);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);
	holds_nothing(__LINE__);
}

/* Where a call was left by a jump, another is made: then the first is none. */
static void again(void)
{
	int i;

	hold_two();
	CHECK_EQ(call(sp(0), ids[x]), 0);
	CHECK_EQ(call(sp(1), ids[z]), 0);
	CHECK_EQ(call(sp(0), ids[y]), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);
	holds_nothing(__LINE__);
	/* However often. */
	for (i = 0; i < 3 * EPK_CALLS_MAX; i++)
		CHECK_EQ(call(sp(0), ids[i % 2 ? x : z]), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	list(ids[z], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call_return(sp(0)), -EACCES);
}

static volatile int depth;

static void nest_signals(int sig)
{
	if (--depth)
		raise(sig);
}

/* As many as may be, with as many signals as before inside of them. */
static void many(void)
{
	struct sigaction action = { .sa_handler = nest_signals, .sa_flags = SA_NODEFER };
	int i;

	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	hold_two();
	for (i = 0; i < EPK_CALLS_MAX; i++)
		CHECK_EQ(call(sp(i), ids[i % 2 ? y : z]), 0);
	list(ids[y], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call(sp(EPK_CALLS_MAX), ids[x]), -EMFILE);
	list(ids[y], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call_return(sp(EPK_CALLS_MAX)), -EACCES);

	hold_two();
	for (i = 0; i < EPK_CALLS_MAX; i++)
		CHECK_EQ(call(sp(i), ids[i % 2 ? y : z]), 0);
	depth = 16;
	raise(SIGUSR1);
	list(ids[y], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call(sp(EPK_CALLS_MAX), ids[x]), -EMFILE);
	for (i = EPK_CALLS_MAX - 1; i > 0; i--) {
		CHECK_EQ(call_return(sp(i)), 0);
		list(ids[i % 2 ? z : y], PROT_READ | PROT_WRITE, 0, 0);
	}
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	end_two();
}

/* Calls that have put much aside: the last one still leaves room for all that may be held. */
static void much(void)
{
	int more[EPK_HELD_MAX], i, k, calls = 0, ret = 0;
	struct epk_domains arg = {
		.num = EPK_HELD_MAX, .flags = EPK_ALLOC_SPILL, .ids = (uintptr_t)more,
	};

	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	while (calls < EPK_CALLS_MAX) {
		for (i = 0; i < EPK_HELD_MAX; i++) {
			k = begin(more[i]);
			if (k != -EALREADY)
				REQUIRE(k == 0);
		}
		ret = call(sp(calls), more[calls]);
		if (ret)
			break;
		calls++;
	}
	CHECK_EQ(ret, -EMFILE);
	CHECK(calls > 2 && calls < 7);
	printf("%d calls that hold %d domains each\n", calls, EPK_HELD_MAX);
	/* Not one is lost. */
	while (calls >= 0) {
		for (i = 0; i < EPK_HELD_MAX; i++)
			CHECK_EQ(begin(more[i]), -EALREADY);
		if (calls--)
			CHECK_EQ(call_return(sp(calls)), 0);
	}
	for (i = 0; i < EPK_HELD_MAX; i++)
		CHECK_EQ(end(more[i]), 0);
	holds_nothing(__LINE__);
	CHECK_EQ(epk_device_free(&dev, EPK_HELD_MAX, more), 0);
}

static void (*volatile in_handler)(ucontext_t *uc);
static volatile int handled;

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	handled++;
	holds_nothing(__LINE__);
	in_handler(context);
}

/* In code that was called by who holds the two. */
static void interrupt(void (*inside)(ucontext_t *uc))
{
	int before = handled;

	in_handler = inside;
	raise(SIGUSR1);
	CHECK_EQ(handled, before + 1);
}

static void nothing(ucontext_t *uc)
{
	(void)uc;
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
}

static void calls(ucontext_t *uc)
{
	(void)uc;
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(call(sp(5), ids[x]), 0);
	list(ids[x], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(call_return(sp(5)), 0);
	list(ids[y], PROT_READ | PROT_WRITE, 0, 0);
}

static void calls_only(ucontext_t *uc)
{
	(void)uc;
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(call(sp(5), ids[x]), 0);
}

/* The numbers by which a signal's return is known are no call's. */
static void returns_from_signal(ucontext_t *uc)
{
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(call_return((void *)uc->uc_mcontext.gregs[REG_RSP]), -EACCES);
	holds_nothing(__LINE__);
}

static void returns_from_frame(ucontext_t *uc)
{
	/* The return address lies before what the kernel calls the frame from then on. */
	CHECK_EQ(call_return((char *)uc - 8), -EACCES);
	holds_nothing(__LINE__);
}

/* Out of the handler to who called what it interrupts. */
static void returns_to_caller(ucontext_t *uc)
{
	(void)uc;
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
}

static void signals(void)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	interrupt(nothing);
	holds_z(__LINE__);
	interrupt(calls);
	holds_z(__LINE__);
	/* A call in a handler that has returned is none. */
	interrupt(calls_only);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	CHECK_EQ(call(sp(0), ids[z]), 0);
	interrupt(calls_only);
	CHECK_EQ(call_return(sp(5)), -EACCES);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);

	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	interrupt(returns_from_signal);
	holds_nothing(__LINE__);
	CHECK(!reaches(x) && !reaches(y) && !reaches(z));
	hold_two();
	interrupt(returns_from_frame);
	holds_nothing(__LINE__);
	/* Then the handler's own return is one from nowhere. */
	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	interrupt(returns_to_caller);
	holds_nothing(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);
}

/* A frame where a call was made, that goes on there. */
static sigjmp_buf forged_env;
static ucontext_t forged_frame;

static void forged_arrival(void)
{
	siglongjmp(forged_env, 1);
}

static void forges(ucontext_t *uc)
{
	forged_frame = *uc;
	forged_frame.uc_mcontext.gregs[REG_RIP] = (greg_t)forged_arrival;
	*frame_pkru(&forged_frame) = 0;
	memset(&forged_frame.uc_sigmask, 0xff, 8);
}

static void no_sigreturn(void)
{
	int where[] = { 0, -8 };
	volatile unsigned int i, at;

	for (i = 0; i < 2; i++) {
		for (at = 0; at < 2; at++) {
			char *from = (char *)&forged_frame + where[i];

			hold_two();
			interrupt(forges);
			CHECK_EQ(call(from, ids[z]), 0);
			forged_frame.uc_mcontext.gregs[REG_RSP] = at ? (greg_t)from :
								  (greg_t)sp(3);
			if (!sigsetjmp(forged_env, 1))
				forge_by_syscall(&forged_frame, SYS_rt_sigreturn);
			holds_nothing(__LINE__);
			CHECK(!reaches(x) && !reaches(y) && !reaches(z));
			CHECK_EQ(call_return(from), -EACCES);
		}
	}
}

/* What was put aside moves, and is evicted; it is held wherever it is. */
static void moved(void)
{
	int i;

	for (i = 0; i < 4; i++) {
		hold_two();
		CHECK_EQ(call(sp(0), ids[z]), 0);
		if (i & 1)
			CHECK_EQ(epk_device_move(&dev, ids[x], EPK_EPT_NONE), 0);
		else if (!epk_device_is_alone(&dev))
			CHECK_EQ(epk_device_move(&dev, ids[x], FAR_EPT), 0);
		if (i & 2)
			CHECK_EQ(epk_device_move(&dev, ids[y], EPK_EPT_NONE), 0);
		holds_z(__LINE__);
		/* And what is called. */
		CHECK_EQ(epk_device_move(&dev, ids[z], EPK_EPT_NONE), 0);
		holds_z(__LINE__);
		CHECK_EQ(call_return(sp(0)), 0);
		holds_two(__LINE__);
		CHECK_EQ(touch(pages[x], 1), 0);
		CHECK_EQ(touch(pages[y], 0), 0);
		CHECK_EQ(touch(pages[y], 1), SIGSEGV);
		end_all();
	}
}

/* Another comes to the place of what was put aside. */
static void replaced(void)
{
	struct epk_entry place;
	struct epk_move list_of[2];
	int other;

	hold_two();
	CHECK_EQ(touch(pages[x], 0), 0);
	place = epk_device_entry(&dev, ids[x]);
	for (other = 0; other == x || other == y || other == z; other++)
		;
	CHECK_EQ(call(sp(0), ids[z]), 0);
	list_of[0] = (struct epk_move) { .id = ids[x], .ept = EPK_EPT_NONE };
	list_of[1] = (struct epk_move) { .id = ids[other], .ept = place.ept, .pkey = place.pkey };
	if (epk_device_entry(&dev, ids[x]).pkey)
		CHECK_EQ(epk_device_moves(&dev, 2, list_of), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	CHECK(!reaches(other));
	end_two();
}

/* Freed, and its place and in the end its ID are another's. */
static void freed(void)
{
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	struct epk_grant held[2];
	struct epk_grants held_list = { .num = 2, .list = (uintptr_t)held };
	struct epk_entry place;
	uint64_t *page;
	int id, next;

	hold_two();
	end_two();
	arg.ids = (uintptr_t)&id;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	CHECK_EQ(begin(id), 0);
	place = epk_device_entry(&dev, id);
	CHECK_EQ(begin(ids[y]), 0);
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	arg.flags = EPK_ALLOC_AT(place.ept);
	arg.ids = (uintptr_t)&next;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	page = epk_device_map(&dev, next, PAGE);
	REQUIRE(page != MAP_FAILED);
	CHECK_EQ(epk_device_populate(&dev, page, PAGE), 0);
	CHECK_EQ(call_return(sp(0)), 0);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &held_list), 0);
	CHECK_EQ(held_list.num, 1);
	CHECK_EQ(held[0].id, ids[y]);
	CHECK_EQ(touch(page, 0), SIGSEGV);
	end_all();
	epk_device_unmap(&dev, page, PAGE);
	CHECK_EQ(epk_device_free(&dev, 1, &next), 0);
}

/* The domain that is called has no place, or is gone. */
static void called_domain(void)
{
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	int id;

	hold_two();
	CHECK_EQ(epk_device_move(&dev, ids[z], EPK_EPT_NONE), 0);
	CHECK_EQ(call(sp(0), ids[z]), 0);
	CHECK(epk_device_entry(&dev, ids[z]).pkey);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	arg.ids = (uintptr_t)&id;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	CHECK_EQ(call(sp(0), id), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	list(id, 0, ids[x], 0);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	CHECK_EQ(call(sp(0), id), -ENOENT);
	holds_two(__LINE__);
	end_two();
}

/* A thread that is not registered, and one that holds nothing of another thread's. */
static void *newborn(void *unused)
{
	CHECK_EQ(call_return(sp(0)), -EACCES);
	CHECK_EQ(epk_rdpkru() & EPK_PKRU_DENY_ALL * 3, EPK_PKRU_DENY_ALL * 3);
	CHECK_EQ(call(sp(1), ids[z]), 0);
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), -EACCES);
	holds_nothing(__LINE__);
	CHECK_EQ(call(sp(1), ids[z]), 0);
	CHECK_EQ(call_return(sp(1)), 0);
	holds_nothing(__LINE__);
	/* It ends in a call. */
	CHECK_EQ(call(sp(1), ids[z]), 0);
	return unused;
}

static void threads(void)
{
	pthread_t thread;

	hold_two();
	CHECK_EQ(call(sp(0), ids[z]), 0);
	REQUIRE(!pthread_create(&thread, NULL, newborn, NULL));
	pthread_join(thread, NULL);
	sched_yield();
	holds_z(__LINE__);
	CHECK_EQ(call_return(sp(0)), 0);
	holds_two(__LINE__);
	end_two();
}

/* Others move all that is held and called, over and over. */
static volatile bool stop;

static void *mover(void *unused)
{
	unsigned int i;

	for (i = 0; !stop; i++) {
		epk_device_move(&dev, ids[i % 2 ? x : z], EPK_EPT_NONE);
		if (i % 3 == 0)
			epk_device_move(&dev, ids[x], EPK_EPT_ANY);
		if (i % 5 == 0)
			sched_yield();
	}
	return unused;
}

static void race(void)
{
	struct timespec since;
	pthread_t thread;
	int i;

	hold_two();
	stop = false;
	clock_gettime(CLOCK_MONOTONIC, &since);
	REQUIRE(!pthread_create(&thread, NULL, mover, NULL));
	for (i = 0; race_goes_on(i, 1500, &since); i++) {
		pages[x][0] = i;
		REQUIRE(call(sp(0), ids[z]) == 0);
		pages[z][0] = i;
		if (i % 64 == 0)
			holds_z(__LINE__);
		if (i % 16 == 0)
			sched_yield();
		REQUIRE(pages[z][0] == (uint64_t)i);
		REQUIRE(call_return(sp(0)) == 0);
		REQUIRE(pages[x][0] == (uint64_t)i);
	}
	stop = true;
	pthread_join(thread, NULL);
	holds_two(__LINE__);
	end_two();
}

int main(void)
{
	make_domains();
	REQUIRE(follow() == 0);
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	RUN(answers());
	RUN(calls_nothing());
	RUN(is_left());
	RUN(returns());
	RUN(refused());
	RUN(by_stack_pointer());
	RUN(again());
	RUN(many());
	RUN(much());
	RUN(signals());
	RUN(no_sigreturn());
	RUN(moved());
	RUN(replaced());
	RUN(freed());
	RUN(called_domain());
	RUN(threads());
	RUN(race());
	return epk_test_result();
}
