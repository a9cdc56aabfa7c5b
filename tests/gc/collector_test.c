// SPDX-License-Identifier: MIT
/*
 * collector_test full|incremental THREADS [fork|others|denied|domains]: a heap of Debian's collector, whose old objects get new ones
 * again and again, and nothing else refers to these.  Prints a digest of all that is reachable at the end: it does not
 * depend on when what was collected.  What was collected although it was reachable is used again, and found.
 *
 * Where a write to an old object is missed, what it refers to is collected.
 */
#define _GNU_SOURCE
#define GC_THREADS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gc/gc.h>

#define SLOTS	4096
#define DEPTH	6
#define STEPS	1000000
#define THREADS	8

struct node {
	uint64_t key, sum;
	struct node *next;
	uint64_t room[3];
};

/* Each of them alone in a page's part, so that a write tells of few. */
struct slot {
	struct node *first;
	uint64_t room[31];
};

static struct slot **tables;

static uint64_t sum_of(uint64_t key)
{
	return (key ^ key >> 29) * 0x9e3779b97f4a7c15ull + 1;
}

static struct node *new_node(uint64_t key, struct node *next)
{
	struct node *node = GC_MALLOC(sizeof(*node));

	if (!node)
		exit(3);
	*node = (struct node){ key, sum_of(key), next, { key, key, key } };
	return node;
}

/* Of what a slot leads to; each as it was made, and not more of them than there can be. */
static uint64_t check_slot(const struct slot *slot)
{
	const struct node *node;
	uint64_t digest = 0;
	int depth = 0;

	for (node = slot->first; node; node = node->next) {
		if (node->sum != sum_of(node->key) || node->room[2] != node->key || ++depth > DEPTH) {
			fprintf(stderr, "collected though it was reachable\n");
			_exit(1);
		}
		digest = digest * 31 + node->key;
	}
	return digest;
}

static void *mutator(void *arg)
{
	unsigned long which = (unsigned long)arg;
	struct slot *slots = tables[which], *slot;
	uint64_t my = which + 1, step;
	struct node *node;
	int depth;

	for (step = 0; step < STEPS; step++) {
		my = my * 6364136223846793005ull + 1442695040888963407ull;
		slot = &slots[(my >> 33) % SLOTS];
		check_slot(slot);
		slot->first = new_node(my >> 8, slot->first);
		/* The last ones are dropped. */
		for (node = slot->first, depth = 1; node && depth < DEPTH - (int)(my >> 60) % 3; depth++)
			node = node->next;
		if (node)
			node->next = NULL;
	}
	return NULL;
}

static uint64_t run(unsigned long threads)
{
	pthread_t ids[THREADS];
	uint64_t digest = 0;
	unsigned long i;
	int slot;

	for (i = 1; i < threads; i++)
		if (pthread_create(&ids[i], NULL, mutator, (void *)i))
			exit(3);
	mutator(NULL);
	for (i = 1; i < threads; i++)
		pthread_join(ids[i], NULL);
	for (i = 0; i < threads; i++)
		for (slot = 0; slot < SLOTS; slot++)
			digest = digest * 1000003 + check_slot(&tables[i][slot]);
	return digest;
}

/* A page that is there is told as such, whoever else is told something by that name. */
static void check_others(void)
{
	char path[40];
	uint64_t entry = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (pread(fd, &entry, 8, (uintptr_t)&fd / 4096 * 8) != 8 || !(entry >> 63)) {
		fprintf(stderr, "pagemap has no page of the stack: %#lx\n", entry);
		exit(1);
	}
	if (lseek(fd, (uintptr_t)&fd / 4096 * 8, SEEK_SET) < 0 || read(fd, &entry, 8) != 8 || !(entry >> 63))
		exit(1);
	close(fd);
}

/* Where the library is that is preloaded. */
static void use_domains(void)
{
	int (*alloc)(int num, int ids[]) = dlsym(RTLD_DEFAULT, "alloc_domains"), id;

	if (alloc && alloc(1, &id))
		exit(3);
}

static void deny_userfaultfd(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(3);
}

/* Parent and child go on, each with its own. */
static void go_on_in_child(unsigned long threads, const char *mode)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		exit(3);
	if (!pid) {
		printf("%s child %lx\n", mode, run(threads));
		exit(0);
	}
	printf("%s parent %lx\n", mode, run(threads));
	if (waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

int main(int argc, char **argv)
{
	unsigned long threads = argc > 2 ? strtoul(argv[2], NULL, 10) : 0, i;
	const char *more = argc > 3 ? argv[3] : "";
	uint64_t digest;

	if (!threads || threads > THREADS)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(more, "denied"))
		deny_userfaultfd();
	GC_set_handle_fork(1);
	GC_INIT();
	/* Partial collections, which go by what was written to, but for one in so many. */
	GC_set_full_freq(1000);
	GC_set_time_limit(GC_TIME_UNLIMITED);
	if (!strcmp(argv[1], "incremental")) {
		GC_enable_incremental();
		if (!GC_is_incremental_mode())
			return 4;
	}
	if (!strcmp(more, "domains"))
		use_domains();
	tables = GC_MALLOC_UNCOLLECTABLE(threads * sizeof(*tables));
	for (i = 0; i < threads; i++)
		tables[i] = GC_MALLOC(SLOTS * sizeof(struct slot));
	digest = run(threads);
	if (!strcmp(more, "others"))
		check_others();
	if (!strcmp(more, "fork"))
		go_on_in_child(threads, argv[1]);
	printf("digest %lx\n", digest);
	printf("collections %lu\n", (unsigned long)GC_get_gc_no());
	return 0;
}
