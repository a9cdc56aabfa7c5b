// SPDX-License-Identifier: MIT
/*
 * Which call may come when, and from whom: each call on an open of /dev/epk in each state
 * that it can be in, against one table.  What is refused has changed nothing, and
 * what a call may have left half-made shows when the thread then handles a signal, leaves
 * the CPU, and goes on with whatever it has not done yet.
 */
#include "epk_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "raw/epk_raw.h"

#define SECRET		0x5ec0ffee
#define STARTS		2
#define ORDINARY	0x0bd1a4
#define SELF		"/proc/self/exe"

enum call {
	INIT, ALLOC, FREE, THREAD, STATS, MOVE, RESUME, POPULATE, FILE_, UNMAP, NOTE,
	CALL, RETURN, UNKNOWN, MMAP_TABLE, MMAP_NOTES, MMAP_IDENTITY, MMAP_DOMAIN,
	MMAP_STACK, NR_CALLS,
};

static const char *const names[NR_CALLS] = {
	"INIT", "ALLOC", "FREE", "THREAD", "STATS", "MOVE", "RESUME", "POPULATE", "FILE", "UNMAP",
	"NOTE", "CALL", "RETURN", "an unknown call", "mmap of the table", "mmap of the notes",
	"mmap of the identity page", "mmap of a domain", "mmap of a stack",
};

/* What the open is to who calls. */
enum state { NEW, SECOND, READY, OTHERS, NR_STATES };

static const int expected[NR_CALLS][NR_STATES] = {
	/*                   NEW     SECOND  READY   OTHERS */
	[INIT]          = { 0,      EBUSY,  EBUSY,  EPERM },
	[ALLOC]         = { ENXIO,  ENXIO,  0,      EPERM },
	[FREE]          = { ENXIO,  ENXIO,  0,      EPERM },
	[THREAD]        = { ENXIO,  ENXIO,  0,      EPERM },
	[STATS]         = { 0,      0,      0,      EPERM },
	[MOVE]          = { ENXIO,  ENXIO,  0,      EPERM },
	[RESUME]        = { ENXIO,  ENXIO,  ENOENT, EPERM },
	[POPULATE]      = { ENXIO,  ENXIO,  0,      EPERM },
	[FILE_]         = { ENXIO,  ENXIO,  0,      EPERM },
	[UNMAP]         = { ENXIO,  ENXIO,  0,      EPERM },
	[NOTE]          = { ENXIO,  ENXIO,  0,      EPERM },
	[CALL]          = { ENXIO,  ENXIO,  0,      EPERM },
	[RETURN]        = { ENXIO,  ENXIO,  EACCES, EPERM },
	[UNKNOWN]       = { ENOTTY, ENOTTY, ENOTTY, EPERM },
	[MMAP_TABLE]    = { ENXIO,  ENXIO,  0,      EPERM },
	[MMAP_NOTES]    = { ENXIO,  ENXIO,  0,      EPERM },
	[MMAP_IDENTITY] = { ENXIO,  ENXIO,  0,      EPERM },
	[MMAP_DOMAIN]   = { ENXIO,  ENXIO,  0,      EPERM },
	[MMAP_STACK]    = { ENXIO,  ENXIO,  0,      EPERM },
};

/* On a ready open that has no domain yet. */
static const int expected_empty[NR_CALLS] = {
	[INIT] = EBUSY, [FREE] = ENOENT, [MOVE] = ENOENT, [RESUME] = ENOENT, [POPULATE] = EINVAL,
	[FILE_] = ENOENT, [UNMAP] = EPERM, [NOTE] = ENOENT, [CALL] = ENOENT,
	[RETURN] = EACCES, [UNKNOWN] = ENOTTY, [MMAP_DOMAIN] = ENOENT,
};

/* What a cell of that table plays with. */
static struct epk_device dev;		/* the ready one, if there is one */
static int id;				/* its domain, or what might be its ID */
static volatile uint32_t *page;		/* that domain's, or ordinary memory */
static char where[80];

static bool check(bool ok, int line, const char *what)
{
	return epk_check(ok, __FILE__, line, what, where);
}

#define CELL(condition)	check(condition, __LINE__, #condition)

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
	CELL(handled == before + 1);
	usleep(1);
	sched_yield();
	raise(SIGUSR1);
	CELL(handled == before + 2);
}

static int call_init(int fd)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };

	if (ioctl(fd, EPK_IOC_INIT, &init))
		return -1;
	dev.init = init;
	return 0;
}

static int call_file(int fd)
{
	int file = memfd_create("state", 0), ret, saved;
	struct epk_file arg = { .len = 4096, .id = id, .fd = file, .prot = PROT_READ };

	CELL(file >= 0 && !ftruncate(file, 4096));
	ret = ioctl(fd, EPK_IOC_FILE, &arg);
	saved = errno;
	close(file);
	errno = saved;
	return ret;
}

static int call_mmap(int fd, size_t len, int prot, uint64_t offset)
{
	return mmap(NULL, len, prot, MAP_SHARED, fd, offset) == MAP_FAILED ? -1 : 0;
}

/* Its errno, 0 if it succeeds. */
static int make(enum call call, int fd)
{
	struct epk_domains domains = { .num = 1, .ids = (uintptr_t)&(int){ id } };
	struct epk_range range = { .addr = (uintptr_t)page, .len = 4096 };
	struct epk_move move = { .id = id, .ept = epk_device_is_alone(&dev) ? EPK_EPT_ANY : 3 };
	struct epk_moves moves = { .num = 1, .moves = (uintptr_t)&move };
	struct epk_resume resume = { .ept = 0, .pkru = EPK_PKRU_DENY_ALL };
	struct epk_note note = { .id = id, .addr = (uintptr_t)page };
	struct epk_stats stats;
	int ret = -1;

	errno = 0;
	switch (call) {
	case INIT:
		ret = call_init(fd);
		break;
	case ALLOC:
		ret = ioctl(fd, EPK_IOC_ALLOC, &domains);
		break;
	case FREE:
		ret = ioctl(fd, EPK_IOC_FREE, &domains);
		break;
	case THREAD:
		ret = ioctl(fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS);
		break;
	case STATS:
		ret = ioctl(fd, EPK_IOC_STATS, &stats);
		break;
	case MOVE:
		ret = ioctl(fd, EPK_IOC_MOVE, &moves);
		break;
	case RESUME:
		ret = ioctl(fd, EPK_IOC_RESUME, &resume);
		break;
	case POPULATE:
		ret = ioctl(fd, EPK_IOC_POPULATE, &range);
		break;
	case FILE_:
		ret = call_file(fd);
		break;
	case UNMAP:
		ret = ioctl(fd, EPK_IOC_UNMAP, &range);
		break;
	case NOTE:
		ret = ioctl(fd, EPK_IOC_NOTE, &note);
		break;
	case CALL:
		ret = ioctl(fd, EPK_IOC_CALL, EPK_BEGIN(id, PROT_READ));
		break;
	case RETURN:
		ret = ioctl(fd, EPK_IOC_RETURN, 0);
		break;
	case UNKNOWN:
		ret = ioctl(fd, _IO('E', 0xfe), 0);
		break;
	case MMAP_TABLE:
		ret = call_mmap(fd, (1ul << EPK_ID_INDEX_BITS) * sizeof(struct epk_entry), PROT_READ,
				EPK_MMAP_TABLE);
		break;
	case MMAP_NOTES:
		ret = call_mmap(fd, (1ul << EPK_ID_INDEX_BITS) * sizeof(uint64_t), PROT_READ,
				EPK_MMAP_NOTES);
		break;
	case MMAP_IDENTITY:
		ret = call_mmap(fd, 4096, PROT_READ, EPK_MMAP_IDENTITY);
		break;
	case MMAP_DOMAIN:
		ret = call_mmap(fd, 4096, PROT_READ | PROT_WRITE, EPK_MMAP_DOMAIN(id));
		break;
	case MMAP_STACK:
		ret = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, EPK_MMAP_STACK) ==
		      MAP_FAILED ? -1 : 0;
		break;
	case NR_CALLS:
		break;
	}
	return ret ? errno : 0;
}

static void make_checked(enum call call, enum state state, int fd)
{
	int got = make(call, fd);
	char text[120];

	snprintf(text, sizeof(text), "%s: %s, not %s%s", names[call], strerrorname_np(got) ?: "0",
		 strerrorname_np(expected[call][state]) ?: "0", where);
	epk_check(got == expected[call][state], __FILE__, __LINE__, text, "");
	disturb();
}

/* Before there is a context: ordinary memory, and an ID that the first domain would have. */
static void no_domain(void)
{
	id = 1 | 1 << EPK_ID_INDEX_BITS;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	*page = ORDINARY;
}

static void hold(void)
{
	epk_device_enter(&dev, id);
}

static void make_domain(void)
{
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	page = epk_device_map(&dev, id, 4096);
	REQUIRE(page != MAP_FAILED);
	/* Not registered, it may lose the CPU, and with it the key. */
	do
		hold();
	while (EPK_TRY(*page = SECRET));
	epk_device_enter(&dev, 0);
}

/* That it works at all: held through a signal and a sleep. */
static void works(void)
{
	volatile uint32_t value = 0;

	CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	disturb();
	CELL(EPK_TRY(value = *page) == 0);
	CELL(value == SECRET);
	epk_device_enter(&dev, 0);
	CELL(EPK_TRY(value = *page) == SIGSEGV);
}

/* The rest of an open's life, whatever was tried too early. */
static void goes_on(int fd, bool ready)
{
	CELL(*page == ORDINARY);
	munmap((void *)page, 4096);
	dev.fd = fd;
	if (!ready)
		CELL(call_init(fd) == 0);
	dev.table = mmap(NULL, (1ul << EPK_ID_INDEX_BITS) * sizeof(struct epk_entry), PROT_READ,
			 MAP_SHARED, fd, EPK_MMAP_TABLE);
	REQUIRE(dev.table != MAP_FAILED);
	make_domain();
	works();
}

static int open_new(void)
{
	int fd = open(EPK_DEVICE, O_RDWR);

	REQUIRE(fd >= 0);
	return fd;
}

static void open_ready(void)
{
	/* Without O_CLOEXEC, for who executes something. */
	epk_device_open(&dev);
	fcntl(dev.fd, F_SETFD, 0);
	make_domain();
}

static void cell_new(enum call call)
{
	int fd = open_new();

	no_domain();
	make_checked(call, NEW, fd);
	goes_on(fd, call == INIT);
}

/* A start that fails leaves it as it was. */
static void cell_failed(enum call call)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };
	int fd = open_new();

	no_domain();
	CELL(pkey_free(7) == 0);
	CELL(ioctl(fd, EPK_IOC_INIT, &init) == -1 && errno == EINVAL);
	disturb();
	CELL(pkey_alloc(0, PKEY_DISABLE_ACCESS) == 7);
	make_checked(call, NEW, fd);
	goes_on(fd, call == INIT);
}

static void cell_second(enum call call)
{
	int fd;

	open_ready();
	fd = open_new();
	make_checked(call, SECOND, fd);
	works();
	close(fd);
	works();
}

/* The first one is gone, and with it all that could stand in the way. */
static void cell_after(enum call call)
{
	int fd;

	open_ready();
	fd = open_new();
	CELL(epk_device_unmap(&dev, page, 4096) == 0);
	CELL(epk_device_free(&dev, 1, &id) == 0);
	CELL(epk_device_unmap(&dev, dev.table, dev.init.table_bytes) == 0);
	CELL(epk_device_unmap(&dev, dev.identity, 4096) == 0);
	close(dev.fd);
	no_domain();
	make_checked(call, NEW, fd);
	goes_on(fd, call == INIT);
}

static void cell_ready(enum call call)
{
	open_ready();
	make_checked(call, READY, dev.fd);
	/* What FREE and UNMAP were to do is done. */
	if (call == FREE || call == UNMAP)
		make_domain();
	works();
}

/* Registered, and holding it. */
static void cell_held(enum call call)
{
	open_ready();
	CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	make_checked(call, READY, dev.fd);
	if (call == FREE || call == UNMAP)
		make_domain();
	works();
}

static void *by_thread(void *call)
{
	make_checked((intptr_t)call, READY, dev.fd);
	return NULL;
}

static void cell_thread(enum call call)
{
	pthread_t thread;

	open_ready();
	CELL(pthread_create(&thread, NULL, by_thread, (void *)(intptr_t)call) == 0);
	pthread_join(thread, NULL);
	if (call == FREE || call == UNMAP)
		make_domain();
	works();
}

/* Makes a call over and over, until it is another state's to answer. */
struct maker {
	enum call call;
	int fd, before, after, other;
	volatile bool stop;
	pthread_barrier_t barrier;
};

static void *by_maker(void *arg)
{
	struct maker *maker = arg;

	pthread_barrier_wait(&maker->barrier);
	do
		maker->other = make(maker->call, maker->fd);
	while (maker->other == maker->before && maker->before != maker->after && !maker->stop);
	disturb();
	return NULL;
}

static void maker_start(struct maker *maker, pthread_t *thread)
{
	pthread_barrier_init(&maker->barrier, NULL, 2);
	CELL(pthread_create(thread, NULL, by_maker, maker) == 0);
	pthread_barrier_wait(&maker->barrier);
}

/* With two threads it takes a while. */
static void cell_starting(enum call call)
{
	struct maker maker = {
		.call = call, .fd = open_new(), .before = expected[call][NEW],
		.after = expected_empty[call],
	};
	pthread_t thread;
	int ret;

	no_domain();
	/* One of the two. */
	if (call == INIT)
		maker.before = maker.after;
	maker_start(&maker, &thread);
	ret = call_init(maker.fd) ? errno : 0;
	pthread_join(thread, NULL);
	CELL(call == INIT ? (ret ?: EBUSY) == EBUSY && ret + maker.other == EBUSY : !ret);
	CELL(call == INIT || maker.other == maker.after);
	goes_on(maker.fd, true);
}

/* While a thread runs a virtual CPU, no start comes to its end. */
static void *by_vcpu(void *flags)
{
	struct epk_raw_vcpu vcpu = { .flags = (uintptr_t)flags };
	int raw = open(EPK_RAW_DEVICE, O_RDWR);

	REQUIRE(raw >= 0);
	CELL(ioctl(raw, EPK_RAW_VCPU, &vcpu) == 0);
	close(raw);
	return NULL;
}

/* Each start gets further than to what makes an open ready, and is undone. */
static void cell_undone(enum call call)
{
	static volatile uint32_t flags[2];
	struct maker maker = { .call = call, .fd = open_new(), .before = expected[call][NEW] };
	pthread_t vcpu, thread;
	int i;

	no_domain();
	if (call == INIT)
		maker.before = EBUSY;
	/* Nothing but what a new open answers ends it here. */
	maker.after = -1;
	CELL(pthread_create(&vcpu, NULL, by_vcpu, (void *)flags) == 0);
	while (!flags[0])
		usleep(100);
	maker_start(&maker, &thread);
	for (i = 0; i < STARTS; i++)
		CELL(call_init(maker.fd) == -1 && errno == EBUSY);
	maker.stop = true;
	pthread_join(thread, NULL);
	CELL(maker.other == maker.before);
	flags[1] = 1;
	pthread_join(vcpu, NULL);
	goes_on(maker.fd, false);
}

/* Its mappings go on, and who holds the domain still does. */
static void cell_closing(enum call call)
{
	struct maker maker = { .call = call, .before = expected[call][READY], .after = EBADF };
	volatile uint32_t value = 0;
	pthread_t thread;

	open_ready();
	CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	/* These change what the next one answers. */
	if (call == ALLOC || call == FREE || call == NOTE || call >= MMAP_TABLE)
		maker.after = maker.before;
	/* Its memfd may have that number by then. */
	if (call == FILE_)
		maker.after = ENOTTY;
	maker.fd = dev.fd;
	hold();
	maker_start(&maker, &thread);
	close(dev.fd);
	pthread_join(thread, NULL);
	disturb();
	CELL(maker.other == maker.after || maker.other == EBADF);
	if (call != FREE && call != UNMAP)
		CELL(EPK_TRY(value = *page) == 0 && value == SECRET);
	epk_device_enter(&dev, 0);
	CELL(EPK_TRY(value = *page) != 0);
}

/* In a child, what was the parent's; the parent finds it as it was. */
static pid_t fork_call(enum call call, int fd)
{
	pid_t pid = fork();

	if (!pid) {
		no_domain();
		make_checked(call, OTHERS, fd);
		CELL(*page == ORDINARY);
		_exit(epk_failures != 0);
	}
	return pid;
}

static void wait_for(pid_t pid)
{
	int status = -1;

	CELL(waitpid(pid, &status, 0) == pid);
	CELL(status == 0);
}

static void cell_fork_new(enum call call)
{
	int fd = open_new();

	wait_for(fork_call(call, fd));
	no_domain();
	goes_on(fd, false);
}

static void cell_fork_ready(enum call call)
{
	open_ready();
	wait_for(fork_call(call, dev.fd));
	works();
}

/* The child has one of its own, which is not the parent's either. */
static void cell_fork_both(enum call call)
{
	int parents, status = -1;
	pid_t pid;

	open_ready();
	parents = dev.fd;
	pid = fork();
	if (!pid) {
		struct epk_device own;

		epk_device_open(&own);
		dev = own;
		make_domain();
		make_checked(call, OTHERS, parents);
		works();
		_exit(epk_failures != 0);
	}
	CELL(waitpid(pid, &status, 0) == pid && !status);
	works();
}

static int executed(char **argv)
{
	enum call call = atoi(argv[2]);
	int fd = atoi(argv[3]);

	snprintf(where, sizeof(where), ", after exec");
	epk_try_init();
	signal(SIGUSR1, handler);
	no_domain();
	make_checked(call, OTHERS, fd);
	CELL(*page == ORDINARY);
	/* The program that is gone is in nobody's way. */
	epk_all_pkeys();
	close(fd);
	goes_on(open_new(), false);
	return epk_failures != 0;
}

static void exec_call(enum call call, int fd)
{
	char number[16], descriptor[16];

	snprintf(number, sizeof(number), "%d", call);
	snprintf(descriptor, sizeof(descriptor), "%d", fd);
	fflush(stdout);
	execl(SELF, "state", "executed", number, descriptor, NULL);
	CELL(!"execl");
}

static void cell_exec_new(enum call call)
{
	exec_call(call, open_new());
}

static void cell_exec_ready(enum call call)
{
	open_ready();
	CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	exec_call(call, dev.fd);
}

static void send_fd(int to, int fd)
{
	char space[CMSG_SPACE(sizeof(int))] = { 0 }, c = 0;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	CELL(sendmsg(to, &msg, 0) == 1);
}

static int receive_fd(int from)
{
	char space[CMSG_SPACE(sizeof(int))], c;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	int fd;

	REQUIRE(recvmsg(from, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* Sent to a process that never had anything to do with it. */
static void sent(enum call call, bool ready)
{
	int ends[2], fd;
	pid_t pid;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	pid = fork();
	if (!pid) {
		fd = receive_fd(ends[1]);
		no_domain();
		make_checked(call, OTHERS, fd);
		close(fd);
		goes_on(open_new(), false);
		_exit(epk_failures != 0);
	}
	if (ready)
		open_ready();
	fd = ready ? dev.fd : open_new();
	send_fd(ends[0], fd);
	wait_for(pid);
	if (ready) {
		works();
	} else {
		no_domain();
		goes_on(fd, false);
	}
}

static void cell_sent_new(enum call call)
{
	sent(call, false);
}

static void cell_sent_ready(enum call call)
{
	sent(call, true);
}

static const struct {
	const char *name;
	void (*cell)(enum call call);
} states[] = {
	{ "on a second open", cell_second },
	{ "on a ready open", cell_ready },
	{ "on a ready open, its domain held", cell_held },
	{ "on a ready open, by another thread", cell_thread },
	{ "on an open that is started meanwhile", cell_starting },
	{ "on an open whose start is undone meanwhile", cell_undone },
	{ "on a ready open that is closed meanwhile", cell_closing },
	{ "on a new open, by a forked child", cell_fork_new },
	{ "on a ready open, by a forked child", cell_fork_ready },
	{ "on its parent's, by a child that has one", cell_fork_both },
	{ "on a new open that was executed over", cell_exec_new },
	{ "on a ready open that was executed over", cell_exec_ready },
	{ "on a new open, received", cell_sent_new },
	{ "on a ready open, received", cell_sent_ready },
	/* Last: these are what once ended it all. */
	{ "on an open whose start failed", cell_failed },
	{ "on a second open when the first is gone", cell_after },
	{ "on a new open", cell_new },
};

static void run_cell(unsigned int state, enum call call)
{
	int status = -1;
	pid_t pid;

	snprintf(where, sizeof(where), ", %s %s", names[call], states[state].name);
	pid = fork();
	if (!pid) {
		epk_failures = 0;
		epk_try_init();
		signal(SIGUSR1, handler);
		epk_all_pkeys();
		states[state].cell(call);
		_exit(epk_failures != 0);
	}
	REQUIRE(pid > 0);
	CELL(waitpid(pid, &status, 0) == pid);
	CELL(status == 0);
}

/* Which takes minutes in an emulator that counts instructions. */
static bool races(unsigned int state)
{
	void (*cell)(enum call call) = states[state].cell;

	return cell == cell_starting || cell == cell_undone || cell == cell_closing;
}

static bool module_is_alone(void)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		epk_device_open(&dev);
		_exit(epk_device_is_alone(&dev));
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	unsigned int state;
	enum call call;
	bool alone;

	if (argc == 4 && !strcmp(argv[1], "executed"))
		return executed(argv);
	if (access(EPK_DEVICE, F_OK))
		EPK_SKIP("no " EPK_DEVICE);
	alone = module_is_alone();
	for (state = 0; state < sizeof(states) / sizeof(*states); state++) {
		if (races(state) && !alone)
			continue;
		for (call = 0; call < NR_CALLS; call++)
			run_cell(state, call);
	}
	return epk_test_result();
}
