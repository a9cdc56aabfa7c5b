/* SPDX-License-Identifier: MIT */
/* What the tests of epk_snapshot() and epk_snapshot_domain() share. */
#ifndef SNAPSHOT_UNIT_H
#define SNAPSHOT_UNIT_H

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "unit.h"

#define PAGES	64ul

static char *mem, was[PAGES * PAGE] __attribute__((aligned(4096)));
static int snap;

/* Each page has something else, but for some that have nothing. */
static inline void fill(char *at, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		if (i % 5)
			memset(at + i * PAGE, i + 1, PAGE);
}

static inline bool is_back(void)
{
	return !memcmp(mem, was, sizeof(was));
}

/* Some pages and parts of pages, again and again. */
static inline void comes_back_again(void)
{
	int i;

	REQUIRE(is_back());
	for (i = 0; i < 3; i++) {
		mem[0] ^= 1;
		mem[7 * PAGE + 5] ^= 1;
		mem[PAGES * PAGE - 1] ^= 1;
		memset(mem + 20 * PAGE, i, 3 * PAGE);
		REQUIRE(!is_back());
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
		REQUIRE_EQ(epk_rollback(snap), 0);
		REQUIRE(is_back());
	}
}

/* The first byte of all changes behind the first instruction that reads it, as if by another thread. */
static struct {
	int event, dom, changes;
} watch;

static void on_read(int sig)
{
	int begun;

	(void)sig;
	/* Once: what follows reads it, too. */
	ioctl(watch.event, PERF_EVENT_IOC_DISABLE, 0);
	/* Where no key protects, what is held is held here. */
	begun = watch.dom ? domain_begin(watch.dom, RW) : -EALREADY;
	if (begun && begun != -EALREADY)
		return;
	mem[0] ^= 1;
	watch.changes++;
	if (!begun)
		domain_end(watch.dom);
}

static inline int open_watch(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT, .size = sizeof(attr), .bp_type = HW_BREAKPOINT_RW,
		.bp_addr = (uintptr_t)mem, .bp_len = 1, .sample_period = 1,
		.sigtrap = 1, .remove_on_exec = 1, .exclude_kernel = 1, .disabled = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static inline void require_change_in(int (*call)(int snapshot))
{
	watch.changes = 0;
	REQUIRE_EQ(ioctl(watch.event, PERF_EVENT_IOC_ENABLE, 0), 0);
	REQUIRE_EQ(call(snap), 0);
	REQUIRE_EQ(ioctl(watch.event, PERF_EVENT_IOC_DISABLE, 0), 0);
	REQUIRE_EQ(watch.changes, 1);
}

/*
 * It differs, and is as the copy has it a moment later: the page is not taken for equal, nor what is behind.
 * @dom: whose memory it is; 0: nobody's
 */
static inline void changes_when_read(int dom)
{
	char *other = mem + PAGE / 2, then = *other + 1;
	void (*before)(int) = signal(SIGTRAP, on_read);

	watch.dom = dom;
	watch.event = open_watch();
	if (watch.event < 0 && (errno == EACCES || errno == EPERM)) {
		signal(SIGTRAP, before);
		skip();
	}
	REQUIRE(watch.event >= 0);
	*other = then;
	mem[0] ^= 1;
	require_change_in(epk_snapshot_renew);
	*other = then + 1;
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE_EQ(*other, then);
	*other = then + 1;
	mem[0] ^= 1;
	require_change_in(epk_rollback);
	REQUIRE_EQ(*other, then);
	close(watch.event);
	signal(SIGTRAP, before);
}

/* The copy of @snap: the larger of its two mappings. */
struct unit_copy {
	int id;
	char *addr;
	size_t len;
};

static inline int find_copy(int id, void *addr, size_t len, void *arg)
{
	struct unit_copy *copy = arg;

	if (id == copy->id && len >= copy->len) {
		copy->addr = addr;
		copy->len = len;
	}
	return 0;
}

static inline struct unit_copy copy_of(int id)
{
	struct unit_copy copy = { .id = id };

	REQUIRE_EQ(epk_for_each_mapping(find_copy, &copy), 0);
	REQUIRE(copy.addr);
	return copy;
}

#define REQUIRE_CAUSE(call, error, words) do {				\
	REQUIRE_EQ(call, -(error));					\
	if (!strstr(epk_strerror(error), words))			\
		FAIL("%s: %s", #call, epk_strerror(error));		\
} while (0)

#endif
