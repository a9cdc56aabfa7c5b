// SPDX-License-Identifier: MIT
/*
 * What the library says of faults: which byte of which domain, why, and what the thread holds; on
 * standard error or to who asks for it.  And what a program without a word of it dies of.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <signal.h>
#include <sys/syscall.h>

#include "lock.h"

static char said[4096];
static int nr_said[3];
static sigjmp_buf back;

static void print(enum epk_level level, const char *line)
{
	nr_said[level]++;
	strncat(said, line, sizeof(said) - strlen(said) - 1);
}

static void on_fault(int signo, siginfo_t *info, void *context)
{
	REQUIRE(!epk_handle_fault(signo, info, context));
	siglongjmp(back, 1);
}

static void forget(void)
{
	said[0] = 0;
	memset(nr_said, 0, sizeof(nr_said));
}

/* What is said of the byte at @addr, which cannot be written, or read. */
static const char *faulted(char *addr, bool write)
{
	forget();
	if (!sigsetjmp(back, 1)) {
		if (write)
			*(volatile char *)addr = 1;
		else
			(void)*(volatile char *)addr;
		return NULL;
	}
	return said;
}

static void listen_to_faults(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	REQUIRE(!epk_set_print(print));
	REQUIRE(!sigaction(SIGSEGV, &action, NULL) && !sigaction(SIGBUS, &action, NULL));
}

/* Each of @words is said. */
#define SAYS(got, ...)								\
	do {									\
		const char *const words_[] = { __VA_ARGS__ }, *got_ = (got);	\
		unsigned int i_;						\
										\
		REQUIRE(got_);							\
		for (i_ = 0; i_ < sizeof(words_) / sizeof(words_[0]); i_++)	\
			if (!strstr(got_, words_[i_])) {			\
				fprintf(stderr, "%s:%d: \"%s\" is not in \"%s\"\n",	\
					__FILE__, __LINE__, words_[i_], got_);	\
				_exit(1);					\
			}							\
	} while (0)

static const char *number(const char *format, unsigned long value)
{
	static char texts[8][64];
	static int next;
	char *text = texts[next++ % 8];

	snprintf(text, sizeof(texts[0]), format, value);
	return text;
}

static void says_what_is_not_held(void)
{
	int dom = new_domain();
	char *mem = new_pages(dom, 3);

	listen_to_faults();
	SAYS(faulted(mem + PAGE + 17, true), "a write at ", number("%#lx", (uintptr_t)mem + PAGE + 17),
	     number("byte %lu of the 12288 ", PAGE + 17), number("at %#lx ", (uintptr_t)mem),
	     number("of domain %lu,", dom), "does not hold", "it holds nothing\n");
	REQUIRE(nr_said[EPK_LEVEL_FAULT] == 1);
	SAYS(faulted(mem, false), "a read at ", "byte 0 of ");
	SAYS(faulted(mem + 3 * PAGE - 1, false), "byte 12287 of ");
}

static void says_what_is_held(void)
{
	int doms[3], i;
	char *mem;

	REQUIRE(!alloc_domains(3, doms));
	mem = new_pages(doms[0], 1);
	for (i = 1; i < 3; i++)
		new_pages(doms[i], 1);
	listen_to_faults();
	REQUIRE(!domain_begin(doms[1], RW));
	SAYS(faulted(mem, false), "does not hold", number("it holds %lu\n", doms[1]));
	/* Where the jump out of a handler leaves nothing. */
	domain_end(doms[1]);
	REQUIRE(!domain_begin(doms[2], PROT_READ));
	SAYS(faulted(mem, true), "does not hold", number("it holds %lu (to be read)\n", doms[2]));
	domain_end(doms[2]);
	if (backend_holds_several()) {
		REQUIRE(!domain_begin(doms[1], RW) && !domain_begin(doms[2], PROT_READ));
		SAYS(faulted(mem, true), "does not hold", number("%lu (to be read)", doms[2]),
		     number(" %lu", doms[1]), "it holds ");
		REQUIRE(!strstr(said, number("%lu (to be read)", doms[1])));
		domain_end(doms[1]);
		domain_end(doms[2]);
	}
	/* Held to be read, and written to. */
	REQUIRE(!domain_begin(doms[0], PROT_READ));
	REQUIRE(!faulted(mem, false));
	SAYS(faulted(mem, true), "a write ", "holds to be read only",
	     number("it holds %lu (to be read)\n", doms[0]));
}

/* More than there is room for in a line. */
static void says_some_of_many(void)
{
	int doms[20], i, many = backend_holds_several() ? backend_is("mpk") ? 11 : 20 : 1;
	char *mem, *all[20];

	fill_domains(20, doms, all, 1);
	mem = new_pages(new_domain(), 1);
	listen_to_faults();
	for (i = 0; i < many; i++)
		REQUIRE(!domain_begin(doms[i], RW));
	SAYS(faulted(mem, false), "does not hold");
	if (many > 8)
		SAYS(said, number("and %lu more\n", many - 8));
}

/* One byte too many, in both directions; and far away it is no domain's affair. */
static void says_what_is_beside(void)
{
	char *room = mmap(NULL, 9 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *mem;
	int dom = new_domain();

	REQUIRE(room != MAP_FAILED && !munmap(room + 3 * PAGE, 3 * PAGE));
	mem = domain_mmap(dom, room + 3 * PAGE, 3 * PAGE, RW, MAP_FIXED_NOREPLACE);
	REQUIRE(mem == room + 3 * PAGE);
	listen_to_faults();
	REQUIRE(!domain_begin(dom, RW));
	SAYS(faulted(mem + 3 * PAGE, false), "1 bytes behind the end of the 12288 ",
	     number("of domain %lu;", dom), number("it holds %lu\n", dom));
	domain_end(dom);
	REQUIRE(!domain_begin(dom, RW));
	SAYS(faulted(mem + 4 * PAGE - 1, true), "a write ", "4096 bytes behind the end of ");
	SAYS(faulted(mem - 1, false), "1 bytes before the start of ", number("of domain %lu;", dom));
	REQUIRE(faulted(mem + 4 * PAGE, false) && !nr_said[EPK_LEVEL_FAULT]);
	REQUIRE(faulted(mem - PAGE - 1, false) && !nr_said[EPK_LEVEL_FAULT]);
	REQUIRE(faulted(NULL, false) && !nr_said[EPK_LEVEL_FAULT]);
}

static void says_what_is_mapped_to_be_read(void)
{
	int dom = new_domain();
	char *mem = domain_mmap(dom, NULL, PAGE, PROT_READ, 0);

	REQUIRE(mem != MAP_FAILED);
	listen_to_faults();
	REQUIRE(!domain_begin(dom, RW));
	SAYS(faulted(mem, true), "which is mapped to be read only", number("it holds %lu\n", dom));
}

/* Where all threads may, holding it is not what lacks. */
static void says_what_all_may(void)
{
	int dom = new_domain();
	char *mem = domain_mmap(dom, NULL, PAGE, PROT_READ, 0), *more = new_pages(dom, 1);

	REQUIRE(mem != MAP_FAILED);
	listen_to_faults();
	if (epk_protect(dom, PROT_READ) == -EOPNOTSUPP)
		return;
	REQUIRE(!faulted(more, false));
	SAYS(faulted(more, true), "a write ", "all threads may read only", "it holds nothing\n");
	REQUIRE(!epk_protect(dom, RW) && !faulted(more, true));
	SAYS(faulted(mem, true), "which is mapped to be read only", "it holds nothing\n");
}

static void says_what_a_file_lacks(void)
{
	int dom = new_domain(), fd = memfd_create("short", MFD_CLOEXEC);
	char *mem;

	REQUIRE(fd >= 0 && !ftruncate(fd, PAGE));
	mem = epk_mmap_file(dom, NULL, 2 * PAGE, RW, 0, fd, 0);
	REQUIRE(mem != MAP_FAILED);
	listen_to_faults();
	REQUIRE(!domain_begin(dom, RW));
	SAYS(faulted(mem + PAGE, false), "its file does not have", number("of domain %lu,", dom));
}

/* A signal that somebody sends, and one of another kind, say nothing; nor does a call without sense. */
static void says_nothing_of_others(void)
{
	siginfo_t sent = { .si_signo = SIGSEGV, .si_code = SI_USER };
	siginfo_t fault = { .si_signo = SIGSEGV, .si_code = SEGV_ACCERR };
	char *mem = new_pages(new_domain(), 1);
	char context[2048] = { 0 };

	REQUIRE(!epk_set_print(print));
	forget();
	sent.si_addr = fault.si_addr = mem;
	REQUIRE(!epk_handle_fault(SIGSEGV, &sent, context));
	REQUIRE(!epk_handle_fault(SIGFPE, &fault, context));
	REQUIRE(!epk_handle_fault(SIGSEGV, NULL, context) && !epk_handle_fault(SIGSEGV, &fault, NULL));
	REQUIRE(!nr_said[EPK_LEVEL_FAULT]);
}

/* The last that standard error got of a child that touches what it does not hold. */
static int died_of(void (*before)(void), char text[4096])
{
	int pipes[2], status;
	size_t used = 0;
	ssize_t got;
	pid_t pid;

	REQUIRE(!pipe(pipes));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		dup2(pipes[1], STDERR_FILENO);
		before();
		*(volatile char *)new_pages(new_domain(), 1) = 1;
		_exit(0);
	}
	close(pipes[1]);
	while (used < 4095 && (got = read(pipes[0], text + used, 4095 - used)) > 0)
		used += got;
	text[used] = 0;
	close(pipes[0]);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

static void debug_off(void)
{
	unsetenv("EPK_DEBUG");
	signal(SIGSEGV, SIG_DFL);
}

static void debug_on(void)
{
	setenv("EPK_DEBUG", "1", 1);
	signal(SIGSEGV, SIG_DFL);
}

static void debug_without_handler(void)
{
	struct epk_options options = {
		.size = sizeof(options), .backend = unit_backend(), .flags = EPK_NO_SIGNAL_HANDLER,
	};

	debug_on();
	REQUIRE(!epk_init(&options));
}

static void ends(int signo)
{
	(void)signo;
	_exit(44);
}

static void debug_with_own_handler(void)
{
	debug_on();
	signal(SIGSEGV, ends);
}

/* With EPK_DEBUG it is told, and the program dies of it as it would have. */
static void dies_as_before(void)
{
	char text[4096];

	REQUIRE(died_of(debug_off, text) == SIGSEGV && !text[0]);
	REQUIRE(WTERMSIG(died_of(debug_on, text)) == SIGSEGV);
	SAYS(text, "libepk[", "]: fault: a write at 0x", "byte 0 of the 4096 ", "it holds nothing\n");
	REQUIRE(WTERMSIG(died_of(debug_without_handler, text)) == SIGSEGV &&
		!strstr(text, "fault"));
	REQUIRE(WEXITSTATUS(died_of(debug_with_own_handler, text)) == 44 && !strstr(text, "fault"));
}

/* Who listens is told of calls that fail, before and after the library is initialised, and no longer than it likes. */
static void tells_of_calls(void)
{
	int dom;

	forget();
	unsetenv("EPK_DEBUG");
	REQUIRE(!epk_set_print(print));
	REQUIRE(alloc_domains(0, &dom) == -EINVAL);
	SAYS(said, "alloc_domains(0): EINVAL: num is not positive");
	REQUIRE(nr_said[EPK_LEVEL_DEBUG] == 1 && said[strlen(said) - 1] == '\n');
	dom = new_domain();
	forget();
	REQUIRE(domain_end(dom) == -EACCES && nr_said[EPK_LEVEL_DEBUG] == 1);
	SAYS(said, "domain_end(", "EACCES");
	REQUIRE(epk_set_print(NULL) == print);
	forget();
	REQUIRE(domain_end(dom) == -EACCES && !said[0]);
}

/* A child has whom its parent had. */
static void tells_in_children(void)
{
	int dom = new_domain(), status;

	REQUIRE(!epk_set_print(print));
	fflush(NULL);
	if (!fork()) {
		forget();
		REQUIRE(domain_begin(dom, RW) == -EPERM);
		REQUIRE(alloc_domains(0, &dom) == -EINVAL && nr_said[EPK_LEVEL_DEBUG] >= 1);
		_exit(0);
	}
	REQUIRE(wait(&status) > 0 && !status);
}

static void *faults_often(void *arg)
{
	int i;

	for (i = 0; i < 200; i++) {
		int dom = new_domain();

		free_domain(dom);
	}
	return arg;
}

/* While other threads change the books. */
static void says_amid_others(void)
{
	int dom = new_domain(), i;
	char *mem = new_pages(dom, 1);
	pthread_t threads[2];

	listen_to_faults();
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, faults_often, NULL));
	for (i = 0; i < 100; i++)
		SAYS(faulted(mem + i, i % 2), number("byte %lu of the 4096 ", i), "it holds nothing\n");
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_join(threads[i], NULL));
}

/* Before the library's own handler for this thread: what a fault does there is counted. */
static volatile int allocations;

#if defined(__GLIBC__) && !SANITIZED
#define COUNTS_ALLOCATIONS	1
void *__libc_calloc(size_t nr, size_t size);
void *__libc_malloc(size_t size);

void *calloc(size_t nr, size_t size)
{
	allocations++;
	return __libc_calloc(nr, size);
}

void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}
#else
#define COUNTS_ALLOCATIONS	0
#endif

static void *faults_first(void *arg)
{
	int before = allocations;

	SAYS(faulted(arg, false), "byte 0 of ", "it holds nothing\n");
	/* Who interrupted malloc() would wait for himself. */
	REQUIRE(allocations == before);
	return NULL;
}

/* A thread that has never begun anything. */
static void says_of_threads_that_never_began(void)
{
	char *mem = new_pages(new_domain(), 1);
	pthread_t thread;
	int before = allocations;

	listen_to_faults();
	REQUIRE(!pthread_create(&thread, NULL, faults_first, mem) && !pthread_join(thread, NULL));
	free(malloc(1));
	REQUIRE(!COUNTS_ALLOCATIONS || allocations > before);
}

static pthread_barrier_t at_lock;

static void *has_the_lock(void *arg)
{
	REQUIRE(!pthread_mutex_lock(&epk_lock));
	pthread_barrier_wait(&at_lock);
	pthread_barrier_wait(&at_lock);
	pthread_mutex_unlock(&epk_lock);
	return arg;
}

/* Whoever has the library's lock for good: the thread waits a little, says nothing, and goes on. */
static void does_not_wait_for_ever(void)
{
	char *mem = new_pages(new_domain(), 1);
	pthread_t thread;

	listen_to_faults();
	REQUIRE(!pthread_barrier_init(&at_lock, NULL, 2));
	REQUIRE(!pthread_create(&thread, NULL, has_the_lock, NULL));
	pthread_barrier_wait(&at_lock);
	alarm(20);
	REQUIRE(faulted(mem, false) && !nr_said[EPK_LEVEL_FAULT]);
	pthread_barrier_wait(&at_lock);
	REQUIRE(!pthread_join(thread, NULL));
	SAYS(faulted(mem, false), "byte 0 of ");
	/* Its own: the books may be half written. */
	REQUIRE(!pthread_mutex_lock(&epk_lock));
	REQUIRE(faulted(mem, false) && !nr_said[EPK_LEVEL_FAULT]);
	pthread_mutex_unlock(&epk_lock);
	alarm(0);
}

static char alternate[1 << 17] __attribute__((aligned(4096)));
static volatile size_t taken;

/* How far down what it calls has written. */
static void measure(int signo, siginfo_t *info, void *context)
{
	char *here = __builtin_frame_address(0), *low = alternate;

	memset(alternate, 0x5a, here - alternate - 512);
	epk_handle_fault(signo, info, context);
	while (*low == 0x5a)
		low++;
	taken = here - low;
	siglongjmp(back, 1);
}

/* As the manual says, whatever is held. */
static void takes_a_small_stack(void)
{
	struct sigaction action = { .sa_sigaction = measure, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	int doms[10], i;
	char *mem[10];

	fill_domains(10, doms, mem, 1);
	listen_to_faults();
	REQUIRE(!sigaltstack(&stack, NULL) && !sigaction(SIGSEGV, &action, NULL));
	for (i = 1; i < (backend_holds_several() ? 10 : 2); i++)
		REQUIRE(!domain_begin(doms[i], RW));
	SAYS(faulted(mem[0], true), "a write ");
	REQUIRE(taken > 500 && (SANITIZED || taken <= 6 * 1024));
}

/* What is there is no code, held or not. */
static void says_jumps(void)
{
	int dom = new_domain();
	char *mem = new_pages(dom, 1);

	listen_to_faults();
	REQUIRE(!domain_begin(dom, RW));
	forget();
	if (!sigsetjmp(back, 1))
		((void (*)(void))mem)();
	SAYS(said, "a jump at ", "no domain's memory can be run");
}

/* Not of an instruction that would be tried again: the program dies of it none the less. */
static void dies_of_other_faults(void)
{
	siginfo_t info = { .si_signo = SIGSEGV, .si_code = 0x80 };
	int status;
	pid_t pid;

	debug_on();
	pid = fork();
	if (!pid) {
		new_domain();
		syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSEGV, &info);
		_exit(0);
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGSEGV);
}

/* A handler that holds something itself, which the books could have it read. */
static int held_by_handler;

static void holds_and_asks(int signo, siginfo_t *info, void *context)
{
	REQUIRE(!domain_begin(held_by_handler, RW));
	epk_handle_fault(signo, info, context);
	REQUIRE(epk_held_prot(held_by_handler) == RW && !domain_end(held_by_handler));
	siglongjmp(back, 1);
}

static void leaves_rights_alone(void)
{
	struct sigaction action = { .sa_sigaction = holds_and_asks, .sa_flags = SA_SIGINFO };
	char *mem = new_pages(new_domain(), 1);

	held_by_handler = new_domain();
	listen_to_faults();
	REQUIRE(!sigaction(SIGSEGV, &action, NULL));
	REQUIRE(faulted(mem, false) && nr_said[EPK_LEVEL_FAULT] <= 1);
}

IN_CHILD(says_of_threads_that_never_began)
IN_CHILD(does_not_wait_for_ever)
IN_CHILD(takes_a_small_stack)
IN_CHILD(says_jumps)
IN_CHILD(dies_of_other_faults)
IN_CHILD(leaves_rights_alone)
IN_CHILD(says_what_is_not_held)
IN_CHILD(says_what_is_held)
IN_CHILD(says_some_of_many)
IN_CHILD(says_what_is_beside)
IN_CHILD(says_what_all_may)
IN_CHILD(says_what_is_mapped_to_be_read)
IN_CHILD(says_what_a_file_lacks)
IN_CHILD(says_nothing_of_others)
IN_CHILD(dies_as_before)
IN_CHILD(tells_of_calls)
IN_CHILD(tells_in_children)
IN_CHILD(says_amid_others)

int main(void)
{
	const struct CMUnitTest any[] = {
		cmocka_unit_test(in_child_says_nothing_of_others),
		cmocka_unit_test(in_child_tells_of_calls),
		cmocka_unit_test(in_child_tells_in_children),
		cmocka_unit_test(in_child_dies_of_other_faults),
	};
	const struct CMUnitTest protecting[] = {
		cmocka_unit_test(in_child_says_what_is_not_held),
		cmocka_unit_test(in_child_says_what_is_held),
		cmocka_unit_test(in_child_says_some_of_many),
		cmocka_unit_test(in_child_says_what_is_beside),
		cmocka_unit_test(in_child_says_what_is_mapped_to_be_read),
		cmocka_unit_test(in_child_says_what_all_may),
		cmocka_unit_test(in_child_says_what_a_file_lacks),
		cmocka_unit_test(in_child_dies_as_before),
		cmocka_unit_test(in_child_says_amid_others),
		cmocka_unit_test(in_child_says_of_threads_that_never_began),
		cmocka_unit_test(in_child_does_not_wait_for_ever),
		cmocka_unit_test(in_child_takes_a_small_stack),
		cmocka_unit_test(in_child_says_jumps),
		cmocka_unit_test(in_child_leaves_rights_alone),
	};
	int failed;

	need_backend();
	failed = cmocka_run_group_tests(any, NULL, NULL);
	if (backend_protects())
		failed += cmocka_run_group_tests(protecting, NULL, NULL);
	return failed;
}
