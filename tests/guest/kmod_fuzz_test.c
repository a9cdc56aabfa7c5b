// SPDX-License-Identifier: MIT
/*
 * Random calls of /dev/epk and of all system calls that can be made on its
 * memory, from several threads in several processes, with arguments that are
 * right, nearly right and wrong; signals, debuggers, children, files that are handed on, CPUs
 * that go; kmod_fuzz.h says what must hold meanwhile.  Some processes end in order and have to
 * leave nothing, some are killed, execute a program or exit in the middle of it.  Now and
 * then the module is loaded anew.
 *
 * kmod_fuzz_test OPERATIONS [SEED]; seed 0, the default: another each time.
 */
#include "kmod_fuzz_ops.h"

#include <sys/prctl.h>
#include <sys/random.h>

#define NR_PROCESSES	3
/* Processes between one loading of the module and the next. */
#define RELOAD_AFTER	6
#define MODULE		"/epk/epk.ko"

struct counts *counts;
/*
 * What each thread of a process does before the next process takes its place.  In one that lives
 * longer each operation takes longer, since there is more to look through.
 */
#define THREAD_OPS	400

static void one_op(struct thread *t)
{
	struct process *p = t->process;
	unsigned int n = 0, i;
	int ret;

	for (i = 0; i < NR_OPS; i++)
		n += ops[i].weight;
	n = below(&t->dice, n);
	for (i = 0; n >= ops[i].weight; i++)
		n -= ops[i].weight;

	if (ops[i].changes)
		change_begins(p);
	ret = ops[i].run(t);
	if (ops[i].changes)
		change_ends(p);
	recount_stack(t, ops[i].name);
	/* What it held may have moved away. */
	recheck(t);
	count_add(ret ? &counts->refused[i] : &counts->done[i]);
	count_add(&counts->ops);
}

static __attribute__((noinline)) void die(struct thread *t)
{
	sigset_t own;

	switch (t->death) {
	case EXECUTES:
		count_add(&counts->executed);
		/* The program would die of one that is on its way. */
		sigemptyset(&own);
		sigaddset(&own, SIGUSR1);
		pthread_sigmask(SIG_BLOCK, &own, NULL);
		execl("/proc/self/exe", "kmod_fuzz_test", "fresh", NULL);
		_exit(3);
	case EXITS:
		count_add(&counts->exited);
		_exit(0);
	default:
		kill(getpid(), SIGKILL);
	}
}

static void *worker(void *arg)
{
	struct thread *t = arg;
	int i, kind = below(&t->dice, 6);

	/* Whatever the seed, something is seen of what is to be. */
	if (!t->number && !counts->followed)
		kind = 5;
	me = t;
	t->low = forge_make(FORGE_LOW + t->number * 16 * FORGE_BYTES);
	t->process->tids[t->number] = syscall(SYS_gettid);
	/* Some are not registered, some without signals; those get only their own. */
	t->registered = kind > 0;
	t->signals = kind > 1;
	t->follows = kind > 3;
	if (t->signals)
		t->process->targets[t->number] = syscall(SYS_gettid);
	if (t->registered)
		CHECK_EQ(ioctl(t->process->dev.fd, EPK_IOC_THREAD,
			       (t->signals ? EPK_THREAD_SIGNALS : 0) |
			       (t->follows ? EPK_THREAD_FOLLOWS : 0)), 0);
	for (i = 0; i < THREAD_OPS; i++) {
		one_op(t);
		if (i == t->dies_after)
			die(t);
	}
	leave(t);
	t->process->tids[t->number] = 0;
	return NULL;
}

/* Of the whole guest, by name; they have to come back to what they were. */
static const char *const counters[] = { "domains", "pages", "mapped", "contexts", "threads" };

#define NR_COUNTERS	(sizeof(counters) / sizeof(*counters))

static void count_all(long *values)
{
	FILE *f = fopen("/sys/kernel/debug/epk/stats", "r");
	char word[32];
	unsigned int i;
	long value;

	REQUIRE(f);
	while (fscanf(f, "%31s %ld", word, &value) == 2) {
		for (i = 0; i < NR_COUNTERS; i++) {
			if (!strcmp(word, counters[i]))
				values[i] = value;
		}
	}
	fclose(f);
}

static void prepare(struct process *p)
{
	struct sigaction frame = { .sa_sigaction = signal_handler,
				   .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	struct sigaction plain = { .sa_handler = handler };
	uint64_t page[PAGE / 8];
	unsigned int i;

	opener = getpid();
	epk_device_open(&p->dev);
	p->notes = mmap(NULL, p->dev.init.table_bytes, PROT_READ, MAP_SHARED, p->dev.fd,
			EPK_MMAP_NOTES);
	REQUIRE(p->notes != MAP_FAILED && !set_gates(p));
	p->memfd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	REQUIRE(p->memfd >= 0);
	for (i = 0; i < PAGE / 8; i++)
		page[i] = FILE_STAMP;
	for (i = 0; i < 8; i++)
		REQUIRE(write(p->memfd, page, PAGE) == PAGE);
	REQUIRE(!fcntl(p->memfd, F_ADD_SEALS, F_SEAL_SHRINK));
	p->zero_fd = open(ZEROES, O_RDONLY | O_CLOEXEC);
	REQUIRE(p->zero_fd >= 0);
	/* Or what the other one asks for is what this one starts with. */
	sigaddset(&plain.sa_mask, SIGUSR2);
	REQUIRE(!sigaction(SIGUSR1, &plain, NULL));
	REQUIRE(!sigaction(SIGUSR2, &frame, NULL));
}

/* All of it given back: nothing is left of the process's domains and pages. */
static void finish(struct process *p)
{
	struct epk_stats stats;
	unsigned int i;

	/* Some of these are gone, and some do not stand in the table. */
	for (i = 0; i < NR_IDS; i++)
		epk_device_free(&p->dev, 1, &p->ids[i]);
	for (i = 1; i < p->dev.init.max_domains; i++) {
		int id = p->dev.table[i].id;

		if (id)
			CHECK_EQ(epk_device_free(&p->dev, 1, &id), 0);
		/* The rest of it has never been used. */
		if (i == 16384)
			break;
	}
	CHECK_EQ(munmap(AREAS, NR_AREAS * AREA_BYTES), 0);
	CHECK_EQ(munmap(BIG, NR_BIG * BIG_BYTES), 0);
	CHECK_EQ(munmap(FILE_AREAS, 4 * AREA_BYTES), 0);
	CHECK_EQ(munmap(ELSEWHERE, 512 * PAGE), 0);
	CHECK_EQ(epk_device_stats(&p->dev).pages, 0);
	stats = epk_device_stats(&p->dev);
	CHECK_EQ(stats.domains + stats.epts + stats.evicted, 0);
}

static void one_process(uint64_t seed, int death)
{
	pthread_t ids[NR_THREADS];
	static struct process process;
	static struct thread threads[NR_THREADS];
	struct dice dice = { .state = seed };
	int i, nr_threads, dying;

	epk_failures = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prepare(&process);
	nr_threads = 1 + below(&dice, NR_THREADS);
	dying = death == NR_DEATHS ? -1 : (int)below(&dice, nr_threads);
	for (i = 0; i < nr_threads; i++) {
		threads[i] = (struct thread) { .process = &process, .number = i };
		threads[i].dice.state = roll(&dice);
		threads[i].death = death;
		threads[i].dies_after = i == dying ? (int)below(&dice, THREAD_OPS) : -1;
	}
	for (i = 0; i < nr_threads; i++)
		REQUIRE(!pthread_create(&ids[i], NULL, worker, &threads[i]));
	for (i = 0; i < nr_threads; i++)
		pthread_join(ids[i], NULL);
	finish(&process);
	exit(epk_failures != 0);
}

/* What this program is after an exec. */
static int fresh(void)
{
	struct epk_device dev;

	epk_device_open(&dev);
	return dev.identity->ept || epk_rdpkru() != 3 * EPK_PKRU_DENY_ALL;
}

/* @killed is the child, if it will be. */
static pid_t start(struct dice *dice, pid_t *killed)
{
	int death = one_in(dice, 3) ? (int)below(dice, NR_DEATHS) : NR_DEATHS;
	uint64_t seed = roll(dice);
	pid_t pid;

	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		one_process(seed, death);
	*killed = death == KILLED ? pid : 0;
	return pid;
}

/* Opens the device all the time; it may be gone. */
static __attribute__((noreturn)) void be_opener(void)
{
	struct epk_device dev = { .init = { .version = EPK_ABI_VERSION } };
	int id;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dev.init.pkeys = epk_all_pkeys();
	for (;;) {
		dev.fd = open(EPK_DEVICE, O_RDWR | O_CLOEXEC);
		if (dev.fd < 0)
			continue;
		if (!ioctl(dev.fd, EPK_IOC_INIT, &dev.init))
			epk_device_alloc(&dev, 1, &id);
		close(dev.fd);
	}
}

/* The module goes, and comes again, while others are about to open it. */
static void reload(void)
{
	const char *defect = epk_module_defect();
	pid_t opener = fork();
	int tries, fd;

	REQUIRE(opener >= 0);
	if (!opener)
		be_opener();
	for (tries = 0; syscall(SYS_delete_module, "epk", O_NONBLOCK); tries++) {
		REQUIRE(tries < 1000);
		if (tries == 100)
			kill(opener, SIGKILL);
		usleep(500);
	}
	fd = open(MODULE, O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	REQUIRE(!syscall(SYS_finit_module, fd, defect, 0));
	close(fd);
	kill(opener, SIGKILL);
	REQUIRE(waitpid(opener, NULL, 0) == opener);
	counts->reloads++;
}

/* Orphans of killed processes come here too. */
static void run(struct dice *dice, unsigned long operations)
{
	pid_t running[NR_PROCESSES] = { 0 }, killed[NR_PROCESSES] = { 0 };
	unsigned int i, started = 0;
	int status;
	pid_t pid;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (;;) {
		for (i = 0; i < NR_PROCESSES; i++) {
			if (running[i] || epk_failures || counts->ops >= operations ||
			    started == RELOAD_AFTER)
				continue;
			running[i] = start(dice, &killed[i]);
			started++;
		}
		pid = wait(&status);
		if (pid < 0 && started < RELOAD_AFTER)
			break;
		if (pid < 0) {
			reload();
			started = 0;
		}
		for (i = 0; i < NR_PROCESSES && running[i] != pid; i++)
			;
		if (i == NR_PROCESSES)
			continue;
		running[i] = 0;
		counts->killed += pid == killed[i];
		CHECK_EQ(status, pid == killed[i] ? SIGKILL : 0);
	}
}

static void report(void)
{
	unsigned int i;

	printf("%lu operations (done, refused):", counts->ops);
	for (i = 0; i < NR_OPS; i++) {
		printf(" %s %lu %lu", ops[i].name, counts->done[i], counts->refused[i]);
		/* Otherwise the checks see nothing.  Some are rarely done. */
		if (counts->ops > 50000)
			epk_check(counts->done[i], __FILE__, __LINE__, ops[i].name, " was done");
	}
	printf("; reads %lu, of zero %lu, judged %lu; writes %lu; followed %lu; faults %lu; signals %lu; killed %lu\n",
	       counts->reads, counts->zeros, counts->judged, counts->writes, counts->followed,
	       counts->faults, counts->signals, counts->killed);
	printf("signals after which all was as before %lu, calls %lu; forged frames",
	       counts->restored, counts->returned);
	for (i = 0; i < NR_FORGE_ABIS; i++) {
		printf(", %s %lu", forge_names[i], counts->forged[i]);
		epk_check(counts->forged[i] || !forge_can(i) || counts->ops < 2000, __FILE__,
			  __LINE__, forge_names[i], " was forged");
	}
	printf("; faults redirected %lu, caught %lu, rights that ended with a private domain %lu",
	       counts->redirected, counts->caught, counts->ended);
	printf(", pages of stacks %lu", counts->touched);
	printf("; CPUs taken away %lu, module loaded anew %lu, programs executed %lu, exits %lu\n",
	       counts->offlined, counts->reloads, counts->executed, counts->exited);
	CHECK(counts->restored);
	CHECK(counts->returned || counts->ops < 50000);
	CHECK(counts->reads && counts->followed && counts->writes && counts->signals);
	/* Of 2,869 operations none was, once. */
	CHECK(counts->judged || counts->ops < 20000);
	CHECK_EQ(counts->failures, 0);
}

int main(int argc, char **argv)
{
	unsigned long operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	long before[NR_COUNTERS], after[NR_COUNTERS];
	struct dice dice = { 0 };
	unsigned int i;
	int fd;

	if (argc > 1 && !strcmp(argv[1], "fresh"))
		return fresh();
	if (argc > 2)
		dice.state = strtoull(argv[2], NULL, 0);
	if (!dice.state)
		REQUIRE(getrandom(&dice.state, 4, 0) == 4);
	printf("seed %lu\n", dice.state);
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	REQUIRE(counts != MAP_FAILED);
	fd = open(ZEROES, O_RDWR | O_CREAT, 0600);
	REQUIRE(fd >= 0 && !ftruncate(fd, 64 * PAGE));

	counts->kernel_has_keys = epk_kernel_has_keys();
	count_all(before);
	run(&dice, operations);
	count_all(after);
	for (i = 0; i < NR_COUNTERS; i++)
		epk_check(before[i] == after[i], __FILE__, __LINE__, counters[i], " left behind");
	report();
	unlink(ZEROES);
	return epk_test_result();
}
