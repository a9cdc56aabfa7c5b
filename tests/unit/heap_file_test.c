// SPDX-License-Identifier: MIT
/*
 * epk_heap_open(): what was allocated is there the next time, whenever the process is killed.
 *
 * A process that is killed leaves in the file what it has stored so far.  So a child is stepped through
 * allocations, and whenever the file has changed another process opens a copy.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#define BYTES	(4 * PAGE)
#define MAGIC	0x5eed
/* Of a heap of BYTES without what the list takes: all but this can be had at once. */
#define LOST	1024

/* A list from the root: who has the node has it whole. */
struct node {
	struct node *next;
	long value, check;
	char more[80];
};

static struct node *push(int id, struct node **root, long value)
{
	struct node *node = epk_malloc(id, sizeof(*node));

	if (!node)
		return NULL;
	node->next = *root;
	node->value = value;
	node->check = value ^ MAGIC;
	__atomic_store_n(root, node, __ATOMIC_RELEASE);
	return node;
}

static int pop(int id, struct node **root)
{
	struct node *node = *root;

	__atomic_store_n(root, node->next, __ATOMIC_RELEASE);
	return epk_free(id, node);
}

/* How long it is; -1: something is wrong. */
static int length(int id, struct node *node)
{
	int nr = 0;

	for (; node; node = node->next, nr++)
		if (epk_usable_size(id, node) < sizeof(*node) || node->check != (node->value ^ MAGIC))
			return -1;
	return nr;
}

static int new_file(void)
{
	int fd = memfd_create("heap", MFD_CLOEXEC);

	REQUIRE(fd >= 0);
	return fd;
}

/* Held to be written from then on. */
static int open_heap(int fd, struct node ***root, int expected)
{
	int id;

	REQUIRE(!alloc_domains(1, &id));
	REQUIRE(epk_heap_open(id, fd, BYTES, (void ***)root) == expected);
	REQUIRE(!domain_begin(id, RW));
	return id;
}

static void close_heap(int id)
{
	REQUIRE(!domain_end(id) && !free_domains(1, &id));
}

static void is_there_again(void)
{
	struct node **root, **again, *last;
	int fd = new_file(), id, i;
	char byte;

	id = open_heap(fd, &root, 1);
	REQUIRE(!*root);
	for (i = 0; i < 20; i++)
		REQUIRE(push(id, root, i));
	last = *root;
	REQUIRE(!domain_end(id));
	if (backend_protects())
		REQUIRE(!try_read((char *)last, &byte) && !try_read((char *)root, &byte));
	REQUIRE(!free_domains(1, &id));

	id = open_heap(fd, &again, 0);
	REQUIRE(again == root && *again == last && length(id, last) == 20);
	while (*again)
		REQUIRE(!pop(id, again));
	REQUIRE(epk_free(id, last) == -EINVAL);
	/* It does not grow, and is one piece again. */
	REQUIRE(!epk_malloc(id, BYTES) && errno == ENOMEM);
	REQUIRE(epk_malloc(id, BYTES - LOST));
	close_heap(id);
}

IN_CHILD(is_there_again)

static void says_what_is_wrong(void)
{
	int fd = new_file(), other, ids[2], empty = new_file();
	void **root, **second;
	uint64_t word = 1;
	char *there;

	REQUIRE(!alloc_domains(2, ids));
	REQUIRE(epk_heap_open(ids[0], fd, 0, &root) == -EINVAL);
	REQUIRE(epk_heap_open(ids[0], fd, 1ul << 41, &root) == -EINVAL);
	REQUIRE(epk_heap_open(ids[0], fd, BYTES, NULL) == -EINVAL);
	REQUIRE(epk_heap_open(ids[0], -1, BYTES, &root) == -EBADF);
	REQUIRE(epk_heap_open(-1, fd, BYTES, &root) == -EINVAL);
	REQUIRE(!lseek(fd, 0, SEEK_END));
	REQUIRE(epk_heap_open(ids[0], fd, BYTES, &root) == 1);
	REQUIRE(epk_heap_open(ids[0], empty, BYTES, &second) == -EBUSY && !lseek(empty, 0, SEEK_END));
	REQUIRE(epk_heap_open(ids[1], fd, BYTES, &second) == -EBUSY);
	REQUIRE(strstr(epk_strerror(-EBUSY), "open already"));
	REQUIRE(!free_domains(1, ids) && count_epk_mappings() == 0);
	/* It is mapped where it is to lie. */
	there = mmap((char *)root - (uintptr_t)root % PAGE, PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	REQUIRE(there != MAP_FAILED && epk_heap_open(ids[1], fd, BYTES, &second) == -EEXIST);
	REQUIRE(!munmap(there, PAGE));
	/* Lengths that do not add up; what the file has else. */
	REQUIRE(pwrite(fd, &word, 8, 72) == 8 && epk_heap_open(ids[1], fd, 0, &second) == -EINVAL);
	REQUIRE(strstr(epk_strerror(-EINVAL), "damaged"));
	other = new_file();
	REQUIRE(pwrite(other, "text", 4, 0) == 4);
	REQUIRE(epk_heap_open(ids[1], other, BYTES, &second) == -EINVAL && lseek(other, 0, SEEK_END) == 4);
	REQUIRE(count_epk_mappings() == 0);
}

IN_CHILD(says_what_is_wrong)

static void opens_in_child(int fd, int expected)
{
	int status, id;
	void **root;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(!alloc_domains(1, &id));
		REQUIRE(epk_heap_open(id, fd, BYTES, &root) == expected);
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
}

/* Of all who have it by one descriptor: a lock on that is everybody's. */
static void is_ones_at_a_time(void)
{
	int fd = new_file(), id, reader;
	struct node **root;
	void **none;
	char path[64];

	id = open_heap(fd, &root, 1);
	REQUIRE(push(id, root, 1));
	opens_in_child(fd, -EBUSY);
	REQUIRE(push(id, root, 2));
	close_heap(id);
	opens_in_child(fd, 0);
	close_heap(open_heap(fd, &root, 0));
	/* What may be done is what the descriptor is for, whatever the file allows. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(reader >= 0 && !alloc_domains(1, &id));
	REQUIRE(epk_heap_open(id, reader, BYTES, &none) == -EACCES);
}

IN_CHILD(is_ones_at_a_time)

static int shared_fd, results[UNIT_THREADS];

static void *opens_at_once(void *arg)
{
	static unsigned int nr_ready;
	int *result = arg, id;
	void **root;

	REQUIRE(!alloc_domains(1, &id));
	__atomic_fetch_add(&nr_ready, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&nr_ready, __ATOMIC_ACQUIRE) % UNIT_THREADS)
		;
	*result = epk_heap_open(id, shared_fd, BYTES, &root);
	return NULL;
}

/* Only one of them makes the heap, or has it. */
static void is_one_threads_at_a_time(void)
{
	void *args[UNIT_THREADS];
	int i, n, made;

	for (n = 0; n < 50; n++) {
		shared_fd = new_file();
		for (i = 0; i < UNIT_THREADS; i++)
			args[i] = &results[i];
		run_threads(opens_at_once, args, UNIT_THREADS);
		for (i = made = 0; i < UNIT_THREADS; i++) {
			made += results[i] == 1;
			REQUIRE(results[i] == 1 || results[i] == -EBUSY);
		}
		REQUIRE(made == 1);
		close(shared_fd);
	}
}

IN_CHILD(is_one_threads_at_a_time)

/* No touch finds that the disk is full. */
static void has_all_its_room(void)
{
	int fd = new_file(), copy = new_file();
	struct node **root;
	struct stat file;
	char page[PAGE];

	close_heap(open_heap(fd, &root, 1));
	REQUIRE(pread(fd, page, PAGE, 0) == PAGE && pwrite(copy, page, PAGE, 0) == PAGE);
	REQUIRE(pread(fd, page, 16, BYTES - 16) == 16 && pwrite(copy, page, 16, BYTES - 16) == 16);
	REQUIRE(!fstat(copy, &file) && file.st_size == BYTES && file.st_blocks < (long)BYTES / 512);
	close_heap(open_heap(copy, &root, 0));
	REQUIRE(!fstat(copy, &file) && file.st_blocks >= (long)BYTES / 512);
}

IN_CHILD(has_all_its_room)

static void *is_cancelled_opening(void *id)
{
	void **root;

	pthread_cancel(pthread_self());
	if (epk_heap_open(*(int *)id, shared_fd, BYTES, &root) != 1)
		return NULL;
	pthread_testcancel();
	return NULL;
}

/* It has the heap then, and neither its lock nor its domain. */
static void opened_and_cancelled(void)
{
	pthread_t thread;
	void *result;
	int id;

	shared_fd = new_file();
	REQUIRE(!alloc_domains(1, &id));
	REQUIRE(!pthread_create(&thread, NULL, is_cancelled_opening, &id));
	REQUIRE(!pthread_join(thread, &result) && result == PTHREAD_CANCELED);
	alarm(30);
	REQUIRE(epk_malloc(id, 100) && lseek(shared_fd, 0, SEEK_END) == BYTES);
	alarm(0);
}

IN_CHILD(opened_and_cancelled)

static void made_and_killed(int fd)
{
	void **root;
	int id;

	REQUIRE(!alloc_domains(1, &id) && epk_heap_open(id, fd, BYTES, &root) == 1);
	_exit(0);
}

/* There is a heap, and nothing in it. */
static void killed_before_there_is_a_root(void)
{
	int fd = new_file(), status, id;
	struct node **root;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid)
		made_and_killed(fd);
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	id = open_heap(fd, &root, 0);
	REQUIRE(!*root && push(id, root, 1));
	close_heap(id);
}

IN_CHILD(killed_before_there_is_a_root)

static void says_what_lengths_it_takes(void)
{
	/* Of the first block: 0, odd, beyond the end, just not to the end; and the one that was there. */
	static const uint64_t lengths[] = { 0, 33, BYTES, BYTES - 64 - 24, 1ul << 63, -16ul };
	int fd = new_file(), id;
	struct node **root;
	uint64_t good;
	size_t i;

	close_heap(open_heap(fd, &root, 1));
	REQUIRE(pread(fd, &good, 8, 72) == 8 && good == BYTES - 64 - 16);
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		REQUIRE(pwrite(fd, &lengths[i], 8, 72) == 8 && !alloc_domains(1, &id));
		REQUIRE(epk_heap_open(id, fd, BYTES, (void ***)&root) == -EINVAL);
		REQUIRE(!free_domains(1, &id));
	}
	REQUIRE(pwrite(fd, &good, 8, 72) == 8);
	close_heap(open_heap(fd, &root, 0));
	REQUIRE(!ftruncate(fd, BYTES - PAGE) && !alloc_domains(1, &id));
	REQUIRE(epk_heap_open(id, fd, BYTES, (void ***)&root) == -EINVAL);
}

IN_CHILD(says_what_lengths_it_takes)

/* All that allocations do, with neighbours that are free and not. */
static void work(int id, struct node **root)
{
	void *first, *second, *third;

	REQUIRE(push(id, root, 7));
	first = epk_malloc(id, 200);
	second = epk_memalign(id, 256, 50);
	third = epk_malloc(id, 400);
	REQUIRE(first && second && third && !epk_free(id, first) && !epk_free(id, third));
	REQUIRE(!epk_free(id, second));
	REQUIRE(!pop(id, root));
}

/*
 * Stops before its work, by SIGTRAP, and after it, by SIGILL.  Neither makes a system call, which Bochs
 * does not step over without a complaint of the kernel.
 */
static void stepped(int fd)
{
	struct node **root;
	int id, i;

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(2);
	id = open_heap(fd, &root, 1);
	for (i = 0; i < 3; i++)
		REQUIRE(push(id, root, i));
	asm volatile("int3" : : : "memory");
	work(id, root);
	__builtin_trap();
}

/* As after a kill: the list is there, and nearly all else can be had. */
static int opens(const char *copy)
{
	int status, fd = new_file();
	pid_t pid;

	REQUIRE_EQ(pwrite(fd, copy, BYTES, 0), BYTES);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		struct node **root;
		int id = open_heap(fd, &root, 0), nr = length(id, *root);

		REQUIRE(nr == 3 || nr == 4);
		REQUIRE((*root)->value == (nr == 4 ? 7 : 2));
		while (*root)
			REQUIRE(!pop(id, root));
		REQUIRE(epk_malloc(id, BYTES / 2));
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	close(fd);
	return status;
}

static void killed_anywhere(void **state)
{
	static char now[BYTES], before[BYTES];
	int fd = new_file(), status, states = 0;
	pid_t pid;

	(void)state;
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		stepped(fd);
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	do {
		REQUIRE_EQ(pread(fd, now, BYTES, 0), BYTES);
		if (memcmp(now, before, BYTES)) {
			memcpy(before, now, BYTES);
			states++;
			REQUIRE_EQ(opens(now), 0);
		}
		REQUIRE_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	} while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	/* The second stop, and not a way out. */
	REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGILL);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(fd);
	REQUIRE_IN(states, 30, 100);
}

static void until_killed(int fd)
{
	struct node **root;
	int id = open_heap(fd, &root, 0);
	long n;

	for (n = 0;; n++) {
		REQUIRE(push(id, root, n) && push(id, root, n + 1));
		REQUIRE(!pop(id, root));
		if (n % 8 == 7)
			while (*root)
				REQUIRE(!pop(id, root));
	}
}

/* At any time: one process after the other goes on with the same file. */
static void killed_again_and_again(void **state)
{
	int fd = new_file(), i, status;
	struct node **root;
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid) {
		close_heap(open_heap(fd, &root, 1));
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	for (i = 0; i < 20; i++) {
		pid = fork();
		REQUIRE(pid >= 0);
		if (!pid)
			until_killed(fd);
		usleep(3000 + 777 * i);
		kill(pid, SIGKILL);
		REQUIRE_EQ(waitpid(pid, &status, 0), pid);
		/* It did not end by itself. */
		REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	pid = fork();
	if (!pid) {
		int id = open_heap(fd, &root, 0);

		REQUIRE(length(id, *root) >= 0);
		close_heap(id);
		_exit(0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	REQUIRE_EQ(status, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_child_is_there_again),
		cmocka_unit_test(in_child_says_what_is_wrong),
		cmocka_unit_test(in_child_is_ones_at_a_time),
		cmocka_unit_test(in_child_is_one_threads_at_a_time),
		cmocka_unit_test(in_child_has_all_its_room),
		cmocka_unit_test(in_child_opened_and_cancelled),
		cmocka_unit_test(in_child_killed_before_there_is_a_root),
		cmocka_unit_test(in_child_says_what_lengths_it_takes),
		cmocka_unit_test(killed_anywhere),
		cmocka_unit_test(killed_again_and_again),
	};

	need_backend();
	skip_if(SANITIZED_THREADS, "has shadows of memory where the file would lie");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
