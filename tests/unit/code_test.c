// SPDX-License-Identifier: MIT
/* Memory of domains that is run: who writes it, where, when, and what of it is looked at first. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/uio.h>
#include <time.h>

#include "unit.h"
#include "map_limit.h"
#include "state_page.h"

#define PAGES	4ul
#define LEN	(PAGES * PAGE)
#define RX	(PROT_READ | PROT_EXEC)
#define RWX	(RW | PROT_EXEC)
#define MANY	40
#define GIB	(1ul << 30)

/* mov $number, %eax; ret */
static const unsigned char returns[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
/* mov %esi, (%rdi); ret */
static const unsigned char stores[] = { 0x89, 0x37, 0xc3 };
static const unsigned char wrpkru[] = { 0x0f, 0x01, 0xef }, rex2_wrpkru[] = { 0xd5, 0x80, 0x01, 0xef },
	xrstor[] = { 0x0f, 0xae, 0x2f }, lfence[] = { 0x0f, 0xae, 0xe8 };

static int id;
static char *mem, *run;

static char *code(int dom, size_t len, int prot, char **where)
{
	void *at = NULL;
	char *got = epk_mmap_code(dom, len, prot, &at);

	REQUIRE_NE(got, MAP_FAILED);
	REQUIRE_NE(at, NULL);
	*where = at;
	return got;
}

static int set_up(void **state)
{
	(void)state;
	id = new_domain();
	mem = code(id, LEN, RW, &run);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_all_domains(1, &id);
	return 0;
}

static void put(int dom, char *at, const void *bytes, size_t len)
{
	REQUIRE_EQ(domain_begin(dom, RW), 0);
	memcpy(at, bytes, len);
	REQUIRE_EQ(domain_end(dom), 0);
}

static void emit(int dom, char *at, unsigned char number)
{
	unsigned char bytes[sizeof(returns)];

	memcpy(bytes, returns, sizeof(bytes));
	bytes[1] = number;
	put(dom, at, bytes, sizeof(bytes));
}

/* What was fetched before, by this address, is fetched anew. */
static void serialize(void)
{
	unsigned int a, b, c, d;

	__cpuid(0, a, b, c, d);
}

/* What it returns, or -1: it faults before its first instruction. */
static int try_run(char *at)
{
	int got = -1;

	serialize();
	try_setup();
	try_signal = 0;
	asm volatile("leaq 1f(%%rip), %%rcx\n\t"
		     "movq %%rcx, %[resume]\n\t"
		     /* Not on the red zone; what faults has pushed the address of 1:. */
		     "movq %%rsp, %%rbx\n\t"
		     "subq $256, %%rsp\n\t"
		     "andq $-16, %%rsp\n\t"
		     "call *%[at]\n\t"
		     "movl %%eax, %[got]\n"
		     "1:\tmovq %%rbx, %%rsp\n\t"
		     "movq $0, %[resume]"
		     : [got] "+r"(got), [resume] "=m"(try_resume)
		     : [at] "r"(at)
		     : "rax", "rbx", "rcx", "rdx", "memory");
	return got;
}

static int holder_may(char *at)
{
	char was = 0;
	int prot = PROT_NONE;

	REQUIRE_EQ(domain_begin(id, RW), 0);
	if (try_read(at, &was))
		prot = try_write(at, was) ? RW : PROT_READ;
	REQUIRE_EQ(domain_end(id), 0);
	return prot;
}

/* Nobody writes at the other address, whatever he holds. */
static void *writes_nowhere(void *arg)
{
	char was = 0;

	(void)arg;
	if (try_write(run, 1))
		return "wrote where it runs";
	if (backend_protects() && (try_read(mem, &was) || try_write(mem, 1)))
		return "has the domain";
	return NULL;
}

static void written_or_run(void **state)
{
	(void)state;
	emit(id, mem, 42);
	REQUIRE_EQ(try_run(run), -1);
	REQUIRE_EQ(holder_may(mem), RW);

	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	REQUIRE_EQ(try_run(run), 42);
	REQUIRE_EQ(holder_may(mem), PROT_READ);
	REQUIRE(!writes_nowhere(NULL));
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE(!try_write(run, 1));
	REQUIRE_EQ(try_run(run), 42);
	REQUIRE_EQ(domain_end(id), 0);
	/* Neither is the domain's own address ever run. */
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(try_run(mem), -1);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(try_run(mem), -1);

	REQUIRE_EQ(epk_mprotect(mem, LEN, RW), 0);
	REQUIRE_EQ(try_run(run), -1);
	emit(id, mem, 43);
	REQUIRE_EQ(epk_mprotect(mem, LEN, PROT_READ), 0);
	REQUIRE_EQ(try_run(run), -1);
	REQUIRE_EQ(holder_may(mem), PROT_READ);
	REQUIRE_EQ(epk_mprotect(mem, LEN, PROT_EXEC), 0);
	REQUIRE_EQ(try_run(run), 43);
	REQUIRE_EQ(epk_mprotect(mem, LEN, PROT_NONE), 0);
	REQUIRE_EQ(try_run(run), -1);
	REQUIRE_EQ(holder_may(mem), PROT_NONE);
}

static void page_by_page(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < PAGES; i++)
		emit(id, mem + i * PAGE, i);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, RW), 0);
	for (i = 0; i < PAGES; i++) {
		REQUIRE_EQ(try_run(run + i * PAGE), i == 1 ? -1 : (int)i);
		REQUIRE_EQ(holder_may(mem + i * PAGE), i == 1 ? RW : PROT_READ);
	}
	emit(id, mem + PAGE, 11);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RX), 0);
	REQUIRE_EQ(try_run(run + PAGE), 11);
}

/* A begin and an end, no system call between, while others run it. */
static int live_id;
static char *live, *live_run;
static bool done;

static void *run_it(void *arg)
{
	int got, nr = 0;

	(void)arg;
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE) || nr < 1000) {
		got = try_run(live_run);
		if (got < 0 || got > 0x7f)
			return "it does not run";
		nr++;
		if (backend_is_private() && try_write(live, 0))
			return "another thread writes";
		if (try_write(live_run, 0))
			return "another thread writes where it runs";
	}
	return NULL;
}

static void *write_it(void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < 1000; i++) {
		if (domain_begin(live_id, RW))
			return "no begin";
		__atomic_store_n(&live[1], i & 0x7f, __ATOMIC_RELEASE);
		if (try_run(live_run) < 0)
			return "it does not run for who writes";
		if (domain_end(live_id))
			return "no end";
		if (backend_protects() && try_write(live, 0))
			return "who has ended writes";
	}
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void *run_or_write(void *arg)
{
	void *wrong = arg ? write_it(arg) : run_it(arg);

	/* The others end, too. */
	if (wrong)
		__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	return wrong;
}

static void written_and_run(void **state)
{
	void *args[] = { "", NULL, NULL };
	int i;

	(void)state;
	live_id = id;
	live = code(id, PAGE, RWX, &live_run);
	emit(id, live, 7);
	done = false;
	run_threads(run_or_write, args, 3);
	for (i = 0; i < 1000; i++) {
		emit(id, live, i & 0x7f);
		REQUIRE_EQ(try_run(live_run), i & 0x7f);
	}
	/* To be inspected, it is written no more. */
	REQUIRE_EQ(epk_mprotect(live, PAGE, RX), 0);
	REQUIRE_EQ(holder_may(live), PROT_READ);
	REQUIRE_EQ(epk_mprotect(live, PAGE, RWX), 0);
	REQUIRE_EQ(holder_may(live), RW);
	REQUIRE_EQ(try_run(live_run), 999 & 0x7f);
	/* Which is not inspected. */
	put(id, live + 64, wrpkru, sizeof(wrpkru));
	REQUIRE_EQ(epk_mprotect(live, PAGE, RWX), 0);
	REQUIRE_EQ(try_run(live_run), 999 & 0x7f);
	REQUIRE_EQ(epk_mprotect(live, PAGE, RX), -EACCES);
}

/* In code of one domain, what of another is held: that it lies in no EPT is why that goes. */
static void code_reaches_what_its_thread_holds(void **state)
{
	int ids[MANY], i;
	char *data[MANY];

	(void)state;
	fill_domains(MANY, ids, data, 1);
	put(id, mem, stores, sizeof(stores));
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	for (i = 0; i < MANY; i++) {
		REQUIRE_EQ(domain_begin(ids[i], RW), 0);
		((void (*)(void *, int))run)(data[i], 0x1234 + i);
		REQUIRE_EQ(*(int *)data[i], 0x1234 + i);
		REQUIRE_EQ(domain_end(ids[i]), 0);
	}
	REQUIRE_EQ(free_domains(MANY, ids), 0);
}

/* More domains with code than there are keys, and EPTs' worth. */
static void many(void **state)
{
	int ids[MANY], i, round;
	char *at[MANY], *runs[MANY];

	(void)state;
	REQUIRE_EQ(alloc_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++)
		at[i] = code(ids[i], PAGE, RWX, &runs[i]);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < MANY; i++)
			emit(ids[i], at[i], i + round);
		for (i = 0; i < MANY; i++)
			REQUIRE_EQ(try_run(runs[i]), i + round);
	}
	REQUIRE_EQ(free_domains(MANY, ids), 0);
	for (i = 0; i < MANY; i++)
		REQUIRE_EQ(try_run(runs[i]), -1);
}

/* Refused, and then nothing of it runs, and nobody can write until somebody says so. */
static void refused(char *at, size_t len)
{
	REQUIRE_EQ(epk_mprotect(at, len, RX), -EACCES);
	REQUIRE_EQ(try_run(run + (at - mem)), -1);
	REQUIRE_EQ(holder_may(at), PROT_READ);
	REQUIRE_EQ(epk_mprotect(at, len, RW), 0);
}

static void what_opens_keys_is_refused(void **state)
{
	static const unsigned char all[][4] = {
		{ 0x0f, 0x01, 0xef }, { 0x0f, 0x01, 0xd4 }, { 0x0f, 0xae, 0x2f }, { 0x0f, 0xae, 0x6c },
		/* With REX2: none of it is 0 but what is no part. */
		{ 0xd5, 0x80, 0x01, 0xef }, { 0xd5, 0xff, 0x01, 0xd4 }, { 0xd5, 0x88, 0xae, 0x2f },
	};
	/* Its other map, and a register. */
	static const unsigned char other[] = { 0xd5, 0x7f, 0x01, 0xef, 0xd5, 0x80, 0xae, 0xe8 }, nothing[4];
	/* About the borders of pages, and elsewhere. */
	static const size_t places[] = {
		0, 1, 2, 7, 100, PAGE - 4, PAGE - 3, PAGE - 2, PAGE - 1, PAGE, PAGE + 1, PAGE + 2049, 3 * PAGE - 2,
		3 * PAGE - 1, 3 * PAGE, LEN - 5, LEN - 4, LEN - 3,
	};
	size_t n, i, len;

	(void)state;
	for (n = 0; n < sizeof(all) / sizeof(*all); n++) {
		len = all[n][3] ? 4 : 3;
		for (i = 0; i < sizeof(places) / sizeof(*places) && places[i] + len <= LEN; i++) {
			put(id, mem + places[i], all[n], len);
			refused(mem, LEN);
			put(id, mem + places[i], nothing, len);
		}
	}
	REQUIRE(strstr(epk_strerror(EACCES), "WRPKRU") != NULL);
	put(id, mem + 8, lfence, 3);
	put(id, mem + 16, other, sizeof(other));
	emit(id, mem, 9);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	REQUIRE_EQ(try_run(run), 9);
}

static void lies_across(const unsigned char *bytes, size_t len, size_t first)
{
	static const unsigned char zero[4];

	/* The second is inspected beside the first, which ends well enough for the next byte that it saw. */
	put(id, mem + PAGE - first, bytes, len);
	put(id, mem + PAGE, zero, sizeof(zero));
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RX), 0);
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, RW), 0);
	put(id, mem + PAGE, bytes + first, len - first);
	refused(mem + PAGE, PAGE);
	/* Whoever comes before it is not to end so that it could go on. */
	put(id, mem + PAGE, zero, sizeof(zero));
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RX), -EACCES);
	REQUIRE(strstr(epk_strerror(EACCES), "NOP"));
	REQUIRE_EQ(try_run(run), -1);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RX), 0);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RW), 0);
	put(id, mem + PAGE - first, zero, first);
}

/* One that lies across pages which came to be code one after the other, in either order. */
static void across_pages(void **state)
{
	size_t first;

	(void)state;
	for (first = 1; first < sizeof(wrpkru); first++)
		lies_across(wrpkru, sizeof(wrpkru), first);
	for (first = 1; first < sizeof(rex2_wrpkru); first++)
		lies_across(rex2_wrpkru, sizeof(rex2_wrpkru), first);
	/* What lies before it as a whole is not its own. */
	put(id, mem + PAGE - 3, wrpkru, 3);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RWX), 0);
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, RX), 0);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RW), 0);
	put(id, mem + PAGE - 3, "\0\0", 3);
	put(id, mem + PAGE - 2, xrstor, 2);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RX), -EACCES);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RW), 0);
	/* What is no code yet does not count. */
	put(id, mem + PAGE - 2, wrpkru, 2);
	put(id, mem + PAGE, wrpkru + 2, 1);
	REQUIRE_EQ(epk_mprotect(mem + PAGE, PAGE, RX), 0);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RX), -EACCES);
}

/* A thread that writes all the time, and one that has it inspected: what runs was looked at. */
static bool stop;
static int writing;

/* The byte that makes it bad, and another one, in turn, as fast as can be; it faults when it has become code. */
static void change_until_refused(volatile char *at)
{
	try_setup();
	asm volatile("leaq 2f(%%rip), %%rcx\n\t"
		     "movq %%rcx, %[resume]\n\t"
		     "movl $100000, %%ecx\n"
		     "1:\tmovb $0xef, (%[at])\n\t"
		     "movb $0, (%[at])\n\t"
		     "decl %%ecx\n\t"
		     "jnz 1b\n"
		     "2:\tmovq $0, %[resume]"
		     : [resume] "=m"(try_resume)
		     : [at] "r"(at)
		     : "rcx", "memory");
}

static void *write_bad(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		if (domain_begin(id, RW))
			return "no begin";
		__atomic_store_n(&writing, 1, __ATOMIC_RELEASE);
		change_until_refused(mem + 2);
		__atomic_store_n(&writing, 0, __ATOMIC_RELEASE);
		if (domain_end(id))
			return "no end";
	}
	return NULL;
}

static void *flip_it(void *arg)
{
	time_t began = time(NULL);
	int i, err;

	(void)arg;
	for (i = 0; i < 2000 && time(NULL) - began < 2; i++) {
		/* In the midst of that. */
		while (!__atomic_load_n(&writing, __ATOMIC_ACQUIRE) && time(NULL) - began < 2)
			sched_yield();
		err = epk_mprotect(mem, PAGE, RX);
		if (!err && (unsigned char)run[2] == 0xef)
			return "not looked at";
		if (err && err != -EACCES)
			return "another error";
		if (epk_mprotect(mem, PAGE, RW))
			return "does not go back";
	}
	return NULL;
}

static void *flip_or_write(void *arg)
{
	void *wrong = arg ? flip_it(arg) : write_bad(arg);

	/* The other one ends, too. */
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	if (wrong)
		print_error("%s\n", (char *)wrong);
	return wrong;
}

static void inspected_while_it_is_written(void **state)
{
	void *args[] = { "", NULL };

	(void)state;
	put(id, mem, wrpkru, 2);
	stop = false;
	run_threads(flip_or_write, args, 2);
}

static void handler(int sig)
{
	(void)sig;
	REQUIRE_EQ(try_run(run), 5);
	REQUIRE(!try_write(run, 0));
	if (backend_is_private())
		REQUIRE(!try_write(live, 0));
}

static void in_a_handler(void **state)
{
	(void)state;
	emit(id, mem, 5);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	live = code(id, PAGE, RWX, &live_run);
	signal(SIGUSR1, handler);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	raise(SIGUSR1);
	REQUIRE(try_write(live, 0));
	REQUIRE_EQ(domain_end(id), 0);
}

/* System calls of somebody who may make them: none makes it writable where it runs, or moves it. */
static void by_system_calls(void **state)
{
	struct iovec from = { "\x01", 1 }, to = { run, 1 };
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/fd");
	char target[64];

	(void)state;
	emit(id, mem, 5);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	REQUIRE_EQ(mprotect(run, PAGE, RW), -1);
	REQUIRE_EQ(errno, EACCES);
	REQUIRE_EQ(mprotect(run, PAGE, RWX), -1);
	REQUIRE_EQ(pwrite(fd, "\x01", 1, (off_t)(uintptr_t)run + 1), -1);
	REQUIRE_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), -1);
	REQUIRE_EQ(madvise(run, PAGE, MADV_REMOVE), -1);
	REQUIRE_EQ(madvise(run, PAGE, MADV_DONTNEED), 0);
	if (backend_is("epk") || backend_is("vmfunc")) {
		REQUIRE_EQ(mprotect(mem, PAGE, RX), -1);
		REQUIRE_EQ(errno, EACCES);
		REQUIRE_EQ(pwrite(fd, "\x01", 1, (off_t)(uintptr_t)mem + 1), -1);
		REQUIRE_EQ(munmap(mem, PAGE), -1);
	}
	/* No descriptor is left that one could write to, or map. */
	while ((entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		target[len < 0 ? 0 : len] = '\0';
		REQUIRE(!strstr(target, "epk-code"));
	}
	closedir(dir);
	close(fd);
	REQUIRE_EQ(try_run(run), 5);
}

static void child(void)
{
	struct epk_options options = { .size = sizeof(options), .flags = EPK_CODE };
	int own;
	void *at;
	char was, *got;

	REQUIRE(try_run(run) == -1);
	REQUIRE(!try_read(run, &was) && !try_read(mem, &was));
	REQUIRE(epk_mmap_code(id, PAGE, RW, &at) == MAP_FAILED && errno == EOPNOTSUPP);
	REQUIRE(!epk_init(&options) && !alloc_domains(1, &own));
	got = epk_mmap_code(own, PAGE, RWX, &at);
	REQUIRE(got != MAP_FAILED);
	EPK_WITH(own, RW)
		memcpy(got, returns, sizeof(returns));
	REQUIRE(try_run(at) == 0);
}

static void forked(void **state)
{
	(void)state;
	emit(id, mem, 5);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	run_in_child(child);
	REQUIRE_EQ(try_run(run), 5);
}

static char *plain(char *addr)
{
	return mmap(addr, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void unmapped_in_part(void **state)
{
	struct unit_resources before;
	char *again, *again_run;
	size_t i;

	(void)state;
	for (i = 0; i < PAGES; i++)
		emit(id, mem + i * PAGE, i);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	REQUIRE_EQ(domain_munmap(mem + PAGE, PAGE), 0);
	REQUIRE_EQ(epk_munmap_reserve(mem + 3 * PAGE, PAGE), 0);
	for (i = 0; i < PAGES; i++)
		REQUIRE_EQ(try_run(run + i * PAGE), i & 1 ? -1 : (int)i);
	/* Nothing else can come to lie there. */
	REQUIRE_EQ(plain(run + PAGE), MAP_FAILED);
	REQUIRE_EQ(plain(mem + PAGE), MAP_FAILED);
	REQUIRE_EQ(epk_mprotect(mem, 2 * PAGE, RX), -EINVAL);
	REQUIRE_EQ(epk_mprotect(mem + 2 * PAGE, 2 * PAGE, RWX), -EINVAL);
	/* Nothing of what has failed runs, to be written or not. */
	REQUIRE_EQ(try_run(run), -1);
	REQUIRE_EQ(try_run(run + 2 * PAGE), -1);
	before = count_resources();
	again = code(id, PAGE, RW, &again_run);
	REQUIRE_EQ(again, mem + PAGE);
	REQUIRE_EQ(again_run, run + PAGE);
	/* It is empty, and not what was there. */
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_EQ(again[0], 0);
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(domain_munmap(again, PAGE), 0);
	require_nothing_lost(before);
}

/* Where nothing more can be mapped, it runs no more all the same. */
static void unmapped_at_the_limit(void **state)
{
	int err, got;

	(void)state;
	if (!limit_is_near())
		skip();
	emit(id, mem, 4);
	REQUIRE_EQ(epk_mprotect(mem, LEN, RX), 0);
	limit_reach();
	/* Which mmap() has a mapping later than mprotect(). */
	while (mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		;
	err = domain_munmap(mem, LEN);
	got = try_run(run);
	limit_forget();
	REQUIRE_EQ(err, -ENOMEM);
	REQUIRE_EQ(got, -1);
}

static void arguments(void **state)
{
	int freed = new_domain();
	struct unit_resources before;
	void *at = &freed;

	(void)state;
	free_domain(freed);
	before = count_resources();
	REQUIRE_EQ(epk_mmap_code(id, PAGE, PROT_READ, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(id, PAGE, RX, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(id, PAGE, RW | 8, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(id, PAGE, RW, NULL), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(id, 0, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(id, SIZE_MAX, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EOVERFLOW);
	REQUIRE_EQ(epk_mmap_code(id, GIB + 1, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE_EQ(epk_mmap_code(id, GIB, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, ENOMEM);
	REQUIRE(strstr(epk_strerror(ENOMEM), "1 GiB"));
	REQUIRE_EQ(epk_mmap_code(-1, PAGE, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, EINVAL);
	REQUIRE_EQ(epk_mmap_code(freed, PAGE, RW, &at), MAP_FAILED);
	REQUIRE_EQ(errno, ENOENT);
	REQUIRE_EQ(at, &freed);
	REQUIRE_EQ(epk_mprotect(mem, PAGE, RX | 8), -EINVAL);
	REQUIRE_EQ(epk_mprotect(run, PAGE, RX), -EINVAL);
	REQUIRE_EQ(epk_mprotect(mem + LEN, PAGE, RX), -EINVAL);
	REQUIRE_EQ(domain_munmap(run, PAGE), -EINVAL);
	require_nothing_lost(before);
	/* Other memory of the domain is never run. */
	at = new_pages(id, 1);
	REQUIRE_EQ(epk_mprotect(at, PAGE, RX), -EINVAL);
	REQUIRE_EQ(epk_mprotect(at, PAGE, RWX), -EINVAL);
	REQUIRE_EQ(holder_may(at), RW);
}

static void fits_its_room(void **state)
{
	char *most, *most_run;

	(void)state;
	most = code(id, GIB - LEN, RW, &most_run);
	REQUIRE_EQ(epk_mmap_code(id, PAGE, RW, (void **)&most_run), MAP_FAILED);
	REQUIRE_EQ(errno, ENOMEM);
	emit(id, most + GIB - LEN - PAGE, 3);
	REQUIRE_EQ(epk_mprotect(most + GIB - LEN - PAGE, PAGE, RX), 0);
	REQUIRE_EQ(try_run(most_run + GIB - LEN - PAGE), 3);
	REQUIRE_EQ(domain_munmap(most, GIB - LEN), 0);
}

/* Nobody has asked for it: then there is none. */
static void not_allowed(void)
{
	struct epk_options options = { .size = sizeof(options), .flags = EPK_CODE };
	int own;
	void *at;

	REQUIRE(!alloc_domains(1, &own));
	REQUIRE(epk_mmap_code(own, PAGE, RW, &at) == MAP_FAILED && errno == EOPNOTSUPP);
	REQUIRE(strstr(epk_strerror(errno), "EPK_CODE"));
	REQUIRE(!epk_now.code);
	REQUIRE(epk_init(&options) == -EALREADY);
	REQUIRE(epk_mmap_code(own, PAGE, RW, &at) == MAP_FAILED && errno == EOPNOTSUPP);
}

static void by_option_alone(void **state)
{
	(void)state;
	run_in_child(not_allowed);
}

#define WITH_CODE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CODE(written_or_run),
		WITH_CODE(page_by_page),
		WITH_CODE(written_and_run),
		WITH_CODE(code_reaches_what_its_thread_holds),
		WITH_CODE(many),
		WITH_CODE(what_opens_keys_is_refused),
		WITH_CODE(across_pages),
		WITH_CODE(inspected_while_it_is_written),
		WITH_CODE(in_a_handler),
		WITH_CODE(by_system_calls),
		WITH_CODE(forked),
		WITH_CODE(unmapped_in_part),
		WITH_CODE(unmapped_at_the_limit),
		WITH_CODE(arguments),
		WITH_CODE(fits_its_room),
		WITH_CODE(by_option_alone),
	};
	struct epk_options options = { .size = sizeof(options), .flags = EPK_CODE };

	need_backend();
	if (epk_init(&options)) {
		printf("no code with backend %s\n", unit_backend());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
