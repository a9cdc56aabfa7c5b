// SPDX-License-Identifier: MIT
/*
 * Private domains: the domain table does not show them, nobody begins or calls one, and who held
 * one before it became private does no longer; its note says where it is, through all moves; who
 * does not hold it does not change its memory; and nobody goes on with a right on the stack of one
 * that has been freed.
 */
#include "private_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "forge.h"

#define STACK	(32 * PAGE)

static char ordinary[80][4096] __attribute__((aligned(64)));

static void *sp(int n)
{
	return ordinary[n] + sizeof(ordinary[n]) - 256;
}

/* Nothing but its note says where it is. */
static void unlisted(int line, int id, const char *mem)
{
	struct epk_entry entry = epk_device_entry(&dev, id);
	uint64_t note = note_of(id);
	bool evicted = !EPK_NOTE_PKEY(note);

	epk_check(entry.id == id && entry.ept == EPK_EPT_NONE && !entry.pkey && !entry.rsvd,
		  __FILE__, line, "the table unlists it", "");
	epk_check(EPK_NOTE_ADDR(note) == (uintptr_t)mem, __FILE__, line, "the note has it", "");
	epk_check(evicted == (EPK_NOTE_EPT(note) == EPK_EPT_NONE), __FILE__, line,
		  "it has an EPT and a key, or neither", "");
}

static void is_made(void)
{
	char *mem, *other;
	int id = new_domain(&mem, 4), plain = new_domain(&other, 1);

	CHECK_EQ(note_flags(id, mem, 2), -EINVAL);
	CHECK_EQ(note_flags(id, mem, EPK_NOTE_PRIVATE | 4), -EINVAL);
	CHECK_EQ(make_private(id, other), -EINVAL);
	CHECK_EQ(make_private(id, mem + 8), -EINVAL);
	CHECK_EQ(note_of(id), 0);
	CHECK_EQ(epk_device_entry(&dev, id).id, id);
	CHECK_EQ(begin(id), 0);
	CHECK_EQ(end(id), 0);

	CHECK_EQ(make_private(id, mem), 0);
	unlisted(__LINE__, id, mem);
	CHECK_EQ(begin(id), -EPERM);
	CHECK_EQ(begin_prot(id, PROT_READ), -EPERM);
	CHECK_EQ(call(sp(0), id), -EPERM);
	CHECK_EQ(call_prot(sp(0), id, PROT_READ), -EPERM);
	holds_nothing(__LINE__);
	CHECK_EQ(make_private(id, mem), -EPERM);
	CHECK_EQ(note_flags(id, mem, 0), -EPERM);

	enter(id);
	CHECK_EQ(touch((uint64_t *)mem, 1), 0);
	list(id, PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(begin(id), -EPERM);
	CHECK_EQ(make_private(id, mem), -EBUSY);
	CHECK_EQ(begin(plain), 0);
	list(id, PROT_READ | PROT_WRITE, plain, PROT_READ | PROT_WRITE);
	CHECK(can_read(mem) && can_read(other) && can_read(mem));
	CHECK_EQ(end(plain), 0);
	CHECK_EQ(end(id), 0);
	holds_nothing(__LINE__);
	CHECK(!can_read(mem));

	CHECK_EQ(note_flags(plain, other, 0), 0);
	CHECK_EQ(note_of(plain), (uintptr_t)other);
	CHECK_EQ(make_private(plain, other), -EBUSY);
	CHECK_EQ(begin(plain), 0);
	CHECK_EQ(end(plain), 0);
	done_with(id, mem, 4);
	CHECK_EQ(note_of(id), 0);
	CHECK_EQ(begin(id), -ENOENT);
	done_with(plain, other, 1);
}

/* Each place that it gets, in the note alone; whoever else has its last one. */
static void moves(void)
{
	const unsigned int epts[] = { EPK_EPT_NONE, EPK_EPT_ANY, FAR_EPT, 0, FAR_EPT + 1 };
	unsigned int i;
	char *mem;
	int id = new_private(&mem, 1);

	enter(id);
	memset(mem, 7, PAGE);
	for (i = 0; i < 3 * sizeof(epts) / sizeof(*epts); i++) {
		struct epk_move move = {
			.id = id, .ept = epk_device_ept(&dev, epts[i % 5]),
		};
		int ret = epk_device_moves(&dev, 1, &move);

		unlisted(__LINE__, id, mem);
		if (!ret) {
			CHECK_EQ(EPK_NOTE_EPT(note_of(id)), move.ept);
			CHECK_EQ(EPK_NOTE_PKEY(note_of(id)), move.pkey);
		}
		/* Who holds it does so through all of them. */
		list(id, PROT_READ | PROT_WRITE, 0, 0);
		CHECK(can_read(mem) && *mem == 7);
		unlisted(__LINE__, id, mem);
		CHECK(EPK_NOTE_PKEY(note_of(id)));
		if (i % 3)
			continue;
		CHECK_EQ(end(id), 0);
		CHECK(!can_read(mem));
		enter(id);
	}
	CHECK_EQ(end(id), 0);
	done_with(id, mem, 1);
	CHECK_EQ(note_of(id), 0);
}

/* Where all places are taken, in place of another. */
static void admitted(void)
{
	struct epk_move move = { .ept = EPK_EPT_ANY };
	struct epk_moves two = {
		.num = 2, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)(struct epk_move[2]) {
			{ .id = ids[0], .ept = EPK_EPT_ANY }, { .id = ids[1], .ept = EPK_EPT_ANY },
		},
	};
	char *mem;
	int id = new_private(&mem, 1), i;

	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	for (i = 0; epk_device_is_alone(&dev) && i < NR_DOMAINS; i++)
		epk_device_move(&dev, ids[i], EPK_EPT_ANY);
	if (epk_device_is_alone(&dev))
		CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY), -ENOSPC);
	CHECK_EQ(admit(id, &move), 0);
	CHECK_EQ(EPK_NOTE_EPT(note_of(id)), move.ept);
	CHECK_EQ(EPK_NOTE_PKEY(note_of(id)), move.pkey);
	unlisted(__LINE__, id, mem);
	move = (struct epk_move) { .ept = EPK_EPT_NONE };
	CHECK_EQ(admit(id, &move), -EINVAL);
	move = (struct epk_move) { .ept = EPK_EPT_ANY, .pkey = 1 };
	CHECK_EQ(admit(id, &move), -EINVAL);
	move = (struct epk_move) { .ept = EPK_EPT_ANY, .rsvd = 1 };
	CHECK_EQ(admit(id, &move), -EINVAL);
	move = (struct epk_move) { .ept = 0x1000 };
	CHECK_EQ(admit(id, &move), -EINVAL);
	CHECK(ioctl(dev.fd, EPK_IOC_MOVE, &two) == -1 && errno == EINVAL);
	two.flags = 2;
	CHECK(ioctl(dev.fd, EPK_IOC_MOVE, &two) == -1 && errno == EINVAL);
	done_with(id, mem, 1);
	move = (struct epk_move) { .ept = EPK_EPT_ANY };
	CHECK_EQ(admit(id, &move), -ENOENT);
}

/* Room is made by what nobody holds: not by what is open, nor by what waits for a call to return. */
static void makes_room(void)
{
	struct epk_entry x, y, now;
	int i;

	CHECK_EQ(epk_device_move(&dev, ids[0], EPK_EPT_ANY) & ~-ENOSPC, 0);
	CHECK_EQ(begin(ids[1]), 0);
	CHECK_EQ(ioctl_at(sp(2), EPK_IOC_CALL, 0), 0);
	CHECK_EQ(begin(ids[0]), 0);
	x = epk_device_entry(&dev, ids[0]);
	y = epk_device_entry(&dev, ids[1]);
	CHECK(x.pkey && y.pkey);
	for (i = 2; i < NR_DOMAINS; i++) {
		struct epk_move move = { .ept = i % 2 ? x.ept : y.ept };

		CHECK_EQ(admit(ids[i], &move), 0);
		now = epk_device_entry(&dev, ids[0]);
		CHECK(now.ept == x.ept && now.pkey == x.pkey);
		now = epk_device_entry(&dev, ids[1]);
		CHECK(now.ept == y.ept && now.pkey == y.pkey);
	}
	CHECK_EQ(end(ids[0]), 0);
	CHECK_EQ(call_return(sp(2)), 0);
	list(ids[1], PROT_READ | PROT_WRITE, 0, 0);
	CHECK_EQ(end(ids[1]), 0);
}

/* Another thread, which holds something, and waits. */
static struct {
	int id, other;
	char *mem;
	bool is_freed;
	volatile int how, state, held, reaches, open;
} holder;

enum {
	BY_KEY, TO_READ, ELSEWHERE, UNREGISTERED, SIGNALS_ONLY, BY_CALL, IN_SIGNAL, BY_BOTH, NR_HOW
};
enum { HOLDS = 1, GO_ON, SEEN };

static void wait_for(int state)
{
	while (holder.state != state)
		sched_yield();
}

static void waits(void)
{
	holder.state = HOLDS;
	while (holder.state != GO_ON)
		;
}

static void wait_in_handler(int sig)
{
	(void)sig;
	waits();
}

static void *holds(void *unused)
{
	struct sigaction action = { .sa_handler = wait_in_handler };
	struct epk_grant held[4];
	struct epk_grants arg = { .num = 4, .list = (uintptr_t)held };
	struct epk_entry entry = epk_device_entry(&dev, holder.id);

	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	if (holder.how == SIGNALS_ONLY)
		REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
	if (holder.how == SIGNALS_ONLY || holder.how == UNREGISTERED) {
		epk_device_goto(&dev, entry.ept);
		epk_wrpkru(EPK_PKRU_ALLOW(entry.pkey));
	} else {
		CHECK_EQ(begin_prot(holder.id, holder.how == TO_READ ? PROT_READ :
					       PROT_READ | PROT_WRITE), 0);
	}
	if (holder.how == ELSEWHERE || holder.how == BY_BOTH)
		CHECK_EQ(begin(holder.other), 0);
	if (holder.how == BY_BOTH)
		CHECK(can_read(holder.mem));
	if (holder.how == BY_CALL)
		CHECK_EQ(call(sp(1), holder.other), 0);
	if (holder.how == IN_SIGNAL)
		raise(SIGUSR1);
	else
		waits();
	if (holder.how == BY_CALL)
		CHECK_EQ(call_return(sp(1)), 0);
	holder.open = (~epk_rdpkru() & EPK_PKRU_DENY_ALL) != 0;
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_HELD, &arg), 0);
	holder.held = arg.num;
	if (!holder.is_freed)
		holder.reaches = can_read(holder.mem) + 2 * can_write(holder.mem);
	holder.state = SEEN;
	return unused;
}

/* It has become private, or was freed, while somebody else held it. */
static void while_held(bool is_freed)
{
	int how, id = 0;
	pthread_t thread;
	char *mem, *other;

	holder.other = new_domain(&other, 1);
	for (how = 0; how < NR_HOW; how++) {
		/* What is held by hand has to be where it is. */
		id = new_domain(&mem, 2);
		CHECK_EQ(begin(id), 0);
		*mem = 1;
		CHECK_EQ(end(id), 0);
		holder.id = id, holder.mem = mem, holder.how = how, holder.state = 0;
		holder.is_freed = is_freed;
		REQUIRE(!pthread_create(&thread, NULL, holds, NULL));
		wait_for(HOLDS);
		if (is_freed)
			CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		else
			CHECK_EQ(make_private(id, mem), 0);
		holder.state = GO_ON;
		wait_for(SEEN);
		pthread_join(thread, NULL);
		/* The other one stays what it was. */
		CHECK_EQ(holder.held, how == ELSEWHERE || how == BY_BOTH);
		/* Of one that was freed a key is closed when another gets the place. */
		if (how != ELSEWHERE && how != BY_BOTH && !is_freed)
			CHECK_EQ(holder.open, 0);
		CHECK_EQ(holder.reaches, 0);
		if (!is_freed)
			CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
		CHECK_EQ(epk_device_unmap(&dev, mem, 2 * PAGE), 0);
	}
	done_with(holder.other, other, 1);
}

/* Held by who makes it private. */
static void by_its_holder(void)
{
	char *mem, *other;
	int id = new_domain(&mem, 1), plain = new_domain(&other, 1);

	CHECK_EQ(begin(plain), 0);
	CHECK_EQ(begin(id), 0);
	CHECK_EQ(make_private(id, mem + 8), -EINVAL);
	list(id, PROT_READ | PROT_WRITE, plain, PROT_READ | PROT_WRITE);
	CHECK_EQ(make_private(id, mem), 0);
	list(plain, PROT_READ | PROT_WRITE, 0, 0);
	CHECK(can_read(other) && !can_read(mem));
	CHECK_EQ(end(plain), 0);
	done_with(id, mem, 1);
	done_with(plain, other, 1);
}

/* Who begins it at that very moment. */
static volatile int begun_id, begun_stop;

static void *begins(void *unused)
{
	int id, ret;

	CHECK_EQ(follow(), 0);
	while (!begun_stop) {
		id = begun_id;
		ret = id ? begin(id) : -ENOENT;
		if (ret && ret != -EPERM && ret != -ENOENT && ret != -EALREADY)
			CHECK_EQ(ret, 0);
	}
	list(0, 0, 0, 0);
	return unused;
}

static void begun_race(void)
{
	struct timespec since;
	pthread_t thread;
	char *mem;
	int i, id;

	begun_stop = 0;
	REQUIRE(!pthread_create(&thread, NULL, begins, NULL));
	clock_gettime(CLOCK_MONOTONIC, &since);
	for (i = 0; race_goes_on(i, 200, &since); i++) {
		id = new_domain(&mem, 1);
		begun_id = id;
		sched_yield();
		CHECK_EQ(make_private(id, mem), 0);
		begun_id = 0;
		done_with(id, mem, 1);
	}
	id = new_domain(&mem, 1);
	begun_id = id;
	sched_yield();
	CHECK_EQ(make_private(id, mem), 0);
	begun_stop = 1;
	pthread_join(thread, NULL);
	done_with(id, mem, 1);
}

static int map_file(int id, void *at, int flags)
{
	int file = memfd_create("private", 0);
	struct epk_file arg = {
		.addr = (uintptr_t)at, .len = PAGE, .id = id, .fd = file,
		.prot = PROT_READ | PROT_WRITE, .flags = flags,
	};
	int ret;

	REQUIRE(file >= 0 && !ftruncate(file, PAGE));
	ret = ioctl(dev.fd, EPK_IOC_FILE, &arg) ? -errno : 0;
	close(file);
	if (!ret && !(flags & MAP_FIXED))
		CHECK_EQ(epk_device_unmap(&dev, (void *)arg.addr, PAGE), 0);
	return ret;
}

static int map_more(int id, void *at)
{
	void *more = mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0),
			  dev.fd, EPK_MMAP_DOMAIN(id));

	if (more == MAP_FAILED)
		return -errno;
	if (!at)
		CHECK_EQ(epk_device_unmap(&dev, more, PAGE), 0);
	return 0;
}

static int protect(void *at, size_t len, int prot)
{
	return mprotect(at, len, prot) ? -errno : 0;
}

/* What is refused to who does not hold it to write. */
static void refused(int id, int plain, char *mem, char *other)
{
	unsigned int mappings = epk_count_mappings();

	CHECK_EQ(epk_device_unmap(&dev, mem, PAGE), -EPERM);
	CHECK_EQ(epk_device_unmap(&dev, mem + 3 * PAGE, PAGE), -EPERM);
	CHECK_EQ(epk_device_unmap(&dev, mem, 4 * PAGE), -EPERM);
	CHECK_EQ(epk_device_unmap(&dev, other, 5 * PAGE), -EPERM);
	CHECK_EQ(map_more(id, NULL), -EPERM);
	CHECK_EQ(map_more(id, other), -EPERM);
	CHECK_EQ(map_more(id, mem), -EPERM);
	CHECK_EQ(map_more(plain, mem), -EPERM);
	CHECK_EQ(map_file(id, NULL, 0), -EPERM);
	CHECK_EQ(map_file(id, other, MAP_FIXED), -EPERM);
	CHECK_EQ(map_file(id, mem, MAP_FIXED), -EPERM);
	CHECK_EQ(map_file(plain, mem, MAP_FIXED), -EPERM);
	CHECK_EQ(note_flags(id, mem + PAGE, 0), -EPERM);
	CHECK_EQ(make_private(id, mem), -EPERM);
	CHECK_EQ(protect(mem, PAGE, PROT_READ), -EPERM);
	CHECK_EQ(protect(mem + PAGE, PAGE, PROT_NONE), -EPERM);
	CHECK_EQ(protect(mem, 4 * PAGE, PROT_READ | PROT_WRITE), -EPERM);
	CHECK(pkey_mprotect(mem, PAGE, PROT_READ, 0) == -1);
	CHECK(munmap(mem, PAGE) == -1 && errno == EPERM);
	CHECK_EQ(epk_count_mappings(), mappings);
}

/* What lies beside it is whole, as nothing of these has begun. */
static void shape(void)
{
	char *room = mmap(NULL, 5 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *other, *mem = room + PAGE;
	int id, plain;

	REQUIRE(room != MAP_FAILED);
	id = new_domain(&other, 1);
	CHECK_EQ(epk_device_unmap(&dev, other, PAGE), 0);
	plain = new_domain(&other, 1);
	REQUIRE(mmap(mem, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		     EPK_MMAP_DOMAIN(id)) == mem);
	CHECK_EQ(epk_device_unmap(&dev, other, PAGE), 0);
	other = room;
	REQUIRE(mmap(other, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev.fd,
		     EPK_MMAP_DOMAIN(plain)) == other);
	CHECK_EQ(begin(plain), 0);
	*other = 3;
	CHECK_EQ(end(plain), 0);
	CHECK_EQ(make_private(id, mem), 0);
	refused(id, plain, mem, other);
	enter(id);
	memset(mem, 5, 4 * PAGE);
	/* Held to read is not enough. */
	epk_wrpkru(epk_rdpkru() | 2u << 2 * EPK_NOTE_PKEY(note_of(id)));
	list(id, PROT_READ, 0, 0);
	refused(id, plain, mem, other);
	CHECK_EQ(end(id), 0);

	/* These deny service only. */
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_NONE), 0);
	refused(id, plain, mem, other);
	CHECK_EQ(epk_device_move(&dev, id, EPK_EPT_ANY) & ~-ENOSPC, 0);
	enter(id);
	CHECK_EQ(end(id), 0);
	CHECK_EQ(epk_device_populate(&dev, mem, 4 * PAGE), 0);

	enter(id);
	CHECK(mem[0] == 5 && mem[4 * PAGE - 1] == 5);
	CHECK_EQ(protect(mem + PAGE, PAGE, PROT_READ), 0);
	CHECK_EQ(protect(mem + PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(map_more(id, NULL), 0);
	CHECK_EQ(map_file(id, NULL, 0), 0);
	CHECK_EQ(note_flags(id, mem, 0), -EBUSY);
	CHECK_EQ(epk_device_unmap(&dev, mem + 3 * PAGE, PAGE), 0);
	CHECK_EQ(map_file(id, mem + 3 * PAGE, MAP_FIXED), 0);
	CHECK_EQ(end(id), 0);
	/* A file's, too; and it is mprotect() again that is asked first. */
	CHECK_EQ(epk_device_unmap(&dev, mem + 3 * PAGE, PAGE), -EPERM);
	CHECK_EQ(protect(mem + 3 * PAGE, PAGE, PROT_READ), -EPERM);
	CHECK(madvise(mem + 3 * PAGE, PAGE, MADV_REMOVE) == -1);
	CHECK_EQ(begin(plain), 0);
	CHECK_EQ(*other, 3);
	CHECK_EQ(end(plain), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &plain), 0);
	CHECK_EQ(epk_device_unmap(&dev, room, 5 * PAGE), 0);
}

/* What says where they are stays, as long as there is one. */
static void table_mappings(void)
{
	const volatile void *const all[] = { dev.table, dev.identity, notes };
	size_t bytes = dev.init.table_bytes;
	char *mem;
	int id = new_private(&mem, 1);
	unsigned int i;

	for (i = 0; i < 3; i++) {
		CHECK_EQ(epk_device_unmap(&dev, all[i], PAGE), -EPERM);
		enter(id);
		CHECK_EQ(epk_device_unmap(&dev, all[i], PAGE), -EPERM);
		CHECK_EQ(end(id), 0);
	}
	done_with(id, mem, 1);
	CHECK_EQ(epk_device_unmap(&dev, notes, bytes), 0);
	notes = mmap(NULL, bytes, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_NOTES);
	REQUIRE(notes != MAP_FAILED);
}

static void advised(void)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DOFORK, MADV_DODUMP, MADV_WIPEONFORK,
		MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, 24, 25, 102,
		/* The last: DONTNEED_LOCKED, COLLAPSE, GUARD_INSTALL. */
	};
	unsigned int i;
	char *mem;
	int id = new_private(&mem, 1);

	enter(id);
	memset(mem, 9, PAGE);
	CHECK_EQ(end(id), 0);
	for (i = 0; i < sizeof(advice) / sizeof(*advice); i++)
		CHECK(madvise(mem, PAGE, advice[i]) == -1);
	CHECK(syscall(SYS_mremap, mem, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == (long)MAP_FAILED);
	CHECK(syscall(SYS_mremap, mem, PAGE, 0, 0) == (long)MAP_FAILED);
	CHECK(syscall(SYS_remap_file_pages, mem, PAGE, 0, 0, 0) == -1);
	enter(id);
	CHECK(mem[0] == 9 && mem[PAGE - 1] == 9);
	CHECK_EQ(end(id), 0);
	done_with(id, mem, 1);
}

int main(void)
{
#define RUN(what)	do { puts(#what); fflush(stdout); what; } while (0)
	private_init(0);
	RUN(is_made());
	RUN(moves());
	RUN(admitted());
	RUN(makes_room());
	RUN(while_held(false));
	RUN(while_held(true));
	RUN(by_its_holder());
	RUN(begun_race());
	RUN(shape());
	RUN(table_mappings());
	RUN(advised());
	return epk_test_result();
}
