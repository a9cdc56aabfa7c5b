// SPDX-License-Identifier: MIT
/*
 * No byte that the process can write decides about a right: every one that the library made is
 * written over, alone and in groups, by the thread that makes the calls and by another, and all
 * calls are made.  They may fail, and the process may end, which is counted: no domain that is not
 * held may be readable, no memory that was given out for a domain may be anything but the domain's,
 * and no secret may be copied out or written over.
 *
 *	overwrite_test BACKEND [PERCENT [SEED]]
 *
 * With 100 %, each byte gets one value; with 600, each that is not always zero gets all; with less,
 * as many of these get one as that, and few of the others.  The other kinds of cases grow likewise.
 * The same seed makes the same cases.
 *
 * The first cases open holes that the test has itself, one of each kind: it fails unless it sees
 * them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <time.h>

#include "unit.h"

#include "overwrite.h"

#define POLL_NS		10000000
/* Polls that find a worker asleep in the same call, and in it at all. */
#define ASLEEP		5
#define TOO_LONG	500
#define RACE_PASSES	3

struct shared *shared;

static const char *const kind_names[NR_KINDS] = {
	[OPEN] = "open", [OUTSIDE] = "outside", [COPIED] = "copied", [CHANGED] = "changed",
};

/* The other thread: there from the beginning, so that it holds nothing and makes no difference. */
static struct {
	sem_t start;
	sem_t stopped;
	volatile bool armed;
} other;

static void *write_on(void *arg)
{
	unsigned int i, turn;

	(void)arg;
	for (;;) {
		while (sem_wait(&other.start))
			;
		for (turn = 0; other.armed; turn++) {
			case_write(false);
			for (i = 0; i < turn % 64 * 16; i++)
				__builtin_ia32_pause();
			if (turn % 16 == 5)
				victim_look_from_another();
			if (turn % 4)
				sched_yield();
			case_write(true);
			for (i = 0; i < turn % 32 * 16; i++)
				__builtin_ia32_pause();
		}
		sem_post(&other.stopped);
	}
	return NULL;
}

static void start_worker(void)
{
	pthread_t thread;

	/* What the library and libc complain about on their way out is expected. */
	if (!freopen("/dev/null", "w", stderr))
		_exit(2);
	signal(SIGSEGV, SIG_DFL);
	sem_init(&other.start, 0, 0);
	sem_init(&other.stopped, 0, 0);
	REQUIRE(!pthread_create(&thread, NULL, write_on, NULL));
	victim_set_up();
}

static void run_race(uint64_t luck)
{
	unsigned int i;

	case_note_old();
	other.armed = true;
	sem_post(&other.start);
	for (i = 0; i < RACE_PASSES && !shared->found; i++)
		victim_run(0, false, luck);
	other.armed = false;
	while (sem_wait(&other.stopped))
		;
}

/* True: the process is as good as new. */
static bool run_case(const struct plan *plan, uint64_t i)
{
	uint64_t luck = percent >= 400 || shared->closely ? 0 : mix(i ^ seed << 36);
	bool same;

	if (plan->race) {
		run_race(luck);
		same = true;
	} else {
		case_apply();
		same = victim_run(shared->first_step, shared->closely, luck);
	}
	shared->step = step_count();
	if (!shared->found)
		same &= victim_check();
	/* The other thread may have put back what is old by now. */
	return case_take_back() & same & !plan->race;
}

/* Cases from shared->at on, until one leaves traces. */
static void work(const struct plan *plan)
{
	bool good = true;

	start_worker();
	/* What was found in another process is at the same address in this. */
	REQUIRE(!memcmp(&victim, &shared->victim, sizeof(victim)));
	REQUIRE(memory_blocks() == shared->blocks);
	cases_find_redirects();
	victim_hold();
	for (; shared->at < plan->nr && good; shared->at++) {
		if (!case_fill(plan, shared->at))
			continue;
		good = run_case(plan, shared->at);
		if (shared->found || shared->closely)
			_exit(0);
		shared->ends[good || plan->race ? SAME : REFUSED]++;
		shared->first_step = 0;
	}
	_exit(0);
}

/* What is there to be written over?  Without that, all is well. */
static void survey(void)
{
	start_worker();
	shared->victim = victim;
	shared->blocks = memory_blocks();
	memory_find();
	memory_area(victim.planted, sizeof(*victim.planted), "planted");
	memory_find_live();
	cases_find_redirects();
	victim_hold();
	shared->closely = true;
	if (!victim_run(0, true, 0) || !victim_check() || shared->found) {
		printf("Nothing is written over, and %s does what it should not: %s\n",
		       step_name(shared->step), shared->last.what);
		fflush(stdout);
		_exit(1);
	}
	shared->closely = false;
	memory_find_live();
	_exit(0);
}

static bool is_asleep(const char *path)
{
	char text[256], *state;
	ssize_t len;
	int fd;

	fd = open(path, O_RDONLY);
	len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return false;
	text[len] = 0;
	state = strrchr(text, ')');
	return state && state[1] && state[2] == 'S';
}

/*
 * All of its threads: one may be waiting for another, which has no CPU for a while.  opendir() would
 * allocate, and the next worker find another heap.
 */
static bool all_asleep(pid_t pid)
{
	static char entries[4096] __attribute__((aligned(8)));
	char path[sizeof(entries)];
	struct dirent64 *entry;
	long len, at;
	bool asleep = true;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	len = fd < 0 ? 0 : syscall(SYS_getdents64, fd, entries, sizeof(entries));
	close(fd);
	for (at = 0; at < len && asleep; at += entry->d_reclen) {
		entry = (struct dirent64 *)(entries + at);
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, entry->d_name);
		asleep = entry->d_name[0] == '.' || is_asleep(path);
	}
	return len > 0 && asleep;
}

/* SAME: it ended by itself.  WAITED: it had to be ended. */
static enum end wait_for(pid_t pid)
{
	const struct timespec poll = { .tv_nsec = POLL_NS };
	unsigned int asleep = 0, polls = 0;
	uint64_t calls = shared->calls;
	sigset_t child;
	int status;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (sigtimedwait(&child, NULL, &poll) == SIGCHLD)
			continue;
		if (calls != shared->calls) {
			calls = shared->calls;
			asleep = polls = 0;
			continue;
		}
		polls++;
		asleep = all_asleep(pid) ? asleep + 1 : 0;
		if (asleep < ASLEEP && polls < TOO_LONG)
			continue;
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return WAITED;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status)) {
		printf("a process gave up: %d\n", WEXITSTATUS(status));
		exit(1);
	}
	return WIFSIGNALED(status) ? KILLED : SAME;
}

static enum end run_worker(const struct plan *plan)
{
	pid_t pid;

	fflush(NULL);
	shared->processes++;
	shared->found = false;
	pid = fork();
	if (!pid) {
		if (plan)
			work(plan);
		survey();
	}
	if (pid < 0) {
		printf("fork: %s\n", strerror(errno));
		exit(1);
	}
	return wait_for(pid);
}

/* A case that found something is tried again to see which call it is, and what the next ones do. */
static void look_closely(const struct plan *plan)
{
	struct finding first = shared->last;
	uint64_t reports = shared->reports;
	enum end end;

	shared->closely = true;
	shared->first_step = 0;
	do {
		end = run_worker(plan);
		if (end == SAME && !shared->found)
			break;
		shared->first_step = shared->step + 1;
	} while (shared->step < step_count());
	shared->closely = false;
	if (shared->reports == reports)
		keep_finding(&first);
}

/* A worker ended in a case: on to the next call of this, if it may be resumed, or the next. */
static void go_on(const struct plan *plan, unsigned int *resumed)
{
	if (*resumed < plan->resumes && shared->step + 1 < step_count()) {
		++*resumed;
		shared->first_step = shared->step + 1;
		return;
	}
	*resumed = 0;
	shared->first_step = 0;
	shared->at++;
}

static void run_plan(struct plan *plan)
{
	unsigned int resumed = 0;
	uint64_t at = UINT64_MAX;
	enum end end;

	shared->at = 0;
	shared->first_step = 0;
	while (shared->at < plan->nr) {
		end = run_worker(plan);
		if (at != shared->at)
			resumed = 0;
		at = shared->at;
		if (shared->found) {
			if (plan->race)
				keep_finding(&shared->last);
			else
				look_closely(plan);
			shared->ends[FOUND]++;
			shared->first_step = 0;
			shared->at++;
		} else if (end != SAME) {
			shared->ends[end]++;
			go_on(plan, &resumed);
		}
	}
}

static void print_plan(const struct plan *plan, double seconds)
{
	static uint64_t before[NR_ENDS], calls, processes;
	uint64_t now[NR_ENDS];
	int i;

	for (i = 0; i < NR_ENDS; i++) {
		now[i] = shared->ends[i] - before[i];
		before[i] = shared->ends[i];
	}
	printf("%-20s %7lu nothing changes, %6lu refused or other, %5lu killed, %4lu wait, "
	       "%4lu found; %lu calls, %lu processes, %.1f s\n", plan->name, now[SAME],
	       now[REFUSED], now[KILLED], now[WAITED], now[FOUND], shared->calls - calls,
	       shared->processes - processes, seconds);
	calls = shared->calls;
	processes = shared->processes;
	fflush(stdout);
}

static double now_in_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* Each hole that the test has planted is seen, as what it is, and nothing else is. */
static bool planted_are_found(void)
{
	bool seen[NR_KINDS] = { false };
	unsigned int i;

	for (i = 0; i < shared->nr_findings; i++) {
		const struct finding *finding = &shared->findings[i];

		if (finding->domain == USED && !strcmp(step_name(finding->step), "planted holes"))
			seen[finding->kind] = true;
	}
	for (i = 0; i < NR_KINDS; i++)
		if (!seen[i])
			printf("The hole that was planted to leave memory %s was not seen\n",
			       kind_names[i]);
	if (shared->nr_findings != NR_KINDS || shared->ends[FOUND] != NR_KINDS)
		return false;
	shared->nr_findings = 0;
	return seen[OPEN] && seen[OUTSIDE] && seen[COPIED] && seen[CHANGED];
}

static void print_findings(void)
{
	unsigned int i;

	for (i = 0; i < shared->nr_findings; i++)
		printf("%s, %u times: %s: %s\n", kind_names[shared->findings[i].kind],
		       shared->findings[i].times, step_name(shared->findings[i].step),
		       shared->findings[i].what);
}

/* All workers find the same addresses: MAP_32BIT takes a random one each time, otherwise. */
static void without_random_addresses(char **argv)
{
	int now = personality(0xffffffff);

	if (now & ADDR_NO_RANDOMIZE || personality(now | ADDR_NO_RANDOMIZE) < 0)
		return;
	execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
	unsigned int i, live = 0;
	sigset_t child;
	static char buffer[BUFSIZ];
	double start;

	/* So that printing allocates nothing, and all workers find the same heap. */
	without_random_addresses(argv);
	setvbuf(stdout, buffer, _IOLBF, sizeof(buffer));
	if (argc > 2)
		percent = strtoul(argv[2], NULL, 0);
	if (argc > 3)
		seed = strtoul(argv[3], NULL, 0);
	skip_if(!backend_is("epk") && !backend_is("mpk"), "has no keys");
	need_backend();
	shared = mmap(NULL, sizeof(*shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	victim_start();
	memory_start();
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	if (run_worker(NULL) != SAME) {
		printf("A process in which nothing is written over ends, in %s\n",
		       step_name(shared->step));
		return 1;
	}
	for (i = 0; i < shared->nr_words; i++)
		live += shared->words[i].live;
	printf("%u bytes in %u places, %u of them not always 0; %u words lead to the victim's "
	       "memory; seed %lu, %lu %%\n", shared->nr_words * 8, shared->nr_areas, live * 8,
	       shared->nr_redirects, seed, percent);
	cases_count();
	for (i = 0; i < NR_PLANS; i++) {
		start = now_in_seconds();
		run_plan(&plans[i]);
		print_plan(&plans[i], now_in_seconds() - start);
		if (!i && !planted_are_found()) {
			print_findings();
			return 1;
		}
	}
	printf("%lu calls in %lu processes\n", shared->calls, shared->processes);
	print_findings();
	return shared->nr_findings ? 1 : 0;
}
