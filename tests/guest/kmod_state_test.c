// SPDX-License-Identifier: MIT
/*
 * Which call may come when, and from whom: each call on an open of /dev/epk, and each fault, in each
 * state that it can be in, against one table.  What is refused has changed nothing, and
 * what a call may have left half-made shows when the thread then handles a signal, leaves
 * the CPU, and goes on with whatever it has not done yet.
 */
#include "state_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "raw/epk_raw.h"

#define SELF		"/proc/self/exe"

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
	/* Not where a parent has what faults are about. */
	page = mmap((void *)(1ul << 44), 4096, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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

static void map_untouched(void)
{
	char *notes = map_table(dev.fd, TABLE_BYTES, EPK_MMAP_NOTES);

	REQUIRE(notes != MAP_FAILED);
	untouched.notes = (uint32_t *)(notes + TABLE_BYTES - 4096);
	untouched.table = (uint32_t *)((char *)dev.table + TABLE_BYTES - 4096);
	untouched.identity = (uint32_t *)dev.identity;
	untouched.domain = epk_device_map(&dev, id, 4096);
	REQUIRE(untouched.domain != MAP_FAILED);
}

/* That it works at all: held through a signal and a sleep. */
static void works(void)
{
	volatile uint32_t value = 0;

	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	disturb();
	CHECK_CELL(EPK_TRY(value = *page) == 0);
	CHECK_CELL(value == SECRET);
	epk_device_enter(&dev, 0);
	CHECK_CELL(EPK_TRY(value = *page) == SIGSEGV);
}

/* The rest of an open's life, whatever was tried too early. */
static void goes_on(int fd, bool ready)
{
	CHECK_CELL(*page == ORDINARY);
	munmap((void *)page, 4096);
	dev.fd = fd;
	if (!ready)
		CHECK_CELL(call_init(fd) == 0);
	dev.table = map_table(fd, TABLE_BYTES, EPK_MMAP_TABLE);
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
	map_untouched();
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
	CHECK_CELL(pkey_free(7) == 0);
	CHECK_CELL(ioctl(fd, EPK_IOC_INIT, &init) == -1 && errno == EINVAL);
	disturb();
	CHECK_CELL(pkey_alloc(0, PKEY_DISABLE_ACCESS) == 7);
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
	CHECK_CELL(epk_device_unmap(&dev, page, 4096) == 0);
	CHECK_CELL(epk_device_unmap(&dev, untouched.domain, 4096) == 0);
	CHECK_CELL(epk_device_free(&dev, 1, &id) == 0);
	CHECK_CELL(epk_device_unmap(&dev, (char *)untouched.notes + 4096 - TABLE_BYTES, TABLE_BYTES) == 0);
	CHECK_CELL(epk_device_unmap(&dev, dev.table, dev.init.table_bytes) == 0);
	CHECK_CELL(epk_device_unmap(&dev, dev.identity, 4096) == 0);
	close(dev.fd);
	no_domain();
	make_checked(call, NEW, fd);
	goes_on(fd, call == INIT);
}

/* What these were to do is done. */
static bool ends_it(enum call call)
{
	return call == FREE || call == UNMAP || call == RESERVE || call == NOTE_PRIVATE;
}

static void cell_ready(enum call call)
{
	open_ready();
	make_checked(call, READY, dev.fd);
	if (ends_it(call))
		make_domain();
	works();
}

/* Registered, and holding it. */
static void cell_held(enum call call)
{
	open_ready();
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	make_checked(call, HOLDS, dev.fd);
	if (ends_it(call))
		make_domain();
	works();
}

static void open_private(void)
{
	struct epk_note note = { .flags = EPK_NOTE_PRIVATE };

	open_ready();
	note.id = id;
	note.addr = (uintptr_t)page;
	REQUIRE(ioctl(dev.fd, EPK_IOC_NOTE, &note) == 0);
}

/* Another is held as ever. */
static void private_works(void)
{
	make_domain();
	works();
}

static void cell_private(enum call call)
{
	open_private();
	make_checked(call, PRIVATE, dev.fd);
	CHECK_CELL(EPK_TRY((void)*page) != 0);
	private_works();
}

/* As a gate holds it. */
static void cell_mine(enum call call)
{
	const volatile uint64_t *notes;
	volatile uint32_t value = 0;
	uint64_t note;

	open_private();
	notes = map_table(dev.fd, TABLE_BYTES, EPK_MMAP_NOTES);
	REQUIRE(notes != MAP_FAILED);
	note = notes[EPK_ID_INDEX(id)];
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	epk_device_goto(&dev, EPK_NOTE_EPT(note));
	epk_wrpkru(EPK_PKRU_ALLOW(EPK_NOTE_PKEY(note)));
	CHECK_CELL(EPK_TRY(value = *page) == 0 && value == SECRET);
	make_checked(call, MINE, dev.fd);
	if (call == FREE || call == UNMAP || call == RESERVE || call == END || call == CALL_NONE ||
	    call == RETURN)
		CHECK_CELL(EPK_TRY(value = *page) != 0);
	else
		CHECK_CELL(EPK_TRY(value = *page) == 0 && value == SECRET);
	private_works();
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
	CHECK_CELL(pthread_create(&thread, NULL, by_thread, (void *)(intptr_t)call) == 0);
	pthread_join(thread, NULL);
	if (ends_it(call))
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
	CHECK_CELL(pthread_create(thread, NULL, by_maker, maker) == 0);
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
	CHECK_CELL(call == INIT ? (ret ?: EBUSY) == EBUSY && ret + maker.other == EBUSY : !ret);
	CHECK_CELL(call == INIT || maker.other == maker.after);
	goes_on(maker.fd, true);
}

/* While a thread runs a virtual CPU, no start comes to its end. */
static void *by_vcpu(void *flags)
{
	struct epk_raw_vcpu vcpu = { .flags = (uintptr_t)flags };
	int raw = open(EPK_RAW_DEVICE, O_RDWR);

	REQUIRE(raw >= 0);
	CHECK_CELL(ioctl(raw, EPK_RAW_VCPU, &vcpu) == 0);
	close(raw);
	return NULL;
}

/* The start gets further than to what makes an open ready, and is undone. */
static void cell_undone(enum call call)
{
	static volatile uint32_t flags[2];
	struct maker maker = { .call = call, .fd = open_new(), .before = expected[call][NEW] };
	pthread_t vcpu, thread;

	no_domain();
	if (call == INIT)
		maker.before = EBUSY;
	/* Nothing but what a new open answers ends it here. */
	maker.after = -1;
	CHECK_CELL(pthread_create(&vcpu, NULL, by_vcpu, (void *)flags) == 0);
	while (!flags[0])
		usleep(100);
	maker_start(&maker, &thread);
	CHECK_CELL(call_init(maker.fd) == -1 && errno == EBUSY);
	maker.stop = true;
	pthread_join(thread, NULL);
	CHECK_CELL(maker.other == maker.before);
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
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	/* These change what the next one answers. */
	if (call == ALLOC || call == FREE || call == RESERVE || call == NOTE ||
	    call == NOTE_PRIVATE || call == GATES || call == BEGIN || call >= MMAP_TABLE)
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
	CHECK_CELL(maker.other == maker.after || maker.other == EBADF);
	if (!ends_it(call))
		CHECK_CELL(EPK_TRY(value = *page) == 0 && value == SECRET);
	if (call != FREE && call != NOTE_PRIVATE)
		CHECK_CELL(touch(untouched.domain) == 0);
	epk_device_enter(&dev, 0);
	CHECK_CELL(EPK_TRY(value = *page) != 0);
}

/* In a child, what was the parent's; the parent finds it as it was. */
static pid_t fork_call(enum call call, int fd)
{
	pid_t pid = fork();

	if (!pid) {
		CHECK_CELL(epk_count_mappings() == 0);
		no_domain();
		make_checked(call, OTHERS, fd);
		CHECK_CELL(*page == ORDINARY);
		_exit(epk_failures != 0);
	}
	return pid;
}

static void wait_for(pid_t pid)
{
	int status = -1;

	CHECK_CELL(waitpid(pid, &status, 0) == pid);
	CHECK_CELL(status == 0);
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
		map_untouched();
		make_checked(call, is_fault(call) ? READY : OTHERS, parents);
		works();
		_exit(epk_failures != 0);
	}
	CHECK_CELL(waitpid(pid, &status, 0) == pid && !status);
	works();
}

static int executed(char **argv)
{
	enum call call = atoi(argv[2]);
	int fd = atoi(argv[3]);

	snprintf(where, sizeof(where), ", after exec");
	epk_try_init();
	signal(SIGUSR1, handler);
	CHECK_CELL(epk_count_mappings() == 0);
	no_domain();
	make_checked(call, OTHERS, fd);
	CHECK_CELL(*page == ORDINARY);
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
	CHECK_CELL(!"execl");
}

static void cell_exec_new(enum call call)
{
	exec_call(call, open_new());
}

static void cell_exec_ready(enum call call)
{
	open_ready();
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	exec_call(call, dev.fd);
}

static void *by_executer(void *call)
{
	exec_call((intptr_t)call, dev.fd);
	return NULL;
}

/* The first thread ends in the middle of it. */
static void cell_exec_thread(enum call call)
{
	pthread_t thread;

	open_ready();
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	CHECK_CELL(pthread_create(&thread, NULL, by_executer, (void *)(intptr_t)call) == 0);
	pthread_join(thread, NULL);
}

/* Another process with the same memory. */
static void vfork_call(enum call call, enum state state, int fd)
{
	pid_t pid = vfork();

	if (!pid) {
		make_checked(call, state, fd);
		_exit(0);
	}
	wait_for(pid);
}

static void cell_vfork_new(enum call call)
{
	int fd = open_new();

	no_domain();
	vfork_call(call, NEW, fd);
	goes_on(fd, call == INIT);
}

static void cell_vfork_ready(enum call call)
{
	open_ready();
	CHECK_CELL(ioctl(dev.fd, EPK_IOC_THREAD, 0) == 0);
	hold();
	vfork_call(call, READY, dev.fd);
	if (ends_it(call))
		make_domain();
	works();
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
	CHECK_CELL(sendmsg(to, &msg, 0) == 1);
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

/* The process that opened it is gone, and its memory. */
static void orphan(enum call call, bool ready)
{
	int ends[2], fd;
	pid_t pid;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	pid = fork();
	if (!pid) {
		if (ready)
			open_ready();
		send_fd(ends[0], ready ? dev.fd : open_new());
		_exit(epk_failures != 0);
	}
	wait_for(pid);
	fd = receive_fd(ends[1]);
	no_domain();
	make_checked(call, OTHERS, fd);
	close(fd);
	goes_on(open_new(), false);
}

static void cell_orphan_new(enum call call)
{
	orphan(call, false);
}

static void cell_orphan_ready(enum call call)
{
	orphan(call, true);
}

static const struct {
	const char *name;
	void (*cell)(enum call call);
	/* Who calls is none who may: that is told before what he wants. */
	bool others;
} states[] = {
	{ "on a second open", cell_second, false },
	{ "on a ready open", cell_ready, false },
	{ "on a ready open, its domain held", cell_held, false },
	{ "on a ready open, its domain private", cell_private, false },
	{ "on a ready open, its private domain held", cell_mine, false },
	{ "on a ready open, by another thread", cell_thread, false },
	{ "on an open that is started meanwhile", cell_starting, false },
	{ "on an open whose start is undone meanwhile", cell_undone, false },
	{ "on a ready open that is closed meanwhile", cell_closing, false },
	{ "on a new open, by a forked child", cell_fork_new, true },
	{ "on a ready open, by a forked child", cell_fork_ready, true },
	{ "on its parent's, by a child that has one", cell_fork_both, true },
	{ "on a new open that was executed over", cell_exec_new, true },
	{ "on a ready open that was executed over", cell_exec_ready, true },
	{ "on a ready open that another thread executed over", cell_exec_thread, true },
	{ "on a new open, by a child of vfork", cell_vfork_new, true },
	{ "on a ready open, by a child of vfork", cell_vfork_ready, false },
	{ "on a new open whose process is gone", cell_orphan_new, true },
	{ "on a ready open whose process is gone", cell_orphan_ready, true },
	{ "on a new open, received", cell_sent_new, true },
	{ "on a ready open, received", cell_sent_ready, true },
	/* Last: these are what once ended it all. */
	{ "on an open whose start failed", cell_failed, false },
	{ "on a second open when the first is gone", cell_after, false },
	{ "on a new open", cell_new, false },
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
	CHECK_CELL(waitpid(pid, &status, 0) == pid);
	CHECK_CELL(status == 0);
}

/* Which takes minutes in an emulator that counts instructions: there, some calls of each kind race. */
static bool takes_long(unsigned int state, enum call call)
{
	void (*cell)(enum call call) = states[state].cell;

	if (call == INIT || call == THREAD || call == BEGIN || call == MMAP_DOMAIN)
		return false;
	return cell == cell_starting || cell == cell_undone || cell == cell_closing;
}

/* They differ from another in their argument only. */
static bool is_variant(enum call call)
{
	return call == FOLLOW || call == NOTE_PRIVATE || call == COMPAT;
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
		for (call = 0; call < NR_CALLS; call++)
			if ((alone || !takes_long(state, call)) &&
			    !(states[state].others && is_variant(call)))
				run_cell(state, call);
		/* Who hears nothing for long takes the machine for stuck. */
		puts(states[state].name);
		fflush(stdout);
	}
	return epk_test_result();
}
