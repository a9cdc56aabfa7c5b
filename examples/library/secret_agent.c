// SPDX-License-Identifier: MIT
/*
 * An agent that keeps the keys of 200 clients and signs with them.  Each client has a thread, a connection
 * and a domain: its key comes from the socket into the domain, and is used in calls that have that domain
 * alone.  In the end each thread looks at the key of another.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <epk.h>
#include "stray.h"

#define CLIENTS		200
#define KEY		64
#define SIGNATURES	5

struct client {
	int fd, domain, err;
	unsigned char *key;
	uint64_t text;
};

static struct client clients[CLIENTS];
static pthread_barrier_t answered;
static unsigned int leaked;

/* Stands for a real one. */
static uint64_t mac(const unsigned char *key, uint64_t text)
{
	uint64_t hash = 0xcbf29ce484222325 ^ text;
	int i;

	for (i = 0; i < KEY; i++)
		hash = (hash ^ key[i]) * 0x100000001b3;
	return hash;
}

static long sign(void *arg)
{
	const struct client *client = arg;

	return mac(client->key, client->text);
}

static int read_all(int fd, void *to, size_t bytes)
{
	return recv(fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes ? 0 : -EPIPE;
}

/*
 * The kernel writes it with the rights of this thread; no copy of it is anywhere else.  The domain is held
 * for what has come, and not while the client has its time: others need the places, too.
 */
static int take_key(struct client *client)
{
	struct pollfd more = { .fd = client->fd, .events = POLLIN };
	ssize_t got = 0;
	size_t have;
	int err;

	client->key = epk_malloc(client->domain, KEY);
	if (!client->key)
		return -errno;
	for (have = 0; have < KEY; have += got) {
		if (poll(&more, 1, -1) != 1)
			return -EPIPE;
		EPK_WITH_ERROR(err, client->domain, PROT_READ | PROT_WRITE)
			got = recv(client->fd, client->key + have, KEY - have, MSG_DONTWAIT);
		if (err)
			return err;
		if (got <= 0)
			return -EPIPE;
	}
	return 0;
}

/* A bug: it reads the key of the next.  Under "mprotect" all reach what any thread holds; nobody does by now. */
static void look_around(const struct client *own)
{
	const unsigned char *key = clients[(own - clients + 1) % CLIENTS].key;

	if (key && stray_read(key))
		__atomic_add_fetch(&leaked, 1, __ATOMIC_RELAXED);
}

static int answer(struct client *client)
{
	long result;
	int i, err;

	for (i = 0; i < SIGNATURES; i++) {
		err = read_all(client->fd, &client->text, sizeof(client->text));
		if (!err)
			err = epk_call(client->domain, sign, client, &result);
		if (err)
			return err;
		/* One that has gone away is no reason to end. */
		if (send(client->fd, &result, sizeof(result), MSG_NOSIGNAL) != sizeof(result))
			return -EPIPE;
	}
	return 0;
}

static void *serve(void *arg)
{
	struct client *client = arg;

	client->err = take_key(client);
	if (!client->err)
		client->err = answer(client);
	close(client->fd);
	pthread_barrier_wait(&answered);
	look_around(client);
	return NULL;
}

/* What a client has itself, to see whether the agent is right. */
static int ask(int fd, const unsigned char *key)
{
	uint64_t text, got;
	int wrong = 0;

	for (text = 1; text <= SIGNATURES; text++) {
		if (write(fd, &text, sizeof(text)) != sizeof(text) || read_all(fd, &got, sizeof(got)))
			return 1;
		wrong += got != mac(key, text);
	}
	return wrong;
}

int main(void)
{
	int fds[CLIENTS], ids[CLIENTS], pair[2], i, err, wrong = 0;
	pthread_t threads[CLIENTS];
	unsigned char key[KEY];

	err = alloc_domains(CLIENTS, ids);
	if (!err)
		err = -pthread_barrier_init(&answered, NULL, CLIENTS);
	for (i = 0; i < CLIENTS && !err; i++) {
		memset(key, i + 1, KEY);
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || write(pair[0], key, KEY) != KEY)
			return 1;
		fds[i] = pair[0];
		clients[i] = (struct client){ .fd = pair[1], .domain = ids[i] };
		err = -pthread_create(&threads[i], NULL, serve, &clients[i]);
	}
	if (err) {
		fprintf(stderr, "secret_agent: %s\n", epk_strerror(err));
		return 1;
	}
	for (i = 0; i < CLIENTS; i++) {
		memset(key, i + 1, KEY);
		wrong += ask(fds[i], key);
	}
	for (i = 0; i < CLIENTS; i++) {
		pthread_join(threads[i], NULL);
		wrong += clients[i].err != 0;
	}
	printf("backend %s: %d clients, %d wrong answers, %u keys that another thread has read\n", epk_backend(), CLIENTS,
	       wrong, leaked);
	return wrong || (leaked && leaked != CLIENTS) || !stray_is_as_it_should_be(leaked) || free_domains(CLIENTS, ids);
}
