// SPDX-License-Identifier: MIT
/*
 * What opening and closing protected memory takes: by the library's backends, by libmpk's algorithm
 * and by what all of these are made of; by the number of domains and by their size.
 *
 * micro_bench [quick|some]: all of it; a part that takes seconds; or what this machine has of it,
 * where without a word what cannot be measured is an error.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "program.h"
#include "pkru.h"
#include "table.h"

#define RW		(PROT_READ | PROT_WRITE)
#define PAGE		4096
/* Domains that are used in turn, with memory; there may be more. */
#define MOST_USED	10000
#define MOST		100000
/* Two that follow each other are in two EPTs, if there are so many. */
#define STEP		17
/* Where libmpk's memory lies, and so what of it the kernel merges, is another in each run. */
#define LIBMPK_WITHIN	20
/* What mprotect() gives back is freed later, all at once, and cheap for a while: so many meet that. */
#define LIBMPK_BATCHES	80

/* Of a child that ends so, nothing was measured. */
static void init(void)
{
	init_by(how, 0);
}

/* What the library and libmpk are made of. */

static void two_wrpkru(int i)
{
	uint32_t pkru = rdpkru();

	(void)i;
	asm volatile("xor %%ecx, %%ecx\n\t"
		     "xor %%edx, %%edx\n\t"
		     "wrpkru\n\t"
		     "wrpkru" : : "a" (pkru) : "rcx", "rdx", "memory");
}

static void no_two(int i)
{
	(void)i;
	if (no_call(1) || no_call(1))
		abort();
}

static void null_syscall(int i)
{
	(void)i;
	syscall(SYS_getppid);
}

/* KVM refuses any from user mode: the way there and back is all that it takes. */
static void null_hypercall(int i)
{
	long nr = 0;

	(void)i;
	asm volatile("vmcall" : "+a"(nr) : : "memory");
}

static char *page;

static void two_mprotects(int i)
{
	(void)i;
	if (mprotect(page, PAGE, RW) || mprotect(page, PAGE, PROT_NONE))
		abort();
}

/* Virtual keys in turn. */
static int vkeys = 1;

static void libmpk_in_turn(int i)
{
	int vkey = 1 + i % vkeys;

	if (libmpk_begin(vkey, RW) || libmpk_end(vkey))
		abort();
}

static sigjmp_buf refused;

static void on_sigill(int signal)
{
	siglongjmp(refused, signal);
}

/* No VM, or an emulator without VT-x. */
static bool has_hypercalls(void)
{
	bool has = false;

	signal(SIGILL, on_sigill);
	if (!sigsetjmp(refused, 1)) {
		null_hypercall(0);
		has = true;
	}
	signal(SIGILL, SIG_DFL);
	return has;
}

static char *anonymous(size_t bytes)
{
	char *mem = mmap(NULL, bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	need(mem != MAP_FAILED, "mmap");
	madvise(mem, bytes, MADV_NOHUGEPAGE);
	return mem;
}

static void take_pkeys(int nr)
{
	while (nr--)
		need(pkey_alloc(0, PKEY_DISABLE_ACCESS) > 0, "pkey_alloc");
}

/* A virtual key more than there are real ones, used in turn, makes each begin a miss. */
static void means(void)
{
	static const struct bench_case
	syscall_row = { "null system call", "-", null_syscall, NULL, 0, 0 },
	hypercall_row = { "null hypercall", "null system call", null_hypercall, NULL, 0, 0 },
	mprotect_row = { "mprotect, twice", "null system call", two_mprotects, NULL, 0, 0 },
	wrpkru_row = { "two WRPKRU", "null system call", two_wrpkru, NULL, 0, 0 },
	glibc_row = { "pkey_set, twice", "two WRPKRU", glibc_pair, no_two, NO_CALLS, 0 },
	hit_row = { "libmpk, hit", "two WRPKRU", libmpk_in_turn, no_two, NO_CALLS, 0 },
	miss_row = { "libmpk, miss", "mprotect, twice", libmpk_in_turn, no_two, NO_CALLS,
		     LIBMPK_WITHIN };
	struct bench_at at = { .table = "means" };
	int i;

	how = "means";
	page = anonymous(PAGE);
	*page = 1;
	bench_row(&syscall_row, &at);
	if (has_hypercalls())
		bench_row(&hypercall_row, &at);
	else if (!some)
		need(false, "null hypercall");
	bench_row(&mprotect_row, &at);
	bench_row(&wrpkru_row, &at);
	take_pkeys(15);
	bench_row(&glibc_row, &at);
	libmpk_keys(1, 15);
	for (i = 1; i <= 16; i++) {
		char *mem = anonymous(PAGE);

		*mem = 1;
		need(!libmpk_add(i, mem, PAGE), "libmpk_add");
	}
	bench_row(&hit_row, &at);
	vkeys = 16;
	/* Whole rounds. */
	at.batch = 96;
	at.steps = 32;
	bench_row(&miss_row, &at);
}

/* The library's pair, by how many domains are used in turn. */

static int ids[MOST], nr_ids, used;

static void in_turn(int i)
{
	libepk_pair(ids[(long)i * STEP % used]);
}

static void in_turn_no_pair(int i)
{
	no_pair(ids[(long)i * STEP % used]);
}

static void vmfunc(unsigned int ept)
{
	asm volatile(".byte 0x0f, 0x01, 0xd4" : : "a"(0), "c"(ept) : "memory");
}

static int epts[2];

static void two_vmfunc(int i)
{
	(void)i;
	vmfunc(epts[0]);
	vmfunc(epts[1]);
}

/* Domains that have been made so far get more; those that are used get a page. */
static bool make_domains(int nr, size_t bytes)
{
	for (; nr_ids < nr; nr_ids++) {
		char *mem;

		if (alloc_domains(1, &ids[nr_ids]))
			return false;
		if (nr_ids >= MOST_USED || !bytes)
			continue;
		mem = domain_mmap(ids[nr_ids], NULL, bytes, RW, 0);
		need(mem != MAP_FAILED, "domain_mmap");
		if (domain_begin(ids[nr_ids], RW))
			return false;
		for (size_t at = 0; at < bytes; at += PAGE)
			mem[at] = 1;
		need(!domain_end(ids[nr_ids]), "domain_end");
	}
	used = nr < MOST_USED ? nr : MOST_USED;
	return true;
}

static void vmfunc_rows(void)
{
	static const struct bench_case
	vmfunc_row = { "two VMFUNC", "null system call", two_vmfunc, NULL, 0, 0 },
	same_row = { "epk, same EPT", "two WRPKRU", in_turn, in_turn_no_pair, NO_CALLS, 0 },
	other_row = { "epk, another EPT", "two WRPKRU", in_turn, in_turn_no_pair, NO_CALLS, 0 };
	struct bench_at at = { .table = "means" };

	how = "epk";
	init();
	need(make_domains(15 + STEP, PAGE), "alloc_domains");
	used = 1;
	bench_row(&same_row, &at);
	/* The last with the first. */
	ids[1] = ids[14 + STEP];
	used = 2;
	epk_domain_place(ids[0], &epts[0], NULL);
	epk_domain_place(ids[1], &epts[1], NULL);
	if (epts[0] == epts[1] && some)
		return;
	errno = 0;
	need(epts[0] != epts[1], "two EPTs");
	bench_row(&other_row, &at);
	/* The thread was in the second's. */
	bench_row(&vmfunc_row, &at);
}

static const long numbers[] = { 1, 2, 8, 15, 16, 30, 64, 256, 1024, 4096, 7680, MOST };
/* A quick run has these as they begin, so that all before each is the same. */
#define QUICK_NUMBERS	7

static int points(void)
{
	return quick ? QUICK_NUMBERS : sizeof(numbers) / sizeof(*numbers);
}

/* Whole rounds; those that take long are measured less often. */
static struct bench_at at_number(long nr)
{
	struct bench_at at = { .table = "domains", .domains = nr, .bytes = PAGE };
	int n = nr < MOST_USED ? nr : MOST_USED;

	at.batch = n >= 100 ? n : n * (100 / n + 1);
	at.batches = n > 500 ? 1 : n > 100 ? 5 : 20;
	at.steps = n < 64 ? n : 64;
	return at;
}

static void by_number(void)
{
	struct bench_case row = { how, "none", in_turn, in_turn_no_pair, NO_CALLS, 0 };
	int nr = points(), i;

	if (!strcmp(how, "none"))
		row.baseline = "-";
	init();
	for (i = 0; i < nr; i++) {
		struct bench_at at = at_number(numbers[i]);

		if (make_domains(numbers[i], PAGE))
			bench_row(&row, &at);
		else
			bench_no_row(&row, &at, "no place for so many");
	}
}

static void libmpk_by_number(void)
{
	static const struct bench_case row = { "libmpk", "none", libmpk_in_turn, no_two, NO_CALLS,
					       LIBMPK_WITHIN };
	int nr = points(), i, made = 0;

	take_pkeys(15);
	libmpk_keys(1, 15);
	for (i = 0; i < nr && numbers[i] <= MOST_USED; i++) {
		struct bench_at at = at_number(numbers[i]);

		if (at.domains <= 100)
			at.batches = LIBMPK_BATCHES;
		for (; made < numbers[i]; made++) {
			char *mem = anonymous(PAGE);

			*mem = 1;
			need(!libmpk_add(made + 1, mem, PAGE), "libmpk_add");
		}
		vkeys = made;
		bench_row(&row, &at);
	}
}

/* By their size.  Where a key has to change hands there is one for two of them. */

static const long sizes[] = { PAGE, 64 << 10, 1 << 20, 16 << 20, 256 << 20 };
static const long quick_sizes[] = { PAGE, 1 << 20 };
static long size;

static struct bench_at at_size(void)
{
	struct bench_at at = { .table = "sizes", .domains = 2, .bytes = size };

	at.batch = size > 1 << 20 ? 4 : 100;
	at.batches = size > 1 << 20 ? 3 : 20;
	at.steps = 4;
	return at;
}

/* Reading is enough for page table entries, which is what counts; and takes no memory. */
static void read_all(const volatile char *mem)
{
	for (long at = 0; at < size; at += PAGE)
		(void)mem[at];
}

static void by_size(void)
{
	struct bench_case row = { how, "none", in_turn, in_turn_no_pair, NO_CALLS, 0 };
	struct bench_at at = at_size();
	bool epk = !strcmp(how, "epk");
	int i, nr = epk ? 2 + 15 : 2;

	if (!strcmp(how, "none"))
		row.baseline = "-";
	if (!strcmp(how, "mpk"))
		take_pkeys(13);
	init();
	need(make_domains(nr, 0), "alloc_domains");
	/* The first and the last, which lies in another EPT. */
	ids[1] = ids[nr - 1];
	used = 2;
	for (i = 0; i < 2; i++) {
		/* There is not twice as much RAM. */
		char *mem = domain_mmap(ids[i], NULL, i && epk ? PAGE : size, RW, MAP_PRIVATE);

		need(mem != MAP_FAILED, "domain_mmap");
		madvise(mem, size, MADV_NOHUGEPAGE);
		need(!domain_begin(ids[i], RW), "domain_begin");
		if (!i || !epk)
			read_all(mem);
		need(!domain_end(ids[i]), "domain_end");
	}
	bench_row(&row, &at);
}

static void libmpk_by_size(void)
{
	static const struct bench_case row = { "libmpk", "none", libmpk_in_turn, no_two, NO_CALLS,
					       LIBMPK_WITHIN };
	struct bench_at at = at_size();
	int i;

	take_pkeys(1);
	libmpk_keys(1, 1);
	for (i = 1; i <= 2; i++) {
		char *mem = anonymous(size);

		read_all(mem);
		need(!libmpk_add(i, mem, size), "libmpk_add");
	}
	vkeys = 2;
	bench_row(&row, &at);
}

static int failed;

static void in_child(void (*body)(void))
{
	failed |= bench_traced(body) != 0;
}

int main(int argc, char **argv)
{
	static const char *const backends[] = { "none", "epk", "vmfunc", "mpk", "mprotect" };
	size_t i, nr;

	bench_extent(argc, argv, NULL);
	in_child(means);
	in_child(vmfunc_rows);
	for (i = 0; i < sizeof(backends) / sizeof(*backends); i++) {
		how = backends[i];
		in_child(by_number);
	}
	how = "libmpk";
	in_child(libmpk_by_number);
	nr = quick ? sizeof(quick_sizes) / sizeof(*quick_sizes) : sizeof(sizes) / sizeof(*sizes);
	while (nr--) {
		size = quick ? quick_sizes[nr] : sizes[nr];
		for (i = 0; i < sizeof(backends) / sizeof(*backends); i++) {
			/* One EPT a domain: nothing else to see there than with "epk". */
			how = backends[i];
			if (strcmp(how, "vmfunc"))
				in_child(by_size);
		}
		how = "libmpk";
		in_child(libmpk_by_size);
	}
	return failed;
}
