// SPDX-License-Identifier: MIT
/*
 * A call from one isolated part of a program to another: by the library's gates between components,
 * in one EPT and across EPTs, and by what processes have: pipes, Unix sockets, futexes and shared
 * memory.  A message is copied into the callee's own memory; the reply is a word.  Then chains: each
 * callee calls the next before it replies.
 *
 * The other processes' system calls are not counted, their instructions are.
 *
 * ipc_bench [quick|some]: as of micro_bench
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "program.h"
#include "table.h"

#define MOST_BYTES	4096
#define MOST_CALLEES	8
/* Per cent.  What the kernel takes for a buffer depends on how its memory lies. */
#define WITHIN		10
#define EPT_KEYS	15

/* What is called for: bytes of a message; callees. */
static long bytes;
static int callees;

/* Processes.  A channel carries messages to a callee, and words back. */

struct shared {
	_Atomic uint32_t called, replied;
	char message[MOST_BYTES];
};

static struct channel {
	int there[2], back[2];
	struct shared *shared;
} channels[MOST_CALLEES];

static char message[MOST_BYTES];

/* A byte at least, as nobody can read none. */
static size_t wire_bytes(void)
{
	return bytes ? bytes : 1;
}

static void write_all(int fd, const void *from, size_t len)
{
	if (write(fd, from, len) != (ssize_t)len)
		_exit(1);
}

static void read_all(int fd, void *to, size_t len)
{
	if (read(fd, to, len) != (ssize_t)len)
		_exit(1);
}

static void wait_while(_Atomic uint32_t *word, uint32_t value)
{
	while (atomic_load(word) == value)
		syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
	atomic_fetch_add(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void process_call(int callee)
{
	struct channel *channel = &channels[callee];
	struct shared *shared = channel->shared;
	uint32_t replied;
	long reply;

	if (!shared) {
		write_all(channel->there[1], message, wire_bytes());
		read_all(channel->back[0], &reply, sizeof(reply));
		return;
	}
	replied = atomic_load(&shared->replied);
	memcpy(shared->message, message, bytes);
	wake(&shared->called);
	wait_while(&shared->replied, replied);
}

/* A callee's whole life. */
static void serve(int callee)
{
	struct channel *channel = &channels[callee];
	uint32_t called = 0;
	char own[MOST_BYTES];
	long reply = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (channel->shared) {
			wait_while(&channel->shared->called, called++);
			memcpy(own, channel->shared->message, bytes);
		} else {
			read_all(channel->there[0], own, wire_bytes());
		}
		asm volatile("" : : "r"(own) : "memory");
		if (callee + 1 < callees)
			process_call(callee + 1);
		if (channel->shared)
			wake(&channel->shared->replied);
		else
			write_all(channel->back[1], &reply, sizeof(reply));
	}
}

static void open_channel(struct channel *channel)
{
	int ends[2];

	if (!strcmp(how, "pipe")) {
		need(!pipe(channel->there) && !pipe(channel->back), "pipe");
	} else if (!strcmp(how, "Unix socket")) {
		need(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
		channel->there[1] = channel->back[0] = ends[0];
		channel->there[0] = channel->back[1] = ends[1];
	} else {
		channel->shared = mmap(NULL, sizeof(*channel->shared), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		need(channel->shared != MAP_FAILED, "mmap");
	}
}

static void call_process(int i)
{
	(void)i;
	process_call(0);
}

static struct bench_at at_call(void)
{
	return (struct bench_at) { .table = "ipc", .domains = callees, .bytes = bytes };
}

static void processes(void)
{
	const char *baseline = strcmp(how, "pipe") ? "pipe" : "-";
	struct bench_case row = { .name = how, .baseline = baseline, .run = call_process };
	struct bench_at at = at_call();
	struct bench_key key = {
		.table = at.table, .name = how, .baseline = baseline, .domains = callees,
		.bytes = bytes, .within = WITHIN,
	};
	pid_t pids[MOST_CALLEES];
	int i;

	for (i = 0; i < callees; i++)
		open_channel(&channels[i]);
	for (i = 0; i < callees; i++) {
		pids[i] = fork();
		need(pids[i] >= 0, "fork");
		if (!pids[i])
			serve(i);
	}
	bench_figure(&key, bench_measure(&row, &at), NULL);
	for (i = 0; i < callees; i++)
		kill(pids[i], SIGKILL);
}

/* Components.  What they are told lies in ordinary memory. */

static struct order {
	int next;	/* the component that this one calls; 0: none */
	const char *message;
	long bytes;
} orders[MOST_CALLEES];
static int first;

static long component(void *arg)
{
	const struct order *order = arg;
	char own[MOST_BYTES];
	long reply = 0;

	memcpy(own, order->message, order->bytes);
	asm volatile("" : : "r"(own) : "memory");
	if (order->next && epk_gate_call(order->next, 0, (void *)(order + 1), &reply))
		abort();
	return reply;
}

static void call_component(int i)
{
	long reply;

	(void)i;
	if (epk_gate_call(first, 0, orders, &reply))
		abort();
}

static void components(void)
{
	static long (*const entries[])(void *arg) = { component };
	struct bench_case row = { .name = how, .baseline = "pipe", .run = call_component };
	bool across = strstr(how, "another");
	int groups[2][EPT_KEYS], epts[2], chain[MOST_CALLEES], i;
	struct bench_at at = at_call();

	init_by("epk", 0);
	need(!alloc_domains(EPT_KEYS, groups[0]) && !alloc_domains(EPT_KEYS, groups[1]), "alloc_domains");
	epk_domain_place(groups[0][0], &epts[0], NULL);
	epk_domain_place(groups[1][0], &epts[1], NULL);
	if (across && some && epts[0] == epts[1])
		return;
	errno = 0;
	need(!across || epts[0] != epts[1], "two EPTs");
	for (i = 0; i < callees; i++) {
		chain[i] = across ? groups[1 - i % 2][i / 2] : groups[0][i];
		need(!epk_component_create(chain[i], entries, 1, NULL), "epk_component_create");
	}
	for (i = 0; i < callees; i++)
		orders[i] = (struct order) {
			.next = i + 1 < callees ? chain[i + 1] : 0,
			.message = message, .bytes = bytes,
		};
	first = chain[0];
	bench_row(&row, &at);
}

static int failed;

static void measure(void)
{
	static const char *const kinds[] = {
		"pipe", "Unix socket", "futex and shared memory", "gate, same EPT", "gate, another EPT",
	};
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		how = kinds[i];
		failed |= bench_traced(i < 3 ? processes : components) != 0;
	}
}

int main(int argc, char **argv)
{
	bench_extent(argc, argv, NULL);
	callees = 1;
	measure();
	for (bytes = 64; bytes <= MOST_BYTES; bytes *= 64)
		measure();
	bytes = 0;
	for (callees = 2; callees <= MOST_CALLEES && !quick; callees *= 2)
		measure();
	return failed;
}
