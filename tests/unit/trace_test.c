// SPDX-License-Identifier: MIT
/*
 * What docs/operations.md has root watch in a running process: begins and ends by uprobes where the
 * library's probes are, at the first instruction; moves, faults and refusals by the module's tracepoints.
 * The program does what it did.  Each begin and end is there once, with its domain; so is each place that
 * a domain gets, and each access of an instruction that is refused, with its address; and the first touch of
 * a page, with address and EPT, and no later one.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define TRACING	"/sys/kernel/tracing"
#define NR	40
#define ROUNDS	3

static char instance[64], group[32], text[1 << 17];
static int ids[NR];
static char *mem[NR];

static bool put(const char *folder, const char *name, const char *what)
{
	char path[256];
	int fd;
	bool well;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	well = fd >= 0 && write(fd, what, strlen(what)) == (ssize_t)strlen(what);
	close(fd);
	return well;
}

/* How many lines of the trace so far have both. */
static int lines(const char *event, const char *of)
{
	char path[128], *line, *rest = text;
	int fd, nr = 0;
	ssize_t len, got;

	snprintf(path, sizeof(path), "%s/trace", instance);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (len = 0; (got = read(fd, text + len, sizeof(text) - 1 - len)) > 0; len += got)
		;
	close(fd);
	text[len] = 0;
	while ((line = strsep(&rest, "\n")))
		nr += strstr(line, event) && strstr(line, of);
	return nr;
}

static __attribute__((format(printf, 1, 2))) const char *words(const char *format, ...)
{
	static char out[64];
	va_list args;

	va_start(args, format);
	vsnprintf(out, sizeof(out), format, args);
	va_end(args);
	return out;
}

/* Where in this program's file a function is: the program is at its place, or anywhere. */
static int find_offset(struct dl_phdr_info *info, size_t size, void *data)
{
	unsigned long *at = data;
	int i;

	(void)size;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *head = &info->dlpi_phdr[i];
		unsigned long start = info->dlpi_addr + head->p_vaddr;

		if (head->p_type == PT_LOAD && *at >= start && *at - start < head->p_filesz) {
			*at += head->p_offset - start;
			return 1;
		}
	}
	return 0;
}

static bool probe(const char *name, void *function)
{
	unsigned long offset = (uintptr_t)function;
	char exe[128], command[320];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[len > 0 ? len : 0] = 0;
	if (dl_iterate_phdr(find_offset, &offset) != 1)
		return false;
	snprintf(command, sizeof(command), "p:%s/%s %s:%#lx dom=%%di:s32\n", group, name, exe,
		 offset);
	return put(TRACING, "uprobe_events", command);
}

static void begins_and_ends(void **state)
{
	char event[64], byte;
	int i, round;

	(void)state;
	if (access(TRACING "/uprobe_events", W_OK)) {
		print_message("this kernel has no uprobes\n");
		skip();
	}
	REQUIRE(probe("written", epk_begin_write));
	REQUIRE(probe("read", epk_begin_read));
	REQUIRE(probe("ended", domain_end));
	snprintf(event, sizeof(event), "events/%s/enable", group);
	REQUIRE(put(instance, event, "1"));
	for (round = 0; round < ROUNDS; round++)
		for (i = 0; i < NR; i++) {
			REQUIRE_EQ(domain_begin(ids[i], RW), 0);
			mem[i][1 + round]++;
			REQUIRE_EQ(domain_end(ids[i]), 0);
			REQUIRE_EQ(domain_begin(ids[i], PROT_READ), 0);
			REQUIRE_EQ(mem[i][1 + round], 1);
			REQUIRE_EQ(domain_end(ids[i]), 0);
			if (backend_protects())
				REQUIRE(!try_read(mem[i], &byte));
		}
	/* A right that is not a constant where it is asked for comes by the same way. */
	REQUIRE_EQ(domain_begin(ids[0], (volatile int){ RW }), 0);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE(put(instance, event, "0"));
	REQUIRE_EQ(domain_begin(ids[1], RW), 0);
	REQUIRE_EQ(domain_end(ids[1]), 0);

	REQUIRE_EQ(lines(" written: ", ""), ROUNDS * NR + 1);
	REQUIRE_EQ(lines(" read: ", ""), ROUNDS * NR);
	REQUIRE_EQ(lines(" ended: ", ""), 2 * ROUNDS * NR + 1);
	for (i = 1; i < NR; i++)
		REQUIRE_EQ(lines(" written: ", words("dom=%d", ids[i])), ROUNDS);
}

/* However the test ends: probes stay in the file for whoever runs it, otherwise. */
static int take_away(void **state)
{
	const char *names[] = { "written", "read", "ended" };
	char name[64];
	unsigned int i;

	(void)state;
	snprintf(name, sizeof(name), "events/%s/enable", group);
	put(instance, name, "0");
	put(instance, "events/epk/enable", "0");
	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(name, sizeof(name), "-:%s/%s\n", group, names[i]);
		put(TRACING, "uprobe_events", name);
	}
	return rmdir(instance);
}

static int refused(int id, const void *at)
{
	return lines(" epk_refused: ", words("id=%d addr=%#lx ", id, (uintptr_t)at));
}

static int placed(int id)
{
	return lines(" epk_place: ", words("id=%d ", id));
}

static bool watches(const char *event)
{
	char path[64];

	snprintf(path, sizeof(path), "events/epk/%s/enable", event);
	return put(instance, path, "1");
}

/* The first touch of a page, and where a domain goes when others need its key. */
static void moves_and_faults(void **state)
{
	int id, ept, elsewhere, before;
	volatile char *page;
	uintptr_t addr;

	(void)state;
	if (!backend_is("epk"))
		skip();
	REQUIRE(watches("epk_place") && watches("epk_fault"));
	id = new_domain();
	REQUIRE_EQ(placed(id), 1);
	REQUIRE_EQ(lines(" epk_fault: ", ""), 0);
	page = new_pages(id, 2);
	addr = (uintptr_t)page;
	REQUIRE_EQ(domain_begin(id, RW), 0);
	page[0] = 1;
	page[1] = 1;
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE_EQ(epk_domain_place(id, &ept, NULL), 0);
	REQUIRE_EQ(lines(" epk_fault: ", words("addr=%#lx ept=%d ", addr, ept)), 1);
	REQUIRE_EQ(lines(" epk_fault: ", words("addr=%#lx ", addr)), 1);
	REQUIRE_EQ(lines(" epk_fault: ", words("addr=%#lx ", addr + PAGE)), 0);
	/* Where the other one is elsewhere, or nowhere, one of them moves. */
	REQUIRE_EQ(epk_domain_place(ids[0], &elsewhere, NULL), 0);
	before = placed(id) + placed(ids[0]);
	REQUIRE_EQ(epk_gather(2, (int[]){ id, ids[0] }), 0);
	REQUIRE(placed(id) + placed(ids[0]) >= before + (elsewhere != ept));
}

/* Whether a handler goes on, a call returns, or a system call has its error. */
static void refusals(void **state)
{
	int id, other, pipes[2];
	char *page, byte;

	(void)state;
	if (!backend_is("epk"))
		skip();
	REQUIRE(watches("epk_refused"));
	id = new_domain();
	page = new_pages(id, 1);
	other = new_domain();
	REQUIRE_EQ(domain_begin(id, RW), 0);
	page[5] = 1;
	REQUIRE_EQ(domain_end(id), 0);
	REQUIRE(!try_read(NULL, &byte));
	REQUIRE_EQ(lines(" epk_refused: ", ""), 0);
	REQUIRE_EQ(domain_begin(other, RW), 0);
	REQUIRE(!try_read(page + 5, &byte));
	domain_end(other);
	REQUIRE_EQ(refused(id, page + 5), 1);
	REQUIRE_EQ(lines(" epk_refused: ", " write=0"), 1);
	REQUIRE(!try_write(page + 6, 1));
	REQUIRE_EQ(refused(id, page + 6), 1);
	REQUIRE_EQ(lines(" epk_refused: ", " write=1"), 1);
	REQUIRE_EQ(pipe(pipes), 0);
	REQUIRE_EQ(write(pipes[1], page + 7, 1), -1);
	REQUIRE_EQ(errno, EFAULT);
	/* The kernel may try more than once. */
	REQUIRE(refused(id, page + 7) >= 1);
	REQUIRE_EQ(lines(" epk_refused: ", ""), 2 + refused(id, page + 7));
	close(pipes[0]);
	close(pipes[1]);
	free_domain(other);
	free_domain(id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begins_and_ends),
		cmocka_unit_test(moves_and_faults),
		cmocka_unit_test(refusals),
	};

	need_backend();
	/* Where nobody has mounted it: for this process alone. */
	if (access(TRACING "/instances", W_OK) && !unshare(CLONE_NEWNS) &&
	    !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		mount("tracefs", TRACING, "tracefs", 0, NULL);
	snprintf(group, sizeof(group), "epk_test_%d", getpid());
	snprintf(instance, sizeof(instance), TRACING "/instances/%s", group);
	skip_if(mkdir(instance, 0700), "the kernel has no tracing, or this is not root");
	fill_domains(NR, ids, mem, 1);
	return cmocka_run_group_tests(tests, NULL, take_away);
}
