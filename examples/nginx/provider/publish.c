// SPDX-License-Identifier: MIT
/*
 * What epk-tls-check reads of this process: see published.h.
 */
#include <string.h>
#include <unistd.h>

#include "publish.h"

/* Written data, and not zeros, so that it lies in what is mapped from epk.so. */
struct published published = { .magic = PUBLISHED_MAGIC, .version = PUBLISHED_VERSION };

void publish_add(uint64_t *count, int64_t n)
{
	__atomic_add_fetch(count, n, __ATOMIC_RELAXED);
}

/* From here on it is one. */
static void publish(void)
{
	published.pid = getpid();
	__atomic_store_n(&published.self, (uintptr_t)&published, __ATOMIC_RELEASE);
}

void publish_started(const char *name)
{
	strncpy(published.backend, name, sizeof(published.backend) - 1);
	published.started = 1;
	publish();
}

bool publish_exempt(void)
{
	published.exempt = 1;
	publish();
	return true;
}

/* A child's domains are not its parent's, but libssl's objects are there. */
void publish_in_child(bool started)
{
	published.pid = getpid();
	published.started = started;
	published.contexts = 0;
	published.records = 0;
	published.cbc_contexts = 0;
}
