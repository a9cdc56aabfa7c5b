// SPDX-License-Identifier: MIT
/*
 * Domains that move, give up their place and get one again: what they hold
 * stays, what a thread held at the old place is worth nothing, and no thread
 * ever sees one domain's page through another's place.
 */
#include "epk_test.h"

#include <pthread.h>

#include "raw/epk_raw.h"

#define PAGES	8

static struct epk_device dev;
static int raw;

static volatile uint32_t *make(int *id, uint32_t value)
{
	volatile uint32_t *p;
	int i;

	REQUIRE(epk_device_alloc(&dev, 1, id) == 0);
	p = epk_device_map(&dev, *id, PAGES * 4096);
	REQUIRE(p != MAP_FAILED);
	epk_device_enter(&dev, *id);
	for (i = 0; i < PAGES; i++)
		p[i * 1024] = value + i;
	epk_device_enter(&dev, 0);
	return p;
}

static void unmake(int id, volatile uint32_t *p)
{
	CHECK_EQ(epk_device_unmap(&dev, p, PAGES * 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

static void check_holds(int id, volatile uint32_t *p, uint32_t value)
{
	volatile uint32_t got;
	volatile int i;

	epk_device_enter(&dev, id);
	for (i = 0; i < PAGES; i++) {
		got = 0;
		CHECK_EQ(EPK_TRY(got = p[i * 1024]), 0);
		CHECK_EQ(got, value + i);
	}
	epk_device_enter(&dev, 0);
}

/* To another EPT, to another key, to where it is. */
static void moves(void)
{
	struct epk_move move;
	volatile uint32_t *p;
	int id;

	p = make(&id, 100);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 0);
	move = (struct epk_move) { .id = id, .ept = 5, .pkey = 9 };
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 5);
	CHECK_EQ(epk_device_entry(&dev, id).pkey, 9);
	check_holds(id, p, 100);

	/* The right key in the wrong EPT, and the other way round. */
	epk_wrpkru(EPK_PKRU_ALLOW(9));
	CHECK_EQ(EPK_TRY((void)*p), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	epk_wrpkru(EPK_PKRU_ALLOW(1));
	epk_vmfunc(5);
	CHECK_EQ(EPK_TRY((void)*p), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	epk_device_enter(&dev, 0);

	move.pkey = 0;
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	CHECK_EQ(move.pkey, 9);
	move.ept = EPK_EPT_ANY, move.pkey = 0;
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	CHECK_EQ(move.ept, 5);
	move = (struct epk_move) { .id = id, .ept = 5, .pkey = 3 };
	CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
	CHECK_EQ(epk_device_entry(&dev, id).pkey, 3);
	check_holds(id, p, 100);
	unmake(id, p);
}

/*
 * Pages with holes between them: of pages in one page table, and of whole tables of each level.
 * Unaligned, so that PTEs map all of them, or by 2 MiB.
 */
static const unsigned long apart[] = {
	0, 2 * 4096, 511 * 4096, 3ul << 20, (1ul << 30) + 4096, (1ul << 30) + 3 * 4096,
	(5ul << 30) + (6ul << 20), (513ul << 30) + 4096,
};
#define APART		(sizeof(apart) / sizeof(*apart))
#define APART_AT	((char *)(16ul << 40))
#define APART_BYTES	(514ul << 30)

static void check_apart(const char *p, struct epk_entry at, bool holds)
{
	volatile uint32_t got;
	volatile unsigned int i;
	int sig;

	epk_wrpkru(EPK_PKRU_DENY_ALL);
	epk_vmfunc(at.ept);
	epk_wrpkru(EPK_PKRU_ALLOW(at.pkey));
	for (i = 0; i < APART; i++) {
		got = 0;
		sig = EPK_TRY(got = *(const volatile uint32_t *)(p + apart[i]));
		CHECK_EQ(sig, holds ? 0 : SIGSEGV);
		CHECK_EQ(got, holds ? i + 1 : 0);
	}
	epk_device_enter(&dev, 0);
}

static void far_apart(unsigned long unaligned)
{
	static const struct epk_move ways[] = {
		{ .ept = 6, .pkey = 9 }, { .ept = 6, .pkey = 10 }, { .ept = 7, .pkey = 10 },
		{ .ept = 8, .pkey = 11 },
	};
	unsigned int i;
	char *p;
	int id;

	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	p = mmap(APART_AT + unaligned, APART_BYTES, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED_NOREPLACE, dev.fd, EPK_MMAP_DOMAIN(id));
	REQUIRE(p == APART_AT + unaligned);
	epk_device_enter(&dev, id);
	for (i = 0; i < APART; i++)
		*(volatile uint32_t *)(p + apart[i]) = i + 1;
	epk_device_enter(&dev, 0);
	for (i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		struct epk_entry was = epk_device_entry(&dev, id);
		struct epk_move move = ways[i];

		move.id = id;
		CHECK_EQ(epk_device_moves(&dev, 1, &move), 0);
		check_apart(p, was, false);
		check_apart(p, epk_device_entry(&dev, id), true);
	}
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_move(&dev, id, 5), 0);
	check_apart(p, epk_device_entry(&dev, id), true);
	CHECK_EQ(epk_device_unmap(&dev, p, APART_BYTES), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

/* Nothing is reachable of an evicted domain, and nothing is lost. */
static void evict(void)
{
	struct epk_stats before = epk_device_stats(&dev), now;
	volatile uint32_t *p, *q;
	int id;

	p = make(&id, 200);
	CHECK_EQ(epk_device_unmap(&dev, (p + 2 * 1024), 4096), 0);
	CHECK_EQ(mprotect((void *)(p + 4 * 1024), 4096, PROT_READ), 0);
	epk_device_enter(&dev, id);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, EPK_EPT_NONE);
	CHECK_EQ(epk_device_entry(&dev, id).pkey, 0);
	CHECK_EQ(epk_device_entry(&dev, id).id, id);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	now = epk_device_stats(&dev);
	CHECK_EQ(now.evicted, before.evicted + 1);
	CHECK_EQ(now.pages, before.pages + PAGES - 1);
	CHECK_EQ(now.epts, before.epts);

	CHECK_EQ(EPK_TRY((void)*p), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	epk_wrpkru(0);
	CHECK_EQ(EPK_TRY(p[1024] = 1), SIGSEGV);
	CHECK_EQ(epk_try_code, SEGV_PKUERR);
	/* Mapping more of it works all the same. */
	q = epk_device_map(&dev, id, 2 * 4096);
	REQUIRE(q != MAP_FAILED);
	CHECK_EQ(EPK_TRY((void)*q), SIGSEGV);

	CHECK_EQ(epk_device_move(&dev, id, 7), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 7);
	epk_device_enter(&dev, id);
	CHECK_EQ(p[0], 200);
	CHECK_EQ(p[7 * 1024], 207);
	CHECK_EQ(p[4 * 1024], 204);
	CHECK_EQ(EPK_TRY(p[4 * 1024] = 1), SIGSEGV);
	CHECK_EQ(EPK_TRY((void)p[2 * 1024]), SIGSEGV);
	CHECK_EQ(*q, 0);
	*q = 1;
	epk_device_enter(&dev, 0);

	/* Freed without a place. */
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_unmap(&dev, q, 2 * 4096), 0);
	unmake(id, p);
	now = epk_device_stats(&dev);
	CHECK_EQ(now.evicted, before.evicted);
	CHECK_EQ(now.pages, before.pages);
	CHECK_EQ(now.domains, before.domains);
}

/* A full EPT, a taken key, an exchange, and a batch that fails at its end. */
static void batches(void)
{
	struct epk_move list[3];
	int ids[30], id;
	volatile uint32_t *a, *b;
	struct epk_entry was;

	REQUIRE(epk_device_alloc(&dev, 30, ids) == 0);
	CHECK_EQ(epk_device_entry(&dev, ids[14]).ept, 0);
	CHECK_EQ(epk_device_entry(&dev, ids[15]).ept, 1);
	CHECK_EQ(epk_device_move(&dev, ids[0], 1), -ENOSPC);
	was = epk_device_entry(&dev, ids[15]);
	list[0] = (struct epk_move) { .id = ids[0], .ept = 1, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 1, list), -ENOSPC);

	/* Eviction makes room in the same call; the order of the list counts. */
	list[0] = (struct epk_move) { .id = ids[15], .ept = EPK_EPT_NONE };
	list[1] = (struct epk_move) { .id = ids[0], .ept = 1 };
	list[2] = (struct epk_move) { .id = ids[1], .ept = 1 };
	CHECK_EQ(epk_device_moves(&dev, 3, list), -ENOSPC);
	CHECK_EQ(epk_device_entry(&dev, ids[15]).pkey, was.pkey);
	CHECK_EQ(epk_device_entry(&dev, ids[0]).ept, 0);
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
	CHECK_EQ(list[0].ept, EPK_EPT_NONE);
	CHECK_EQ(list[1].pkey, was.pkey);
	CHECK_EQ(epk_device_entry(&dev, ids[0]).ept, 1);
	list[0] = (struct epk_move) { .id = ids[15], .ept = 2, .pkey = 4 };
	CHECK_EQ(epk_device_moves(&dev, 1, list), 0);
	list[0] = (struct epk_move) { .id = ids[1], .ept = 2, .pkey = 4 };
	CHECK_EQ(epk_device_moves(&dev, 1, list), -EBUSY);

	CHECK_EQ(epk_device_free(&dev, 28, ids + 2), 0);
	a = make(&id, 300);
	b = make(&ids[2], 400);
	CHECK_EQ(epk_device_move(&dev, ids[2], 9), 0);
	was = epk_device_entry(&dev, id);
	list[0] = (struct epk_move) { .id = id, .ept = 9 };
	list[0].pkey = epk_device_entry(&dev, ids[2]).pkey;
	list[1] = (struct epk_move) { .id = ids[2], .ept = was.ept, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 2, list), 0);
	CHECK_EQ(epk_device_entry(&dev, id).ept, 9);
	CHECK_EQ(epk_device_entry(&dev, ids[2]).pkey, was.pkey);
	check_holds(id, a, 300);
	check_holds(ids[2], b, 400);
	unmake(id, a);
	unmake(ids[2], b);
	CHECK_EQ(epk_device_free(&dev, 2, ids), 0);
}

/* Allocation beside others, and beyond all places. */
static void allocation(void)
{
	static int ids[8000];
	unsigned int places = dev.init.nr_epts * 15, i, placed = 0;
	struct epk_domains arg = { .num = 20, .flags = EPK_ALLOC_AT(40) };

	arg.ids = (uintptr_t)ids;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	CHECK_EQ(epk_device_entry(&dev, ids[0]).ept, 40);
	CHECK_EQ(epk_device_entry(&dev, ids[14]).ept, 40);
	CHECK(epk_device_entry(&dev, ids[15]).ept != 40);
	CHECK_EQ(epk_device_free(&dev, 20, ids), 0);

	arg.num = 8000, arg.flags = 0;
	CHECK(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == -1 && errno == ENOSPC);
	arg.flags = EPK_ALLOC_SPILL;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	for (i = 0; i < 8000; i++)
		placed += epk_device_entry(&dev, ids[i]).pkey != 0;
	CHECK_EQ(placed, places);
	CHECK_EQ(epk_device_stats(&dev).evicted, 8000 - places);
	CHECK_EQ(epk_device_move(&dev, ids[7999], EPK_EPT_ANY), -ENOSPC);
	CHECK_EQ(epk_device_move(&dev, ids[100], EPK_EPT_NONE), 0);
	CHECK_EQ(epk_device_move(&dev, ids[7999], EPK_EPT_ANY), 0);
	CHECK(epk_device_entry(&dev, ids[7999]).pkey != 0);
	CHECK_EQ(epk_device_free(&dev, 8000, ids), 0);
	CHECK_EQ(epk_device_stats(&dev).evicted, 0);
}

/* What a thread had open when its domain went away is closed before another comes. */
struct holder {
	int id, to, from;
	volatile uint32_t *mine, *next;
	volatile int holds, go;
	enum { SLEEPS, SPINS, RUNS_VCPU } how;
	int sig, code;
	uint32_t got, pkru;
};

static void *hold(void *arg)
{
	struct holder *h = arg;
	struct epk_raw_vcpu vcpu = { .flags = (uintptr_t)&h->holds };
	char c = 0;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	epk_device_enter(&dev, h->id);
	CHECK_EQ(EPK_TRY((void)*h->mine), 0);
	switch (h->how) {
	case SPINS:
		h->holds = 1;
		while (!h->go)
			;
		break;
	case SLEEPS:
		h->holds = 1;
		CHECK_EQ(read(h->from, &c, 1), 1);
		break;
	case RUNS_VCPU:
		/* KVM gives back the PKRU that it found. */
		CHECK_EQ(ioctl(raw, EPK_RAW_VCPU, &vcpu), 0);
		break;
	}
	h->pkru = epk_rdpkru();
	h->sig = EPK_TRY(h->got = *h->next);
	h->code = epk_try_code;
	epk_device_enter(&dev, 0);
	return NULL;
}

static void revoked(int how, bool move, unsigned int ept)
{
	struct holder h = { .how = how };
	struct epk_move place = { 0 };
	struct epk_entry was;
	pthread_t thread;
	int pipes[2], other;

	REQUIRE(pipe(pipes) == 0);
	h.from = pipes[0];
	h.mine = make(&h.id, 500);
	h.next = make(&other, 600);
	CHECK_EQ(epk_device_move(&dev, h.id, ept), 0);
	was = epk_device_entry(&dev, h.id);
	CHECK_EQ(pthread_create(&thread, NULL, hold, &h), 0);
	while (!h.holds)
		sched_yield();

	if (move)
		CHECK_EQ(epk_device_move(&dev, h.id, 33), 0);
	else
		CHECK_EQ(epk_device_free(&dev, 1, &h.id), 0);
	place = (struct epk_move) { .id = other, .ept = was.ept, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 1, &place), 0);
	h.go = 1;
	CHECK_EQ(write(pipes[1], "", 1), 1);
	pthread_join(thread, NULL);

	CHECK_EQ(h.sig, SIGSEGV);
	CHECK_EQ(h.code, SEGV_PKUERR);
	CHECK_EQ(h.got, 0);
	CHECK_EQ(h.pkru & 1u << 2 * was.pkey, 1u << 2 * was.pkey);
	check_holds(other, h.next, 600);
	CHECK_EQ(epk_device_unmap(&dev, h.mine, PAGES * 4096), 0);
	if (move)
		CHECK_EQ(epk_device_free(&dev, 1, &h.id), 0);
	unmake(other, h.next);
	close(pipes[0]);
	close(pipes[1]);
}

/* The same key in another EPT is another right, and stays. */
static void not_revoked(void)
{
	struct epk_move place;
	struct epk_entry was;
	volatile uint32_t *a, *b, *c;
	int ids[3];

	a = make(&ids[0], 10);
	b = make(&ids[1], 20);
	c = make(&ids[2], 30);
	was = epk_device_entry(&dev, ids[1]);
	place = (struct epk_move) { .id = ids[0], .ept = 3, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 1, &place), 0);
	epk_device_enter(&dev, ids[0]);
	CHECK_EQ(epk_device_move(&dev, ids[1], 4), 0);
	place = (struct epk_move) { .id = ids[2], .ept = was.ept, .pkey = was.pkey };
	CHECK_EQ(epk_device_moves(&dev, 1, &place), 0);
	CHECK_EQ(epk_rdpkru(), EPK_PKRU_ALLOW(was.pkey));
	CHECK_EQ(EPK_TRY((void)*a), 0);
	check_holds(ids[2], c, 30);
	unmake(ids[0], a);
	unmake(ids[1], b);
	unmake(ids[2], c);
}

/* Two domains change places under the eyes of threads that read them. */
static struct {
	int id;
	volatile uint32_t *p;
	uint32_t value;
} racing[2];
static volatile int racing_done;
static volatile long reads, refused, denied;

/* Right only if the table says the same when the key is open: from then on it is closed in time. */
static bool enter_for_sure(int id)
{
	struct epk_entry place = epk_device_entry(&dev, id), now;

	if (!place.pkey)
		return false;
	epk_wrpkru(EPK_PKRU_DENY_ALL);
	epk_vmfunc(place.ept);
	epk_wrpkru(EPK_PKRU_ALLOW(place.pkey));
	now = epk_device_entry(&dev, id);
	return now.ept == place.ept && now.pkey == place.pkey;
}

/*
 * With @i entered, wherever that is by now, the other is never to be seen.  Once each time:
 * EPK_TRY() writes back a PKRU that may have been revoked.
 */
static void look_at_other(unsigned int i)
{
	volatile uint32_t got = 0;
	int sig;

	if (enter_for_sure(racing[i].id)) {
		sig = EPK_TRY(got = racing[i ^ 1].p[i * 1024]);
		CHECK(sig == SIGSEGV && got == 0);
		__atomic_fetch_add(&denied, 1, __ATOMIC_RELAXED);
	}
	epk_device_enter(&dev, 0);
}

static void *racer(void *arg)
{
	volatile unsigned int i = (long)arg % 2;
	volatile uint32_t got;

	CHECK_EQ(ioctl(dev.fd, EPK_IOC_THREAD, 0), 0);
	while (!racing_done) {
		int sig;

		i ^= 1;
		got = 0;
		epk_device_enter(&dev, racing[i].id);
		sig = EPK_TRY(got = racing[i].p[i * 1024]);
		look_at_other(i);
		if (sig) {
			CHECK(sig == SIGSEGV && got == 0);
			__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
			continue;
		}
		CHECK_EQ(got, racing[i].value + i);
		__atomic_fetch_add(&reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void race(void)
{
	struct timespec start;
	pthread_t threads[3];
	long i;

	for (i = 0; i < 2; i++) {
		racing[i].value = 1000 * (i + 1);
		racing[i].p = make(&racing[i].id, racing[i].value);
	}
	for (i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, racer, (void *)i), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	/* Longer, if the others hardly get the CPU. */
	for (i = 0; race_goes_on(i, 400, &start) || (i < 20000 && (reads <= 100 || denied <= 100)); i++) {
		struct epk_entry a = epk_device_entry(&dev, racing[0].id);
		struct epk_entry b = epk_device_entry(&dev, racing[1].id);
		struct epk_move list[2] = {
			{ .id = racing[0].id, .ept = b.ept, .pkey = b.pkey },
			{ .id = racing[1].id, .ept = a.ept, .pkey = a.pkey },
		};

		if (i % 4 == 3)
			list[0] = (struct epk_move) { .id = racing[0].id, .ept = i % 16 };
		if (i % 8 == 4)
			CHECK_EQ(epk_device_move(&dev, racing[1].id, EPK_EPT_NONE), 0);
		else
			CHECK_EQ(epk_device_moves(&dev, i % 4 == 3 ? 1 : 2, list), 0);
		if (i % 8 == 4)
			CHECK_EQ(epk_device_move(&dev, racing[1].id, EPK_EPT_ANY), 0);
		sched_yield();
	}
	racing_done = 1;
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%ld reads, %ld refused, %ld denied\n", reads, refused, denied);
	CHECK(reads > 100 && denied > 100);
	for (i = 0; i < 2; i++)
		unmake(racing[i].id, racing[i].p);
}

int main(void)
{
	struct epk_stats stats;
	int how;

	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	moves();
	far_apart(4096);
	far_apart(0);
	evict();
	batches();
	raw = open(EPK_RAW_DEVICE, O_RDWR);
	REQUIRE(raw >= 0);
	for (how = SLEEPS; how <= RUNS_VCPU; how++) {
		revoked(how, true, 6);
		revoked(how, false, 6);
		revoked(how, true, 0);
		revoked(how, false, 0);
	}
	not_revoked();
	race();
	allocation();
	stats = epk_device_stats(&dev);
	CHECK_EQ(stats.domains, 0);
	CHECK_EQ(stats.pages, 0);
	CHECK(stats.moves > 100);
	CHECK(stats.revocations >= 6);
	return epk_test_result();
}
