// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "registry.h"

union epk_state_page epk_state_page __attribute__((aligned(EPK_PAGE_SIZE))) = {
	.state = { .table = epk_no_table, .fd = -1 },
};

pthread_mutex_t epk_lock = PTHREAD_MUTEX_INITIALIZER;

/* In the order of preference. */
static const struct epk_backend *const backends[] = {
	&epk_backend_epk,
	&epk_backend_mpk,
	&epk_backend_none,
};

#define NR_BACKENDS	(sizeof(backends) / sizeof(backends[0]))

/*
 * The page is read-only but for these few lines.  @ops is stored last, since
 * epk_ops() of other threads looks at it without the lock.
 */
void epk_state_write(const struct epk_state *new_state)
{
	mprotect(&epk_state_page, sizeof(epk_state_page), PROT_READ | PROT_WRITE);
	epk_now.table = new_state->table;
	epk_now.access = new_state->access;
	epk_now.closed = new_state->closed;
	epk_now.pkeys = new_state->pkeys;
	epk_now.gates = new_state->gates;
	epk_now.fd = new_state->fd;
	__atomic_store_n(&epk_now.ops, new_state->ops, __ATOMIC_RELEASE);
	mprotect(&epk_state_page, sizeof(epk_state_page), PROT_READ);
}

static int start(const struct epk_backend *backend)
{
	struct epk_state state = { .ops = backend, .fd = -1 };
	int err;

	err = epk_registry_init(EPK_INDICES);
	if (err)
		return err;
	state.table = epk_region_reserve();
	if (!state.table) {
		err = -ENOMEM;
		goto exit_registry;
	}
	err = backend->init(&state);
	if (err)
		goto release_region;
	epk_state_write(&state);
	return 0;

release_region:
	epk_region_release(state.table);
exit_registry:
	epk_registry_exit();
	return err;
}

static int start_named(const char *name)
{
	size_t i;

	for (i = 0; i < NR_BACKENDS; i++)
		if (!strcmp(name, backends[i]->name))
			return start(backends[i]);
	return -EINVAL;
}

static int start_any(void)
{
	int err = -ENODEV;
	size_t i;

	for (i = 0; i < NR_BACKENDS && err; i++)
		err = start(backends[i]);
	return err;
}

int epk_init_locked(const char *backend)
{
	int err;

	if (epk_ops())
		return -EALREADY;
	err = epk_thread_setup();
	if (err)
		return err;
	err = epk_fork_setup();
	if (err)
		return err;
	if (!backend)
		backend = secure_getenv("EPK_BACKEND");
	return backend && *backend ? start_named(backend) : start_any();
}

/* Under epk_lock. */
int epk_ensure_init(void)
{
	return epk_ops() ? 0 : epk_init_locked(NULL);
}

/* Reads what this version knows; what it does not know must be zero. */
static int read_options(const struct epk_options *options, struct epk_options *known)
{
	const char *bytes = (const char *)options;
	size_t size = options->size, i;

	memset(known, 0, sizeof(*known));
	if (size < sizeof(options->size))
		return -EINVAL;
	for (i = sizeof(*known); i < size; i++)
		if (bytes[i])
			return -E2BIG;
	memcpy(known, options, size < sizeof(*known) ? size : sizeof(*known));
	return 0;
}

int epk_init(const struct epk_options *options)
{
	struct epk_options known = { 0 };
	int saved_errno = errno;
	int err = 0;

	if (options)
		err = read_options(options, &known);
	if (!err) {
		pthread_mutex_lock(&epk_lock);
		err = epk_init_locked(known.backend);
		pthread_mutex_unlock(&epk_lock);
	}
	errno = saved_errno;
	return err;
}

const char *epk_backend(void)
{
	const struct epk_backend *ops = epk_ops();

	return ops ? ops->name : NULL;
}
