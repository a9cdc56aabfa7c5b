// SPDX-License-Identifier: MIT
/*
 * What epk-tls-check reads of this process: see published.h.
 */
#include <string.h>
#include <unistd.h>

#include "publish.h"

/* Written data, and not zeros, so that it lies in what is mapped from epk.so. */
struct published epkp_published = { .magic = PUBLISHED_MAGIC, .version = PUBLISHED_VERSION };

void epkp_publish_add(uint64_t *count, int64_t n)
{
	__atomic_add_fetch(count, n, __ATOMIC_RELAXED);
}

/* From here on it is one. */
static void publish(void)
{
	epkp_published.pid = getpid();
	__atomic_store_n(&epkp_published.self, (uintptr_t)&epkp_published, __ATOMIC_RELEASE);
}

void epkp_publish_started(const char *name)
{
	strncpy(epkp_published.backend, name, sizeof(epkp_published.backend) - 1);
	epkp_published.started = 1;
	publish();
}

bool epkp_publish_exempt(void)
{
	epkp_published.exempt = 1;
	publish();
	return true;
}

/* A child's domains are not its parent's, but libssl's objects are there. */
void epkp_publish_in_child(bool started)
{
	epkp_published.pid = getpid();
	epkp_published.started = started;
	epkp_published.contexts = 0;
	epkp_published.records = 0;
	epkp_published.cbc_contexts = 0;
}
