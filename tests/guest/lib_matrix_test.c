// SPDX-License-Identifier: MIT
/*
 * The full access matrix: with each of 45 domains held, try every domain, for
 * reading and for writing, in user mode and through system calls.  And once
 * with none held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include <epk.h>

#include "../try.h"

#define GROUPS	3	/* of one EPT each */
#define KEYS	15
#define DOMAINS	(GROUPS * KEYS)
#define PAGE	4096

static int failures;

#define CHECK(cond, ...)						\
	do {								\
		if (!(cond) && ++failures <= 20) {			\
			printf("%s: ", #cond);				\
			printf(__VA_ARGS__);				\
			putchar('\n');					\
		}							\
	} while (0)

static int ids[DOMAINS], epts[DOMAINS], keys[DOMAINS];
static char *mem[DOMAINS];
static int to_pipe[2], self_mem;
static bool reads_obey;
static int current_ept, unjudged;

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static void set_up(void)
{
	bool alone = false;
	int i, g;

	for (g = 0; g < GROUPS; g++)
		must(!alloc_domains(KEYS, ids + g * KEYS), "alloc_domains");
	for (i = 0; i < DOMAINS; i++) {
		must(!epk_domain_place(ids[i], &epts[i], &keys[i]), "epk_domain_place");
		mem[i] = domain_mmap(ids[i], NULL, PAGE, PROT_READ | PROT_WRITE, 0);
		must(mem[i] != MAP_FAILED, "domain_mmap");
		must(!domain_begin(ids[i], PROT_READ | PROT_WRITE), "domain_begin");
		mem[i][0] = i;
		mem[i][1] = 0;
		must(!domain_end(ids[i]), "domain_end");
	}
	/* The groups are in different EPTs, each in one; or all but one are nowhere. */
	for (i = 0; i < DOMAINS; i++)
		alone |= epts[i] < 0;
	for (i = 0; i < DOMAINS && !alone; i++) {
		CHECK(epts[i] == epts[i / KEYS * KEYS], "domain %d", i);
		CHECK(i < KEYS || epts[i] != epts[i - KEYS], "domain %d", i);
	}
	must(!pipe(to_pipe), "pipe");
	self_mem = open("/proc/self/mem", O_RDWR);
	must(self_mem >= 0, "/proc/self/mem");
}

/*
 * Does this CPU have the kernel's own accesses obey a closed key?  The manual says
 * so; Bochs 2.7 checks them for the write-disable bit alone.  Ask a page that
 * has nothing to do with us.
 */
static bool kernel_reads_obey_keys(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool obeys;
	char value;

	must(page != MAP_FAILED, "mmap");
	page[0] = 1;
	must(!pkey_mprotect(page, PAGE, PROT_READ | PROT_WRITE, keys[0]), "pkey_mprotect");
	must(!try_read(page, &value), "the key is not closed");
	obeys = write(to_pipe[1], page, 1) == -1;
	if (!obeys)
		must(read(to_pipe[0], &value, 1) == 1, "read");
	munmap(page, PAGE);
	return obeys;
}

/* User mode: allowed, or SEGV_PKUERR. */
static void try_user(int i, bool may_read, bool may_write, int held)
{
	char value = -1;

	CHECK(try_read(mem[i], &value) == may_read, "read %d, held %d", i, held);
	CHECK(may_read ? value == i : try_code == SEGV_PKUERR,
	      "read %d, held %d: %d, code %d", i, held, value, try_code);
	CHECK(try_write(mem[i] + 1, 7) == may_write, "write %d, held %d", i, held);
	CHECK(may_write || try_code == SEGV_PKUERR, "write %d, held %d: code %d", i, held,
	      try_code);
}

/* The kernel on behalf of the thread: the same rights, EFAULT otherwise. */
static void try_system_calls(int i, bool may_read, bool may_write, int held)
{
	struct iovec local, remote = { mem[i], 1 };
	char value = 9;
	ssize_t n;

	n = write(to_pipe[1], mem[i], 1);
	if (!may_read && n == 1 && !reads_obey && epts[i] == current_ept)
		unjudged++;
	else
		CHECK(may_read ? n == 1 : n == -1 && errno == EFAULT, "write(2) from %d, held %d",
		      i, held);
	if (n != 1)
		must(write(to_pipe[1], &value, 1) == 1, "write");
	n = read(to_pipe[0], mem[i] + 1, 1);
	if (!may_read && n == 1 && !reads_obey && epts[i] == current_ept)
		unjudged++;
	else
		CHECK(may_write ? n == 1 : n == -1 && errno == EFAULT, "read(2) into %d, held %d", i, held);
	if (n != 1)
		must(read(to_pipe[0], &value, 1) == 1, "read");

	/* Ways that plain protection keys leave open: closed, held or not. */
	local = (struct iovec){ &value, 1 };
	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == -1,
	      "process_vm_readv from %d, held %d", i, held);
	CHECK(process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == -1,
	      "process_vm_writev to %d, held %d", i, held);
	CHECK(pread(self_mem, &value, 1, (off_t)mem[i]) == -1, "/proc/self/mem of %d, held %d", i,
	      held);
	CHECK(pwrite(self_mem, &value, 1, (off_t)mem[i]) == -1, "/proc/self/mem of %d, held %d", i,
	      held);
}

static void row(int held, int prot)
{
	int i;

	if (held >= 0) {
		must(!domain_begin(ids[held], prot), "domain_begin");
		current_ept = epts[held];
	}
	for (i = 0; i < DOMAINS; i++) {
		bool may_read = i == held, may_write = may_read && prot & PROT_WRITE;

		try_user(i, may_read, may_write, held);
		try_system_calls(i, may_read, may_write, held);
	}
	if (held >= 0)
		must(!domain_end(ids[held]), "domain_end");
}

int main(void)
{
	struct epk_options options = { .size = sizeof(options), .backend = "epk" };
	int held;

	must(!epk_init(&options), "epk_init");
	set_up();
	reads_obey = kernel_reads_obey_keys();
	/* domain_end() stays in the EPT. */
	current_ept = epts[DOMAINS - 1];
	row(-1, 0);
	for (held = 0; held < DOMAINS; held++) {
		row(held, PROT_READ);
		row(held, PROT_READ | PROT_WRITE);
	}
	row(-1, 0);
	must(!free_domains(DOMAINS, ids), "free_domains");
	printf("%d rows of %d domains in %d EPTs, %d failures\n", 2 * DOMAINS + 2, DOMAINS, GROUPS,
	       failures);
	if (!reads_obey)
		printf("this CPU lets the kernel through any closed key: %d system calls not judged\n",
		       unjudged);
	return failures != 0;
}
