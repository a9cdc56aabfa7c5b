/* SPDX-License-Identifier: MIT */
/*
 * The calls and faults of kmod_state_test, and what each answers in each state.
 */
#ifndef STATE_TEST_H
#define STATE_TEST_H

#include "epk_test.h"

#include <sched.h>
#include <sys/syscall.h>

#include <linux/futex.h>

#define SECRET		0x5ec0ffee
#define ORDINARY	0x0bd1a4

/* The faults are the first touches of a page, by the program, by write() from it, by a futex. */
enum call {
	INIT, ALLOC, FREE, THREAD, STATS, MOVE, POPULATE, FILE_, UNMAP, RESERVE, FILL, NOTE,
	CALL, RETURN, GATES, BEGIN, END, HELD, PROTECT, ADMIT, CALL_NONE, FORGET, CATCH, FOLLOW, NOTE_PRIVATE,
	COMPAT, UNKNOWN, MMAP_TABLE,
	MMAP_NOTES, MMAP_IDENTITY, MMAP_DOMAIN, MMAP_STACK, TOUCH_TABLE, WRITE_TABLE, TOUCH_NOTES, WRITE_NOTES, TOUCH_IDENTITY,
	WRITE_IDENTITY, TOUCH_DOMAIN, WRITE_DOMAIN, FUTEX_DOMAIN, NR_CALLS,
};

static const char *const names[NR_CALLS] = {
	"INIT", "ALLOC", "FREE", "THREAD", "STATS", "MOVE", "POPULATE", "FILE", "UNMAP", "RESERVE", "FILL",
	"NOTE", "CALL", "RETURN", "GATES", "BEGIN", "END", "HELD", "PROTECT",
	"MOVE that makes room", "CALL of nothing", "RETURN of nothing", "CATCH",
	"THREAD that follows", "NOTE that makes private", "ALLOC by int 0x80", "an unknown call",
	"mmap of the table", "mmap of the notes", "mmap of the identity page", "mmap of a domain",
	"mmap of a stack",
	"a touch of the table", "write from the table", "a touch of the notes",
	"write from the notes", "a touch of the identity page", "write from the identity page",
	"a touch of a domain", "write from a domain", "a futex in a domain",
};

static inline bool is_fault(enum call call)
{
	return call >= TOUCH_TABLE;
}

/*
 * What the open is to who calls.  With HOLDS the thread holds the domain; with PRIVATE that is
 * private, and with MINE the thread, which follows it, holds it then.
 */
enum state { NEW, SECOND, READY, HOLDS, OTHERS, PRIVATE, MINE, NR_STATES };

static const int expected[NR_CALLS][NR_STATES] = {
	/*                    NEW     SECOND  READY   HOLDS     OTHERS  PRIVATE MINE */
	[INIT]           = { 0,      EBUSY,  EBUSY,  EBUSY,    EPERM,  EBUSY,  EBUSY },
	[ALLOC]          = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[FREE]           = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[THREAD]         = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[STATS]          = { 0,      0,      0,      0,        EPERM,  0,      0 },
	[MOVE]           = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[POPULATE]       = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[FILE_]          = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  0 },
	[UNMAP]          = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  0 },
	[RESERVE]        = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  0 },
	[FILL]           = { ENXIO,  ENXIO,  EACCES, 0,        EPERM,  EACCES, 0 },
	[NOTE]           = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  EBUSY },
	[CALL]           = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  EPERM },
	[RETURN]         = { ENXIO,  ENXIO,  EACCES, EACCES,   EPERM,  EACCES, EACCES },
	[GATES]          = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[BEGIN]          = { ENXIO,  ENXIO,  0,      EALREADY, EPERM,  EPERM,  EPERM },
	[END]            = { ENXIO,  ENXIO,  EACCES, EACCES,   EPERM,  EACCES, 0 },
	[HELD]           = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[PROTECT]        = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  EPERM },
	[ADMIT]          = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[CALL_NONE]      = { ENXIO,  ENXIO,  ESRCH,  ESRCH,    EPERM,  ESRCH,  0 },
	[FORGET]         = { ENXIO,  ENXIO,  EACCES, EACCES,   EPERM,  EACCES, EACCES },
	[CATCH]          = { ENXIO,  ENXIO,  EINVAL, EINVAL,   EPERM,  EINVAL, EINVAL },
	[FOLLOW]         = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[NOTE_PRIVATE]   = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  EBUSY },
	[COMPAT]         = { ENOTTY, ENOTTY, ENOTTY, ENOTTY,   ENOTTY, ENOTTY, ENOTTY },
	[UNKNOWN]        = { ENOTTY, ENOTTY, ENOTTY, ENOTTY,   EPERM,  ENOTTY, ENOTTY },
	[MMAP_TABLE]     = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[MMAP_NOTES]     = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[MMAP_IDENTITY]  = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[MMAP_DOMAIN]    = { ENXIO,  ENXIO,  0,      0,        EPERM,  EPERM,  0 },
	[MMAP_STACK]     = { ENXIO,  ENXIO,  0,      0,        EPERM,  0,      0 },
	[TOUCH_TABLE]    = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[WRITE_TABLE]    = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[TOUCH_NOTES]    = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[WRITE_NOTES]    = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[TOUCH_IDENTITY] = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[WRITE_IDENTITY] = { EFAULT, 0,      0,      0,        EFAULT, 0,      0 },
	[TOUCH_DOMAIN]   = { EFAULT, EFAULT, EFAULT, 0,        EFAULT, EFAULT, 0 },
	[WRITE_DOMAIN]   = { EFAULT, EFAULT, EFAULT, 0,        EFAULT, EFAULT, 0 },
	[FUTEX_DOMAIN]   = { EFAULT, EFAULT, EFAULT, 0,        EFAULT, EFAULT, 0 },
};

/* On a ready open that has no domain yet, and nothing mapped. */
static const int expected_empty[NR_CALLS] = {
	[INIT] = EBUSY, [FREE] = ENOENT, [MOVE] = ENOENT, [POPULATE] = EINVAL,
	[FILE_] = ENOENT, [UNMAP] = EPERM, [RESERVE] = EPERM, [FILL] = EINVAL, [NOTE] = ENOENT, [CALL] = ENOENT,
	[RETURN] = EACCES, [BEGIN] = ENOENT, [END] = EACCES, [PROTECT] = ENOENT, [ADMIT] = ENOENT, [CALL_NONE] = ESRCH,
	[FORGET] = EACCES, [CATCH] = EINVAL, [NOTE_PRIVATE] = ENOENT, [COMPAT] = ENOTTY,
	[UNKNOWN] = ENOTTY,
	[MMAP_DOMAIN] = ENOENT,
	[TOUCH_TABLE] = EFAULT, [WRITE_TABLE] = EFAULT, [TOUCH_NOTES] = EFAULT,
	[WRITE_NOTES] = EFAULT, [TOUCH_IDENTITY] = EFAULT, [WRITE_IDENTITY] = EFAULT,
	[TOUCH_DOMAIN] = EFAULT, [WRITE_DOMAIN] = EFAULT, [FUTEX_DOMAIN] = EFAULT,
};

/* What a cell of that table plays with. */
static struct epk_device dev;		/* the ready one, if there is one */
static int id;				/* its domain, or what might be its ID */
static volatile uint32_t *page;		/* that domain's, or ordinary memory */
static char where[80];

/* Pages that nobody has touched yet. */
static struct {
	volatile uint32_t *table, *notes, *identity, *domain;
} untouched;

static bool check(bool ok, int line, const char *what)
{
	return epk_check(ok, __FILE__, line, what, where);
}

#define CHECK_CELL(condition)	check(condition, __LINE__, #condition)

static volatile int handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

/* A signal, and out of the CPU and back. */
static void disturb(void)
{
	int before = handled;

	raise(SIGUSR1);
	CHECK_CELL(handled == before + 1);
	usleep(1);
	sched_yield();
	raise(SIGUSR1);
	CHECK_CELL(handled == before + 2);
}

static int call_init(int fd)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };

	if (ioctl(fd, EPK_IOC_INIT, &init))
		return -1;
	dev.init = init;
	return 0;
}

/* With what is there. */
static int call_fill(int fd)
{
	static uint32_t same[1024];
	struct epk_fill fill = { .addr = (uintptr_t)page, .len = 4096, .from = (uintptr_t)same };

	same[0] = SECRET;
	return ioctl(fd, EPK_IOC_FILL, &fill);
}

static int call_file(int fd)
{
	int file = memfd_create("state", 0), ret, saved;
	struct epk_file arg = { .len = 4096, .id = id, .fd = file, .prot = PROT_READ };

	CHECK_CELL(file >= 0 && !ftruncate(file, 4096));
	ret = ioctl(fd, EPK_IOC_FILE, &arg);
	saved = errno;
	close(file);
	errno = saved;
	return ret;
}

/* Any code is good enough for a gate that nobody runs. */
static int call_gates(int fd)
{
	struct epk_gate gate = {
		.start = (uintptr_t)disturb, .end = (uintptr_t)disturb + 1,
		.restart = (uintptr_t)disturb,
	};
	struct epk_gates gates = { .num = 1, .gates = (uintptr_t)&gate };

	return ioctl(fd, EPK_IOC_GATES, &gates);
}

/* As a program of 32 bits does, which has a context as little as its calls have numbers. */
static int call_compat(int fd)
{
	static struct epk_domains *low;
	long ret = 54;

	if (!low)
		low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK_CELL(low != MAP_FAILED);
	*low = (struct epk_domains) { .num = 1, .ids = (uintptr_t)(low + 1) };
	asm volatile("int $0x80" : "+a"(ret) : "b"(fd), "c"(EPK_IOC_ALLOC), "d"(low)
		     : "r8", "r9", "r10", "r11", "memory");
	errno = -ret;
	return ret ? -1 : 0;
}

static int call_held(int fd)
{
	struct epk_grant grant;
	struct epk_grants grants = { .num = 1, .list = (uintptr_t)&grant };

	return ioctl(fd, EPK_IOC_HELD, &grants);
}

/* The errno that a system call would have. */
static int touch(const volatile uint32_t *word)
{
	switch (EPK_TRY((void)*word)) {
	case 0:
		return 0;
	case SIGSEGV:
		return EFAULT;
	default:
		return EIO;
	}
}

static int write_from(const volatile uint32_t *word)
{
	int ends[2], ret;

	REQUIRE(pipe(ends) == 0);
	ret = write(ends[1], (const void *)word, sizeof(*word)) == sizeof(*word) ? 0 : errno;
	close(ends[0]);
	close(ends[1]);
	return ret;
}

/* Writes what stands there. */
static int futex(volatile uint32_t *word)
{
	uint32_t other = 0;

	return syscall(SYS_futex, &other, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1ul, word,
		       FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0)) < 0 ? errno : 0;
}

static int fault(enum call call)
{
	switch (call) {
	case TOUCH_TABLE:
		return touch(untouched.table);
	case WRITE_TABLE:
		return write_from(untouched.table);
	case TOUCH_NOTES:
		return touch(untouched.notes);
	case WRITE_NOTES:
		return write_from(untouched.notes);
	case TOUCH_IDENTITY:
		return touch(untouched.identity);
	case WRITE_IDENTITY:
		return write_from(untouched.identity);
	case TOUCH_DOMAIN:
		return touch(untouched.domain);
	case WRITE_DOMAIN:
		return write_from(untouched.domain);
	default:
		return futex(untouched.domain);
	}
}

#define TABLE_BYTES	((1ul << EPK_ID_INDEX_BITS) * sizeof(struct epk_entry))

static void *map_table(int fd, size_t len, uint64_t offset)
{
	return mmap(NULL, len, PROT_READ, MAP_SHARED, fd, offset);
}

/* What can be mapped can be touched. */
static int call_map_table(int fd, size_t len, uint64_t offset)
{
	char *table = map_table(fd, len, offset);

	if (table == MAP_FAILED)
		return -1;
	CHECK_CELL(touch((uint32_t *)(table + len - 4096)) == 0);
	return 0;
}

static int call_map_domain(int fd)
{
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			    EPK_MMAP_DOMAIN(id));

	return memory == MAP_FAILED ? -1 : 0;
}

static int call_map_stack(int fd)
{
	char *stack = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, EPK_MMAP_STACK);

	if (stack == MAP_FAILED)
		return -1;
	CHECK_CELL(touch((uint32_t *)(stack + 4096)) == 0);
	return 0;
}

static int call_map(enum call call, int fd)
{
	switch (call) {
	case MMAP_TABLE:
		return call_map_table(fd, TABLE_BYTES, EPK_MMAP_TABLE);
	case MMAP_NOTES:
		return call_map_table(fd, TABLE_BYTES, EPK_MMAP_NOTES);
	case MMAP_IDENTITY:
		return call_map_table(fd, 4096, EPK_MMAP_IDENTITY);
	case MMAP_STACK:
		return call_map_stack(fd);
	default:
		return call_map_domain(fd);
	}
}

/* Of what a thread holds, and where a call goes on. */
static int call_of_thread(enum call call, int fd)
{
	struct epk_catch catching = { .id = id };

	switch (call) {
	case THREAD:
		return ioctl(fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS);
	case FOLLOW:
		return ioctl(fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS);
	case CALL:
		return ioctl(fd, EPK_IOC_CALL, EPK_BEGIN(id, PROT_READ));
	case RETURN:
		return ioctl(fd, EPK_IOC_RETURN, 0);
	case CALL_NONE:
		return ioctl(fd, EPK_IOC_CALL, 0);
	case CATCH:	/* nobody has said where it goes on */
		return ioctl(fd, EPK_IOC_CATCH, &catching);
	case FORGET:
		return ioctl(fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING);
	case BEGIN:
		return ioctl(fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ));
	case END:
		return ioctl(fd, EPK_IOC_END, (long)id);
	case HELD:
		return call_held(fd);
	default:
		return ioctl(fd, _IO('E', 0xfe), 0);
	}
}

static int call_ioctl(enum call call, int fd)
{
	struct epk_domains domains = { .num = 1, .ids = (uintptr_t)&(int){ id } };
	struct epk_range range = { .addr = (uintptr_t)page, .len = 4096 };
	struct epk_move move = { .id = id, .ept = epk_device_is_alone(&dev) ? EPK_EPT_ANY : 3 };
	struct epk_moves moves = {
		.num = 1, .flags = call == ADMIT ? EPK_MOVES_ADMIT : 0, .moves = (uintptr_t)&move,
	};
	struct epk_note note = {
		.id = id, .flags = call == NOTE_PRIVATE ? EPK_NOTE_PRIVATE : 0, .addr = (uintptr_t)page,
	};
	struct epk_stats stats;

	switch (call) {
	case INIT:
		return call_init(fd);
	case ALLOC:
		return ioctl(fd, EPK_IOC_ALLOC, &domains);
	case FREE:
		return ioctl(fd, EPK_IOC_FREE, &domains);
	case STATS:
		return ioctl(fd, EPK_IOC_STATS, &stats);
	case MOVE:
	case ADMIT:
		return ioctl(fd, EPK_IOC_MOVE, &moves);
	case POPULATE:
		return ioctl(fd, EPK_IOC_POPULATE, &range);
	case FILE_:
		return call_file(fd);
	case UNMAP:
		return ioctl(fd, EPK_IOC_UNMAP, &range);
	case RESERVE:
		return ioctl(fd, EPK_IOC_RESERVE, &range);
	case FILL:
		return call_fill(fd);
	case NOTE:
	case NOTE_PRIVATE:
		return ioctl(fd, EPK_IOC_NOTE, &note);
	case GATES:
		return call_gates(fd);
	case PROTECT:
		return ioctl(fd, EPK_IOC_PROTECT, EPK_BEGIN(id, PROT_NONE));
	case COMPAT:
		return call_compat(fd);
	default:
		return call_of_thread(call, fd);
	}
}

/* Its errno, 0 if it succeeds. */
static int make(enum call call, int fd)
{
	int ret;

	if (is_fault(call))
		return fault(call);
	errno = 0;
	ret = call >= MMAP_TABLE ? call_map(call, fd) : call_ioctl(call, fd);
	return ret ? errno : 0;
}

#endif /* STATE_TEST_H */
