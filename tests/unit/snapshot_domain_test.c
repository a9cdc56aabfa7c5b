// SPDX-License-Identifier: MIT
/* epk_snapshot_domain(): a domain's memory comes back as it was, and its copy is out of reach. */
#define _GNU_SOURCE
#include "snapshot_unit.h"

#include <sys/resource.h>

#include "heap.h"
#include "snapshot.h"
#include "state_page.h"

static int dom;

static int set_up(void **state)
{
	(void)state;
	dom = new_domain();
	mem = new_pages(dom, PAGES);
	REQUIRE_EQ(domain_begin(dom, RW), 0);
	fill(mem, PAGES);
	memcpy(was, mem, sizeof(was));
	snap = epk_snapshot_domain(dom);
	REQUIRE(snap > 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (dom && epk_held_prot(dom) > 0)
		REQUIRE_EQ(domain_end(dom), 0);
	if (dom)
		free_domain(dom);
	if (snap)
		REQUIRE_EQ(epk_snapshot_free(snap), 0);
	snap = dom = 0;
	return 0;
}

static void comes_back(void **state)
{
	(void)state;
	comes_back_again();
	memset(mem, 77, PAGES * PAGE);
	memcpy(was, mem, sizeof(was));
	REQUIRE_EQ(epk_snapshot_renew(snap), 0);
	memset(mem + 9 * PAGE, 0, 9 * PAGE);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
	REQUIRE_EQ(epk_held_prot(dom), RW);
	REQUIRE_EQ(epk_held(NULL, 0), 1);
}

/* Who may not write to the domain writes nothing by this. */
static void rights(void **state)
{
	(void)state;
	mem[0] = mem[9 * PAGE] = 'x';
	REQUIRE_EQ(domain_end(dom), 0);
	REQUIRE_EQ(epk_rollback(snap), -EACCES);
	REQUIRE_EQ(epk_snapshot_renew(snap), -EACCES);
	REQUIRE_EQ(epk_snapshot_domain(dom), -EACCES);
	REQUIRE_EQ(epk_held(NULL, 0), 0);
	REQUIRE_EQ(domain_begin(dom, PROT_READ), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EACCES, "read only");
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_EQ(mem[9 * PAGE], 'x');
	/* Who may read it may keep it. */
	REQUIRE_EQ(epk_snapshot_renew(snap), 0);
	REQUIRE_EQ(domain_begin(dom, RW), 0);
	memcpy(was, mem, sizeof(was));
	mem[0] = mem[9 * PAGE] = 'y';
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* Nobody else is to write to it meanwhile.  Who does spoils what he writes, and nothing else. */
static void byte_changes_when_read(void **state)
{
	(void)state;
	changes_when_read(dom);
}

/* While the domain is held, too. */
static void copy_is_out_of_reach(void **state)
{
	struct unit_copy copy = copy_of(snap);
	char value;

	(void)state;
	REQUIRE(copy.len >= PAGES * PAGE);
	REQUIRE_EQ(epk_domain_at(copy.addr), snap);
	if (!backend_protects())
		return;
	REQUIRE(!try_read(copy.addr, &value));
	REQUIRE_EQ(try_code, refused_code());
	REQUIRE(!try_write(copy.addr + copy.len - 1, 'x'));
	REQUIRE_EQ(try_code, refused_code());
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(!try_read(copy.addr + copy.len - 1, &value));
	REQUIRE_EQ(domain_end(dom), 0);
	REQUIRE(!try_read(copy.addr, &value));
}

/* Many in a row are known wherever they lie, unlike the few that registers had. */
#define STEP		0x9e3779b97f4a7c15ull
#define MARK(i)		(((i) + 1) * STEP)

/* Of what this thread may read: how many words are marks.  By a file, so that nothing faults. */
static int count_marks(char *from, char *to, int file)
{
	static uint64_t words[PAGE / 8];
	static unsigned char there[1024];
	/* Of the module's memory that does not say. */
	bool any = epk_domain_at(from) > 0;
	size_t at, pages;
	int nr = 0, marks, run, i;
	char value;

	for (at = 0; from < to; from += PAGE, at++) {
		/* What nobody has touched has nothing; there can be terabytes of that. */
		at %= sizeof(there);
		pages = (to - from) / PAGE < (long)sizeof(there) ? (to - from) / PAGE : sizeof(there);
		if (!at && (any || mincore(from, pages * PAGE, there)))
			memset(there, 1, sizeof(there));
		if (!there[at] || pwrite(file, from, PAGE, 0) != (ssize_t)PAGE)
			continue;
		REQUIRE_EQ(pread(file, words, PAGE, 0), (ssize_t)PAGE);
		for (marks = run = 0, i = 1; i < (int)(PAGE / 8); i++) {
			run = words[i] - words[i - 1] == STEP ? run + 1 : 0;
			marks += run >= 32;
		}
		/* The emulator's kernel reads what the thread may not, see docs/testbed.md. */
		if (marks && try_read(from, &value))
			nr += marks;
		memset(words, 0, sizeof(words));
	}
	return nr;
}

static int marks_outside(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512], rights[5];
	int file = memfd_create("marks", 0), nr = 0;

	REQUIRE(maps);
	REQUIRE(file >= 0);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && rights[1] == 'w')
			nr += count_marks((char *)start, (char *)end, file);
	close(file);
	fclose(maps);
	return nr;
}

/* A secret of the domain is nowhere else, neither while a copy is made nor afterwards. */
static void no_secret_elsewhere(void **state)
{
	volatile uint64_t *secret = (uint64_t *)(mem + 3 * PAGE);
	int i, with, without;

	(void)state;
	/* It looks at all memory, a sanitizer's among it. */
	if (SANITIZED)
		return;
	for (i = 0; i < 512; i++)
		secret[i] = MARK(i);
	REQUIRE_EQ(epk_snapshot_renew(snap), 0);
	for (i = 0; i < 512; i++)
		secret[i] = 0;
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE_EQ(secret[511], MARK(511));
	with = marks_outside();
	REQUIRE_EQ(domain_end(dom), 0);
	without = marks_outside();
	if (!backend_protects())
		return;
	REQUIRE_EQ(with, 480);
	REQUIRE_EQ(without, 0);
}

static void cannot_come_back(void **state)
{
	int other = new_domain();
	char *page;

	(void)state;
	mem[0] = mem[(PAGES - 1) * PAGE] = 'x';
	REQUIRE_EQ(epk_mprotect(mem + 9 * PAGE, PAGE, PROT_READ), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no more");
	REQUIRE_CAUSE(epk_snapshot_renew(snap), ESTALE, "other memory");
	REQUIRE_EQ(epk_mprotect(mem + 9 * PAGE, PAGE, RW), 0);
	REQUIRE_EQ(epk_munmap_reserve(mem + 9 * PAGE, PAGE), 0);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no more");
	/* Ordinary memory, or another domain's, gets nothing of it. */
	page = mmap(mem + 9 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	REQUIRE_EQ(page, mem + 9 * PAGE);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no more");
	REQUIRE_EQ(page[0], 0);
	REQUIRE_EQ(domain_mmap(other, page, PAGE, RW, MAP_FIXED), page);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no more");
	REQUIRE_EQ(domain_begin(other, RW), 0);
	REQUIRE_EQ(page[0], 0);
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no more");
	REQUIRE_EQ(page[0], 0);
	REQUIRE_EQ(domain_end(other), 0);
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_EQ(mem[(PAGES - 1) * PAGE], 'x');
	REQUIRE_EQ(domain_munmap(page, PAGE), 0);
	REQUIRE_EQ(domain_mmap(dom, page, PAGE, RW, MAP_FIXED_NOREPLACE), page);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
	free_domain(other);
}

/* What came since goes, and what was there and can only be read stays. */
static void mapped_since(void **state)
{
	char *fixed = domain_mmap(dom, NULL, 3 * PAGE, PROT_READ, 0), *none = domain_mmap(dom, NULL, PAGE, PROT_NONE, 0);
	char *since, *beside, value;
	int count = count_epk_mappings(), own;

	(void)state;
	REQUIRE_NE(fixed, MAP_FAILED);
	REQUIRE_NE(none, MAP_FAILED);
	own = epk_snapshot_domain(dom);
	REQUIRE(own > 0);
	count += 2;
	since = new_pages(dom, 5);
	since[0] = mem[0] = 'x';
	beside = domain_mmap(dom, fixed + 3 * PAGE, PAGE, RW, MAP_FIXED_NOREPLACE);
	REQUIRE_CAUSE(epk_snapshot_renew(own), ESTALE, "other memory");
	REQUIRE_EQ(epk_rollback(own), 0);
	REQUIRE(is_back());
	REQUIRE_EQ(count_epk_mappings(), count);
	REQUIRE_EQ(epk_domain_at(since), 0);
	REQUIRE_EQ(epk_domain_at(fixed), dom);
	REQUIRE_EQ(epk_domain_at(none), dom);
	if (beside != MAP_FAILED)
		REQUIRE_EQ(epk_domain_at(beside), 0);
	REQUIRE(try_read(fixed, &value));
	REQUIRE_EQ(epk_snapshot_renew(own), 0);
	REQUIRE_EQ(epk_snapshot_free(own), 0);
	/* The outer one has none of that. */
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE_EQ(epk_domain_at(fixed), 0);
	REQUIRE(is_back());
}

static void heap_comes_back(void **state)
{
	char *kept, *lost;
	int own, i, mappings;

	(void)state;
	kept = epk_malloc(dom, 1000);
	REQUIRE(kept);
	strcpy(kept, "kept");
	/* It had no heap then. */
	mem[0] = 'x';
	REQUIRE_CAUSE(epk_rollback(snap), EBUSY, "heap");
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_CAUSE(epk_snapshot_renew(snap), ESTALE, "other memory");
	mem[0] = was[0];
	own = epk_snapshot_domain(dom);
	REQUIRE(own > 0);
	mappings = count_epk_mappings();
	for (i = 0; i < 20; i++) {
		lost = epk_malloc(dom, 100000);
		REQUIRE(lost);
		memset(lost, 'x', 100000);
		REQUIRE_EQ(epk_free(dom, kept), 0);
		/* As who is left in the middle of it. */
		epk_heap_lock((struct heap *)epk_note(dom));
		memset((char *)(epk_note(dom) & -PAGE) + 64, 'x', PAGE - 64);
		REQUIRE_EQ(epk_rollback(own), 0);
		REQUIRE_EQ(count_epk_mappings(), mappings);
		REQUIRE(!strcmp(kept, "kept"));
		REQUIRE_EQ(epk_usable_size(dom, kept) >= 1000, 1);
	}
	REQUIRE(epk_malloc(dom, 100));
	REQUIRE_EQ(epk_free(dom, kept), 0);
	REQUIRE_EQ(epk_snapshot_free(own), 0);
}

static void child(void)
{
	REQUIRE_EQ(epk_rollback(snap), -EPERM);
	REQUIRE_EQ(epk_snapshot_free(snap), -EPERM);
	REQUIRE_EQ(epk_snapshot_domain(dom), -EPERM);
	REQUIRE_EQ(epk_snapshot_renew(snap), -EPERM);
}

static void forked(void **state)
{
	(void)state;
	mem[0] = 'x';
	run_in_child(child);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* A domain that comes at its place is another one. */
static void domain_freed(void **state)
{
	int ids[2], i;

	(void)state;
	REQUIRE_EQ(domain_end(dom), 0);
	free_domain(dom);
	for (i = 0; i < 2; i++)
		ids[i] = new_domain();
	REQUIRE_EQ(epk_rollback(snap), -ENOENT);
	REQUIRE_EQ(epk_snapshot_renew(snap), -ENOENT);
	REQUIRE_EQ(free_domains(2, ids), 0);
	dom = 0;
	REQUIRE_EQ(epk_snapshot_free(snap), 0);
	snap = 0;
}

static int step;

static void await(int at)
{
	while (__atomic_load_n(&step, __ATOMIC_ACQUIRE) < at)
		sched_yield();
}

static void go_on(int at)
{
	__atomic_store_n(&step, at, __ATOMIC_RELEASE);
}

/* Says what is left of the copy, where it cannot be freed, as it is held here. */
static void *holds_the_copy(void *arg)
{
	struct unit_copy copy = copy_of(snap);
	size_t i;

	if (domain_begin(snap, RW))
		return arg;
	go_on(1);
	await(2);
	copy.addr += copy.len - PAGES * PAGE;
	for (i = 0; i < PAGES * PAGE && !copy.addr[i]; i++)
		;
	if (domain_end(snap))
		return arg;
	return i < PAGES * PAGE ? arg : NULL;
}

static void wiped(void **state)
{
	pthread_t thread;
	void *failed;

	(void)state;
	/* The module takes the domain from who holds it, and zeroes it. */
	if (backend_is("epk") || backend_is("vmfunc"))
		return;
	step = 0;
	mem[0] = 'x';
	REQUIRE_EQ(pthread_create(&thread, NULL, holds_the_copy, &step), 0);
	await(1);
	REQUIRE_EQ(epk_snapshot_free(snap), -EBUSY);
	go_on(2);
	REQUIRE_EQ(pthread_join(thread, &failed), 0);
	REQUIRE(!failed);
	/* There is nothing to bring back any more, and nothing is. */
	REQUIRE_CAUSE(epk_rollback(snap), EINVAL, "no snapshot");
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_EQ(mem[PAGE], was[PAGE]);
	REQUIRE_EQ(epk_snapshot_free(snap), 0);
	snap = 0;
}

/* As another thread, or what a handler has interrupted, would be. */
static void in_use(void **state)
{
	struct epk_kept *kept = (struct epk_kept *)(epk_note(snap) + EPK_KEPT_AT);

	(void)state;
	REQUIRE_EQ(domain_begin(snap, RW), 0);
	/* Held as a domain it is none to be used. */
	REQUIRE_EQ(epk_rollback(snap), -EALREADY);
	REQUIRE_EQ(kept->magic, EPK_KEPT);
	kept->busy = 1;
	REQUIRE_EQ(domain_end(snap), 0);
	mem[0] = 'x';
	REQUIRE_CAUSE(epk_rollback(snap), EBUSY, "in use");
	REQUIRE_CAUSE(epk_snapshot_free(snap), EBUSY, "in use");
	REQUIRE_EQ(mem[0], 'x');
	REQUIRE_EQ(domain_begin(snap, RW), 0);
	kept->busy = 0;
	REQUIRE_EQ(domain_end(snap), 0);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

static void large_memory(void **state)
{
	size_t len = 6ul << 20;
	char *large = domain_mmap(dom, NULL, len, RW, 0);
	size_t at;
	int own;

	(void)state;
	REQUIRE_NE(large, MAP_FAILED);
	for (at = 0; at < len; at += 3 * PAGE)
		large[at] = at / PAGE % 100 + 1;
	own = epk_snapshot_domain(dom);
	REQUIRE(own > 0);
	for (at = 0; at < len; at += 7 * PAGE)
		large[at] = 'x';
	large[len - 1] = 'x';
	REQUIRE_EQ(epk_rollback(own), 0);
	for (at = 0; at < len; at += PAGE)
		REQUIRE_EQ(large[at], at % (3 * PAGE) ? 0 : (char)(at / PAGE % 100 + 1));
	REQUIRE_EQ(large[len - 1], 0);
	REQUIRE(is_back());
	REQUIRE_EQ(epk_snapshot_free(own), 0);
}

/* It holds the domain that its stack lies in: it can begin that itself where nobody is kept from memory. */
static void *on_new_stack(void *arg)
{
	if (domain_begin(dom, RW))
		return arg;
	if (epk_rollback(snap) != -EINVAL || !strstr(epk_strerror(EINVAL), "stack") || mem[0] != 'x')
		return arg;
	return domain_end(dom) ? arg : NULL;
}

/* Memory that came since would go, and the stack with it. */
static void stack_that_came_since(void **state)
{
	char *stack = new_pages(dom, 64);
	pthread_attr_t attr;
	pthread_t thread;
	void *failed;

	(void)state;
	if (!backend_is("none"))
		return;
	mem[0] = 'x';
	pthread_attr_init(&attr);
	REQUIRE_EQ(pthread_attr_setstack(&attr, stack, 64 * PAGE), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, on_new_stack, &snap), 0);
	pthread_attr_destroy(&attr);
	REQUIRE_EQ(pthread_join(thread, &failed), 0);
	REQUIRE(!failed);
	REQUIRE_EQ(epk_rollback(snap), 0);
	REQUIRE(is_back());
}

/* A file's is others' as well. */
static void of_a_file(void **state)
{
	struct unit_resources before;
	int fd = memfd_create("snapshot", 0);
	char *page;

	(void)state;
	REQUIRE_EQ(ftruncate(fd, PAGE), 0);
	page = epk_mmap_file(dom, NULL, PAGE, RW, 0, fd, 0);
	REQUIRE_NE(page, MAP_FAILED);
	before = count_resources();
	REQUIRE_CAUSE(epk_snapshot_domain(dom), EOPNOTSUPP, "file");
	mem[0] = 'x';
	REQUIRE_CAUSE(epk_rollback(snap), EOPNOTSUPP, "file");
	REQUIRE_EQ(mem[0], 'x');
	require_nothing_lost(before);
	REQUIRE_EQ(domain_munmap(page, PAGE), 0);
	close(fd);
}

static void no_room(void **state)
{
	struct unit_resources before;
	int ids[EPK_MAX_HELD], nr = 0;

	(void)state;
	REQUIRE_EQ(epk_snapshot_free(snap), 0);
	snap = 0;
	before = count_resources();
	/* Nothing more can be held. */
	while (nr < EPK_MAX_HELD && !alloc_domains(1, &ids[nr])) {
		if (domain_begin(ids[nr], RW)) {
			free_domain(ids[nr]);
			break;
		}
		nr++;
	}
	if (nr < EPK_MAX_HELD)
		REQUIRE(epk_snapshot_domain(dom) < 0);
	REQUIRE_EQ(epk_held_prot(dom), RW);
	while (nr--) {
		REQUIRE_EQ(domain_end(ids[nr]), 0);
		free_domain(ids[nr]);
	}
	require_nothing_lost(before);
	snap = epk_snapshot_domain(dom);
	REQUIRE(snap > 0);
}

/* Of locked memory there may be so much, and the copy is some of it. */
static void limited(void)
{
	struct rlimit limit = { 100 * PAGE, 100 * PAGE };
	struct epk_counts before = { .size = sizeof(before) }, after = { .size = sizeof(after) };
	char *large;
	int id, own;

	REQUIRE(!setenv("EPK_STRICT", "1", 1) && !alloc_domains(1, &id));
	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit));
	REQUIRE(geteuid() || !setresuid(65534, 65534, 65534));
	large = new_pages(id, 60);
	REQUIRE_EQ(domain_begin(id, RW), 0);
	large[59 * PAGE] = 'a';
	REQUIRE_EQ(epk_counts(&before), 0);
	REQUIRE_CAUSE(epk_snapshot_domain(id), ENOMEM, "RLIMIT_MEMLOCK");
	REQUIRE_CAUSE(epk_snapshot(was, sizeof(was)), ENOMEM, "RLIMIT_MEMLOCK");
	REQUIRE_EQ(epk_counts(&after), 0);
	REQUIRE_EQ(after.domains, before.domains);
	REQUIRE_EQ(epk_held(NULL, 0), 1);
	REQUIRE_EQ(domain_munmap(large, 30 * PAGE), 0);
	own = epk_snapshot_domain(id);
	REQUIRE(own > 0);
	large[59 * PAGE] = 'b';
	REQUIRE_EQ(epk_rollback(own), 0);
	REQUIRE_EQ(large[59 * PAGE], 'a');
}

IN_CHILD(limited)

static void bad_arguments(void **state)
{
	int ids[2], own;

	(void)state;
	REQUIRE_EQ(epk_snapshot_domain(0), -EINVAL);
	REQUIRE_EQ(epk_snapshot_domain(-1), -EINVAL);
	REQUIRE_EQ(alloc_domains(2, ids), 0);
	REQUIRE_EQ(epk_snapshot_domain(ids[0]), -EACCES);
	/* One that has no memory: what it gets goes. */
	REQUIRE_EQ(domain_begin(ids[0], RW), 0);
	own = epk_snapshot_domain(ids[0]);
	REQUIRE(own > 0);
	new_pages(ids[0], 3);
	REQUIRE_EQ(epk_rollback(own), 0);
	REQUIRE_EQ(epk_snapshot_renew(own), 0);
	REQUIRE_EQ(epk_snapshot_free(own), 0);
	REQUIRE_EQ(domain_end(ids[0]), 0);
	REQUIRE_EQ(free_domains(2, ids), 0);
	REQUIRE_EQ(epk_snapshot_domain(ids[0]), -ENOENT);
}

static long plug_in(void *arg)
{
	char *text = arg;

	strcpy(text, "overrun");
	epk_heap_lock((struct heap *)epk_note(dom));
	memset(mem, 'x', PAGES * PAGE);
	arg = (void *)0x40;
	asm("" : "+r" (arg));
	return *(volatile long *)arg;
}

/* What it is for. */
static void call_that_faults(void **state)
{
	static char plain[2 * PAGE] __attribute__((aligned(4096)));
	char *text = epk_malloc(dom, 100);
	int own, ordinary;
	long result;

	(void)state;
	if (!backend_is("epk"))
		return;
	strcpy(text, "as it was");
	strcpy(plain, "as it was");
	own = epk_snapshot_domain(dom);
	ordinary = epk_snapshot(plain, sizeof(plain));
	REQUIRE(own > 0 && ordinary > 0);
	REQUIRE_EQ(epk_call_caught(dom, plug_in, text, &result), -EFAULT);
	REQUIRE(!strcmp(text, "overrun"));
	REQUIRE_EQ(epk_rollback(own), 0);
	/* The heap is not locked any more. */
	REQUIRE_EQ(epk_call_caught(dom, plug_in, plain, &result), -EFAULT);
	REQUIRE(!strcmp(plain, "overrun"));
	REQUIRE_EQ(epk_rollback(own), 0);
	REQUIRE_EQ(epk_rollback(ordinary), 0);
	REQUIRE(!strcmp(text, "as it was") && !strcmp(plain, "as it was"));
	REQUIRE(is_back());
	REQUIRE_EQ(epk_free(dom, text), 0);
	REQUIRE_EQ(epk_snapshot_free(own), 0);
	REQUIRE_EQ(epk_snapshot_free(ordinary), 0);
}

static void one_at_a_time(void **state)
{
	int id = new_domain();

	(void)state;
	REQUIRE_EQ(domain_begin(id, RW), 0);
	REQUIRE_CAUSE(epk_snapshot_domain(id), EOPNOTSUPP, "one domain at a time");
	REQUIRE_EQ(domain_end(id), 0);
	free_domain(id);
}

#define WITH_DOMAIN(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DOMAIN(comes_back),
		WITH_DOMAIN(byte_changes_when_read),
		WITH_DOMAIN(rights),
		WITH_DOMAIN(copy_is_out_of_reach),
		WITH_DOMAIN(no_secret_elsewhere),
		WITH_DOMAIN(cannot_come_back),
		WITH_DOMAIN(mapped_since),
		WITH_DOMAIN(heap_comes_back),
		WITH_DOMAIN(forked),
		WITH_DOMAIN(domain_freed),
		WITH_DOMAIN(wiped),
		WITH_DOMAIN(in_use),
		WITH_DOMAIN(large_memory),
		WITH_DOMAIN(of_a_file),
		WITH_DOMAIN(no_room),
		cmocka_unit_test(in_child_limited),
		WITH_DOMAIN(bad_arguments),
		WITH_DOMAIN(stack_that_came_since),
		WITH_DOMAIN(call_that_faults),
	};
	const struct CMUnitTest one[] = { cmocka_unit_test(one_at_a_time) };

	need_backend();
	if (!backend_holds_several())
		return cmocka_run_group_tests(one, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
