/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzer of /dev/epk does beyond calls on memory: signals with frames of its own,
 * debuggers, files that are handed on, others that share the memory, CPUs that come and go.
 * 0 if it was done, else it was refused.
 */
#ifndef KMOD_FUZZ_PROCESS_H
#define KMOD_FUZZ_PROCESS_H

#include "kmod_fuzz.h"

#include <elf.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "forge.h"
#include "uring.h"

/*
 * Signals.  Each is raised by the thread itself, in a handler too, and its handler ends in
 * one of these ways.
 */
enum ending {
	RETURNS,
	FORGES_KEYS,		/* in its own frame */
	FORGES_FRAME,		/* another one */
	CHANGES_STACK,		/* in its own frame */
	JUMPS,
	NR_ENDINGS
};

#define MAX_DEPTH	3

static __thread unsigned int depth;
static __thread sigjmp_buf arrivals[MAX_DEPTH + 1];
/* Keys that a handler had open when it jumped, by depth. */
static __thread uint32_t had[MAX_DEPTH + 1];
/* It jumped, from where it was. */
static __thread bool jumped[MAX_DEPTH + 1];
/* A frame was forged, after which no call returns. */
static __thread bool forgotten;

static void arrival(void)
{
	siglongjmp(arrivals[depth], 1);
}

/* Raise a signal: what was held is held again after it, or less. */
static __attribute__((noinline)) void interrupt(struct thread *t)
{
	const volatile struct kvm_epk_identity *identity = t->process->dev.identity;
	const volatile unsigned int level = depth;
	const volatile uint32_t keys = open_keys(), ept = identity->ept;
	const volatile struct thread before = *t;
	volatile bool returned = false;

	had[level] = 0;
	jumped[level] = false;
	if (!sigsetjmp(arrivals[level], 1)) {
		raise(SIGUSR2);
		returned = true;
	}
	depth = level;
	if (t->follows) {
		t->nr_rights = t->entered = 0;
		if (returned) {
			restore_rights(t, (const struct thread *)&before);
			t->by_hand = before.by_hand;
		} else {
			t->by_hand = jumped[level];
		}
	}
	if (t->follows && (returned || jumped[level])) {
		if (returned)
			count_add(&counts->restored);
	} else if (returned && t->registered) {
		if (open_keys() & ~keys)
			fail("a return opens keys", open_keys(), (void *)(uintptr_t)keys);
		if (open_keys() && identity->ept != ept)
			fail("a return opens keys elsewhere", identity->ept, NULL);
		if (open_keys() == keys && keys)
			count_add(&counts->restored);
	} else {
		if (open_keys() & ~had[level])
			fail("keys after no return", open_keys(), NULL);
		if (t->registered && identity->ept && !jumped[level])
			fail("an EPT after no return", identity->ept, NULL);
	}
	t->holds = before.holds;
	t->place = before.place;
	/* What goes on around it may have lost something, too. */
	t->may_lose |= before.may_lose || !returned;
	if (t->follows)
		recheck_rights(t);
	if (!returned) {
		leave(t);
		t->may_lose = depth;
	}
	recheck(t);
}

static void end_handler(struct thread *t, ucontext_t *uc)
{
	enum forge_abi abi = below(&t->dice, NR_FORGE_ABIS);

	switch ((enum ending)below(&t->dice, NR_ENDINGS)) {
	case FORGES_KEYS:
		*frame_pkru(uc) = 0;
		return;
	case FORGES_FRAME:
		if (!forge_can(abi))
			return;
		count_add(&counts->forged[abi]);
		forgotten = true;
		forge_return(abi, t->low, uc, 0, arrival);
	case CHANGES_STACK:
		*frame_pkru(uc) = 0;
		forgotten = true;
		forge_code(t->low, arrival);
		uc->uc_mcontext.gregs[REG_RSP] = (greg_t)FORGE_STACK(t->low);
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)FORGE_CODE(t->low);
		return;
	case JUMPS:
		jumped[depth] = true;
		had[depth] = open_keys();
		siglongjmp(arrivals[depth], 1);
	default:
		return;
	}
}

static void signal_handler(int sig, siginfo_t *info, void *context)
{
	struct thread *t = me;

	(void)sig;
	(void)info;
	count_add(&counts->signals);
	if (open_keys())
		fail("a handler has a key", epk_rdpkru(), NULL);
	if (t->signals && t->process->dev.identity->ept)
		fail("a handler is in an EPT", t->process->dev.identity->ept, NULL);
	t->holds = 0;
	t->nr_rights = t->entered = 0;
	t->by_hand = false;
	recheck(t);
	if (depth < MAX_DEPTH && one_in(&t->dice, 3)) {
		hold(t, some_id(t));
		depth++;
		interrupt(t);
		depth--;
	}
	end_handler(t, context);
}

/* On its own stack, or on one that is made for each signal. */
static int op_frame(struct thread *t)
{
	static __thread char stack[65536];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };

	if (one_in(&t->dice, 2))
		alt.ss_flags = SS_DISABLE;
	else if (one_in(&t->dice, 2))
		alt.ss_flags = (int)(1u << 31);	/* SS_AUTODISARM */
	sigaltstack(&alt, NULL);
	hold_some(t);
	interrupt(t);
	alt.ss_flags = SS_DISABLE;
	sigaltstack(&alt, NULL);
	return 0;
}

/* It holds one domain from now on, or with ID 0 nothing. */
static void is_called(struct thread *t, int id, int prot)
{
	t->holds = 0;
	t->nr_rights = t->entered = 0;
	t->may_lose = false;
	if (id)
		note_right(t, id, prot, false);
	recheck(t);
}

/* The caller holds what it held, or with EPK_RETURN_NOTHING nothing. */
static void has_returned(struct thread *t, const struct thread *before, bool nothing, bool failed)
{
	restore_rights(t, before);
	t->by_hand = false;
	t->may_lose = before->may_lose;
	if (nothing || failed)
		t->nr_rights = t->entered = 0;
	if (failed && (errno != EACCES || !forgotten))
		fail("a call does not return", errno, NULL);
	else if (!failed && forgotten)
		fail("a call returns after a frame was forged", nothing, NULL);
	else if (!failed)
		count_add(&counts->returned);
	/* Where there is no call, that changes nothing. */
	if (failed && nothing)
		leave(t);
	recheck(t);
}

/*
 * What is called holds one domain or nothing, and its caller afterwards what it held; not in a
 * handler.  Both calls of the module are made with one stack pointer.
 */
static __attribute__((noinline)) int call_something(struct thread *t, unsigned int level)
{
	int prot = one_in(&t->dice, 3) ? PROT_READ : PROT_READ | PROT_WRITE;
	int id = one_in(&t->dice, 6) ? 0 : some_id(t);
	bool private = is_private(t->process, id), nothing = one_in(&t->dice, 6);
	const struct thread before = *t;
	volatile unsigned int i;

	change_begins(t->process);
	i = ioctl(t->process->dev.fd, EPK_IOC_CALL, id ? EPK_BEGIN(id, prot) : 0) != 0;
	change_ends(t->process);
	if (i) {
		recheck(t);
		return 1;
	}
	if (private)
		fail("a private domain is called", id, NULL);
	is_called(t, id, prot);
	for (i = below(&t->dice, 6); i; i--) {
		if (one_in(&t->dice, 2))
			begin(t, some_id(t), PROT_READ);
		touch(t, some_page(&t->dice), one_in(&t->dice, 2));
	}
	if (level < 3 && one_in(&t->dice, 2))
		call_something(t, level + 1);
	if (one_in(&t->dice, 3))
		interrupt(t);
	i = ioctl(t->process->dev.fd, EPK_IOC_RETURN, nothing ? EPK_RETURN_NOTHING : 0) != 0;
	has_returned(t, &before, nothing, i);
	return 0;
}

static int op_call(struct thread *t)
{
	if (!t->follows || t->by_hand)
		return 1;
	t->holds = 0;
	forgotten = false;
	return call_something(t, 0);
}

/*
 * A debugger opens the keys of a thread, and reads and writes its memory.  It is a forked
 * child: the process itself cannot trace its own threads.
 */
static __attribute__((noreturn)) void be_debugger(struct thread *t, pid_t target)
{
	char state[8192] __attribute__((aligned(64)));
	struct iovec io = { state, sizeof(state) };
	char *page = some_page(&t->dice);
	int status, i;
	long word;

	if (ptrace(PTRACE_SEIZE, target, NULL, NULL) || ptrace(PTRACE_INTERRUPT, target, NULL, NULL))
		_exit(2);
	/* One that ends meanwhile does not stop. */
	for (i = 0; waitpid(target, &status, __WALL | WNOHANG) == 0; i++) {
		if (i == 200)
			_exit(2);
		usleep(1000);
	}
	if (!WIFSTOPPED(status))
		_exit(2);
	if (!ptrace(PTRACE_GETREGSET, target, NT_X86_XSTATE, &io)) {
		*(uint32_t *)(state + pkru_offset()) = 0;
		/* The state says which of its parts count. */
		*(uint64_t *)(state + 512) |= 1 << 9;
		ptrace(PTRACE_SETREGSET, target, NT_X86_XSTATE, &io);
	}
	for (i = 0; i < 4; i++) {
		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, target, page, NULL);
		if (!errno && word)
			_exit(1);
		if (!ptrace(PTRACE_POKEDATA, target, page, (void *)0xbadul))
			_exit(1);
		page = some_page(&t->dice);
	}
	ptrace(PTRACE_DETACH, target, NULL, NULL);
	_exit(0);
}

static int op_debug(struct thread *t)
{
	pid_t target = t->process->tids[below(&t->dice, NR_THREADS)], pid;
	int status;

	if (!target)
		return 1;
	leave(t);
	__atomic_fetch_add(&t->process->debuggers, 1, __ATOMIC_SEQ_CST);
	pid = fork();
	if (!pid)
		be_debugger(t, target);
	if (pid < 0)
		return 1;
	status = status_of(pid);
	if (status != 0 && status != 2)
		fail("a debugger has something", status, NULL);
	recheck(t);
	return status;
}

/*
 * What the kernel copies for a thread that holds nothing, and what it has others copy, is
 * never domain memory.  Ordinary memory in its place is zero.
 */
enum copier { BY_SPLICE, BY_MEM, BY_PIPE, BY_VECTOR, BY_URING, BY_POLLING_URING, NR_COPIERS };

static int copy_by(struct thread *t, enum copier copier, int pipe_fds[2], char *page)
{
	unsigned int flags = copier == BY_POLLING_URING ? IORING_SETUP_SQPOLL : 0;
	struct iovec from[2] = { { page, 8 }, { some_page(&t->dice), 8 } };
	struct uring ring;
	uint64_t word = 0x66;
	int fd, ret;

	switch (copier) {
	case BY_PIPE:
		return write(pipe_fds[1], page, 8);
	case BY_SPLICE:
		return vmsplice(pipe_fds[1], from, 2, 0);
	case BY_VECTOR:
		return writev(pipe_fds[1], from, 2);
	case BY_MEM:
		fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		ret = pread(fd, &word, 8, (uintptr_t)page);
		if (ret == 8)
			ret = write(pipe_fds[1], &word, 8);
		if (pwrite(fd, &word, 8, (uintptr_t)page) > 0)
			fail("/proc/self/mem writes", word, page);
		close(fd);
		return ret;
	default:
		/* Another may have it in hand before anything is held. */
		if (uring_open(&ring, flags))
			return -1;
		if (flags || one_in(&t->dice, 2))
			hold(t, some_id(t));
		ret = uring_write(&ring, pipe_fds[1], page, 8, IOSQE_ASYNC);
		leave(t);
		uring_close(&ring);
		return ret;
	}
}

static int op_copy(struct thread *t)
{
	enum copier last = !counts->kernel_has_keys ? BY_PIPE :
			   one_in(&t->dice, 8) ? NR_COPIERS : BY_URING;
	enum copier copier = below(&t->dice, last);
	char *page = some_page(&t->dice);
	uint64_t words[2] = { 0 };
	int fds[2], ret;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return 1;
	leave(t);
	ret = copy_by(t, copier, fds, page);
	if (ret > 0 && read(fds[0], words, sizeof(words)) > 0 && (words[0] | words[1]))
		fail("the kernel copies", words[0] | words[1], page);
	if (ret > 0)
		count_add(&counts->zeros);
	close(fds[0]);
	close(fds[1]);
	return ret <= 0;
}

/* Futexes on domain memory, in another EPT than the thread is in, or in that.  No word is 0x12345. */
static int op_futex(struct thread *t)
{
	/* FUTEX_OP_ADD of 0, compared with 0 */
	const uint32_t nothing = 1u << 28;
	const int flag = one_in(&t->dice, 4) ? 0 : FUTEX_PRIVATE_FLAG;
	const struct timespec soon = { .tv_nsec = 1000000 };
	char *one = hold_some(t), *two = one_in(&t->dice, 3) ? one + 8 : some_page(&t->dice);

	switch (below(&t->dice, 4)) {
	case 0:
		return syscall(SYS_futex, one, FUTEX_WAKE_OP | flag, 1, 1, two, nothing) < 0;
	case 1:
		return syscall(SYS_futex, one, FUTEX_CMP_REQUEUE | flag, 1, 1, two, 0x12345) < 0;
	case 2:
		return syscall(SYS_futex, one, FUTEX_CMP_REQUEUE_PI | flag, 1, 1, two, 0x12345) < 0;
	default:
		return syscall(SYS_futex, one, FUTEX_WAIT | flag, 0x12345, &soon, NULL, 0) < 0;
	}
}

/* What userfaultfd would put into memory is no word of ours. */
static int op_uffd(struct thread *t)
{
	static const char junk[PAGE] __attribute__((aligned(4096))) = { 0x66 };
	struct uffdio_api api = { .api = UFFD_API };
	char *page = some_page(&t->dice);
	struct uffdio_register range = {
		.range = { (uintptr_t)page, PAGE * (1 + below(&t->dice, 4)) },
		.mode = 1 + below(&t->dice, 7),
	};
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page, .src = (uintptr_t)junk, .len = PAGE,
	};
	struct uffdio_zeropage zero = { .range = { (uintptr_t)page, PAGE } };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), ret;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return 1;
	}
	ret = ioctl(fd, UFFDIO_REGISTER, &range);
	if (!ret)
		fail("userfaultfd takes it", range.mode, page);
	if (!ioctl(fd, UFFDIO_COPY, &copy) || !ioctl(fd, UFFDIO_ZEROPAGE, &zero))
		fail("userfaultfd fills it", 0, page);
	close(fd);
	return !ret;
}

static void send_fd(int socket, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec byte = { &control, 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	sendmsg(socket, &message, 0);
}

static int receive_fd(int socket)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char data;
	struct iovec byte = { &data, 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(socket, &message, 0) == 1)
		memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* Who has the file, and is not the process, can do nothing with it but close it. */
static bool file_is_dead(struct thread *t, int fd)
{
	struct epk_range range = { (uintptr_t)some_page(&t->dice), PAGE };
	struct epk_domains domains = { .num = 1, .ids = (uintptr_t)&range };
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 2 };
	int id = some_id(t);

	if (ioctl(fd, EPK_IOC_INIT, &init) != -1 || errno != EPERM)
		return false;
	if (ioctl(fd, EPK_IOC_ALLOC, &domains) != -1 || errno != EPERM)
		return false;
	if (ioctl(fd, EPK_IOC_THREAD, 0) != -1 || errno != EPERM)
		return false;
	if (ioctl(fd, EPK_IOC_UNMAP, &range) != -1 || errno != EPERM)
		return false;
	if (mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, EPK_MMAP_STACK) != MAP_FAILED)
		return false;
	return mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, EPK_MMAP_DOMAIN(id)) == MAP_FAILED;
}

/* A context of its own, and nothing of its parent's. */
static bool has_its_own(struct thread *t)
{
	struct process child = { .memfd = -1 };
	volatile uint64_t *words;
	int id;

	child.dev.fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	child.dev.init = (struct epk_init) { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };
	if (child.dev.fd < 0)
		return true;
	/* Where memory or EPTs are short. */
	if (ioctl(child.dev.fd, EPK_IOC_INIT, &child.dev.init) ||
	    epk_device_alloc(&child.dev, 1, &id))
		return true;
	child.dev.table = mmap(NULL, child.dev.init.table_bytes, PROT_READ, MAP_SHARED,
			       child.dev.fd, EPK_MMAP_TABLE);
	child.dev.identity = mmap(NULL, 4096, PROT_READ, MAP_SHARED, child.dev.fd,
				  EPK_MMAP_IDENTITY);
	if (child.dev.table == MAP_FAILED || child.dev.identity == MAP_FAILED)
		return true;
	child.notes = mmap(NULL, child.dev.init.table_bytes, PROT_READ, MAP_SHARED, child.dev.fd,
			   EPK_MMAP_NOTES);
	if (child.notes == MAP_FAILED)
		return true;
	words = epk_device_map(&child.dev, id, PAGE);
	if (words == MAP_FAILED)
		return true;
	t->process = &child;
	t->registered = t->follows = false;
	hold(t, id);
	if (t->holds && EPK_TRY(words[0] |= 0) == 0 && words[0])
		return false;
	leave(t);
	return true;
}

static int op_pass(struct thread *t)
{
	bool own = one_in(&t->dice, 2);
	int sockets[2], status, fd;
	pid_t pid;

	leave(t);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		return 1;
	pid = fork();
	if (!pid) {
		t->holds = 0;
		fd = receive_fd(sockets[1]);
		if (own)
			_exit(!has_its_own(t));
		_exit(fd < 0 || !file_is_dead(t, fd) || !file_is_dead(t, t->process->dev.fd));
	}
	if (pid > 0)
		send_fd(sockets[0], t->process->dev.fd);
	close(sockets[0]);
	close(sockets[1]);
	if (pid < 0)
		return 1;
	status = status_of(pid);
	if (status)
		fail(own ? "a child's own context" : "a file that was sent", status, NULL);
	return 0;
}

/* The same file twice, and another open, which the process cannot start as well. */
static int op_dup(struct thread *t)
{
	struct epk_init init = { .version = EPK_ABI_VERSION, .pkeys = 0xfffe };
	struct epk_stats stats;
	int fd = dup(t->process->dev.fd), ret;

	if (fd < 0)
		return 1;
	ret = ioctl(fd, EPK_IOC_STATS, &stats);
	close(fd);
	fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && !ioctl(fd, EPK_IOC_INIT, &init))
		fail("a second context", 0, NULL);
	close(fd);
	return ret;
}

/* Another process with the same memory, while this thread waits for it. */
static int be_other(void *arg)
{
	struct thread *t = me = arg;
	char *page = some_page(&t->dice);

	if (open_keys() || t->process->dev.identity->ept)
		return 1;
	t->follows = false;
	t->registered = one_in(&t->dice, 2);
	if (t->registered && ioctl(t->process->dev.fd, EPK_IOC_THREAD, 0))
		return 2;
	hold(t, some_id(t));
	touch(t, page, one_in(&t->dice, 2));
	/* It ends where it is, now and then. */
	if (one_in(&t->dice, 2))
		leave(t);
	return 0;
}

static int op_share(struct thread *t)
{
	static __thread char stack[65536] __attribute__((aligned(16)));
	struct thread other = *t;
	sigset_t own, old;
	int status = -1;
	pid_t pid;

	leave(t);
	other.holds = 0;
	other.dice.state = roll(&t->dice);
	/* They share what is the thread's own, too. */
	sigemptyset(&own);
	sigaddset(&own, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &own, &old);
	pid = clone(be_other, stack + sizeof(stack), CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD,
		    &other);
	if (pid > 0)
		status = status_of(pid);
	me = t;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid > 0 && status)
		fail("another process with the same memory", status, NULL);
	return pid < 0;
}

/* A CPU goes, and comes back.  One at a time, and not often. */
static int op_offline(struct thread *t)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";
	int ret;

	if (access(path, F_OK))
		return 0;
	if (!one_in(&t->dice, 10) || __atomic_exchange_n(&counts->offline, 1, __ATOMIC_ACQUIRE))
		return 1;
	ret = !put(path, "0");
	if (!ret) {
		sched_yield();
		count_add(&counts->offlined);
		if (!put(path, "1"))
			fail("the CPU does not come back", errno, NULL);
	}
	__atomic_store_n(&counts->offline, 0, __ATOMIC_RELEASE);
	recheck(t);
	return ret;
}

/* While this process has the device open. */
static int op_unload(struct thread *t)
{
	if (!syscall(SYS_delete_module, "epk", O_NONBLOCK))
		fail("the module goes", 0, NULL);
	recheck(t);
	return 0;
}

#endif /* KMOD_FUZZ_PROCESS_H */
