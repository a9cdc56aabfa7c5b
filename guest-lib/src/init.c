// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "registry.h"

union epk_state_page epk_state_page __attribute__((aligned(EPK_PAGE_SIZE))) = {
	.state = {
		.gate_table = epk_gate_none, .close = epk_close_unknown, .begin = epk_begin_slow, .end = epk_end_slow,
		.pin_table = epk_no_table, .table = epk_no_table, .fd = -1,
	},
};

/* In the order of preference; those behind "none" have to be asked for. */
static const struct epk_backend *const backends[] = {
	&epk_backend_epk,
	&epk_backend_mpk,
	&epk_backend_none,
	&epk_backend_vmfunc,
	&epk_backend_mprotect,
};

#define NR_BACKENDS	(sizeof(backends) / sizeof(backends[0]))

static int state_protect(int prot)
{
	return mprotect(&epk_state_page, sizeof(epk_state_page), prot) ? -ENOMEM : 0;
}

/*
 * The page is read-only but for these few lines: if it cannot be, nothing is safe any
 * more.  @ops is stored last, since epk_ops() of other threads looks at it without
 * the lock.
 */
void epk_state_write(const struct epk_state *new_state)
{
	if (state_protect(PROT_READ | PROT_WRITE))
		abort();
	/* No index is beyond the end of what the gates look at. */
	if (!new_state->index_mask)
		__atomic_store_n(&epk_now.index_mask, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&epk_now.gate_table,
			 new_state->index_mask ? new_state->table : epk_gate_none, __ATOMIC_SEQ_CST);
	__atomic_store_n(&epk_now.index_mask, new_state->index_mask, __ATOMIC_SEQ_CST);
	epk_now.begin = new_state->gates ? epk_pin_begin : epk_begin_slow;
	epk_now.end = new_state->gates ? epk_pin_end : epk_end_slow;
	epk_now.close = new_state->index_mask ? epk_close : epk_close_unknown;
	epk_now.pin_table = new_state->gates ? new_state->table : epk_no_table;
	epk_now.table = new_state->table;
	epk_now.access = new_state->access;
	epk_now.closed = new_state->closed;
	epk_now.mark = new_state->mark;
	epk_now.nothing = new_state->nothing;
	epk_now.xfeatures = new_state->xfeatures;
	epk_now.pkeys = new_state->pkeys;
	epk_now.gates = new_state->gates;
	epk_now.debug = new_state->debug;
	epk_now.fd = new_state->fd;
	epk_now.pid = new_state->pid;
	epk_now.soft = new_state->soft;
	epk_now.table_pkey = new_state->table_pkey;
	__atomic_store_n(&epk_now.ops, new_state->ops, __ATOMIC_RELEASE);
	if (state_protect(PROT_READ))
		abort();
}

static int start(const struct epk_backend *backend)
{
	struct epk_state state = {
		.ops = backend, .fd = -1, .pid = getpid(), .xfeatures = epk_xfeatures(),
	};
	int err;

	err = epk_registry_init(EPK_INDICES);
	if (err)
		return err;
	state.table = epk_region_reserve();
	if (!state.table) {
		err = -ENOMEM;
		goto exit_registry;
	}
	err = epk_explain_backend(backend->name, backend->init(&state));
	if (err)
		goto release_region;
	state.debug = epk_now.debug;
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

static int choose(const struct epk_options *options)
{
	const char *backend = options->backend, *debug = secure_getenv("EPK_DEBUG");
	struct epk_state state = epk_now;
	int err;

	if (options->flags & ~EPK_NO_SIGNAL_HANDLER || options->reserved)
		return -EINVAL;
	if (epk_ops())
		return -EALREADY;
	/* What it opens its parent would not have. */
	err = epk_fork_check();
	if (err)
		return err;
	/* The first time it splits a mapping, of which there may be too many. */
	err = state_protect(PROT_READ);
	if (err)
		return err;
	state.debug = debug && *debug && strcmp(debug, "0");
	epk_state_write(&state);
	err = epk_thread_setup();
	if (err)
		return err;
	err = epk_fork_setup();
	if (err)
		return err;
	if (!backend)
		backend = secure_getenv("EPK_BACKEND");
	if (backend && *backend)
		return start_named(backend);
	return start_any();
}

/* Under epk_lock, with which no thread may end: open() is where one that is cancelled does. */
int epk_init_locked(const struct epk_options *options)
{
	int err, cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = choose(options);
	pthread_setcancelstate(cancel, NULL);
	return err;
}

/* Under epk_lock. */
int epk_ensure_init(void)
{
	static const struct epk_options defaults;

	return epk_ops() ? 0 : epk_init_locked(&defaults);
}

/* Of an earlier version, too; no member is there in part. */
static bool options_end(size_t size)
{
	return size == offsetof(struct epk_options, backend) ||
	       size == offsetof(struct epk_options, flags) ||
	       size == offsetof(struct epk_options, reserved) || size >= sizeof(struct epk_options);
}

/* Reads what this version knows; what it does not know must be zero. */
static int read_options(const struct epk_options *options, struct epk_options *known)
{
	const char *bytes = (const char *)options;
	size_t size = options->size, i;

	memset(known, 0, sizeof(*known));
	if (!options_end(size))
		return -EINVAL;
	if (size > EPK_SIZE_MAX)
		return -E2BIG;
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
		err = epk_init_locked(&known);
		pthread_mutex_unlock(&epk_lock);
	}
	errno = saved_errno;
	return epk_explain("epk_init", 0, err);
}

const char *epk_backend(void)
{
	const struct epk_backend *ops = epk_ops();

	return ops ? ops->name : NULL;
}
