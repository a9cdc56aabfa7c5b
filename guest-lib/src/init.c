// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "copy.h"
#include "registry.h"

union epk_state_page epk_state_page __attribute__((aligned(EPK_PAGE_SIZE))) = {
	.state = {
		.gate_table = epk_gate_none, .begin = epk_begin_slow, .end = epk_end_slow,
		.close = epk_close_unknown, .pin_table = epk_no_table, .table = epk_no_table, .fd = -1,
	},
};

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
	epk_now.tls_below = new_state->tls_below;
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
	epk_remark(-EINVAL, "the backends are epk, mpk, vmfunc, mprotect and none");
	return epk_explain_backend(name, -EINVAL);
}

/* No protection is for machines that have none to give, not for who is short of something. */
static int start_any(void)
{
	int err = start(&epk_backend_epk);

	if (err)
		err = start(&epk_backend_mpk);
	if (err != -ENODEV)
		return err;
	epk_remark(0, "what is left is the backend none, which protects nothing");
	return start(&epk_backend_none);
}

static int start_wanted(const struct epk_options *options)
{
	const char *backend = options->backend;

	if (!backend)
		backend = secure_getenv("EPK_BACKEND");
	return backend && *backend ? start_named(backend) : start_any();
}

/* Of an earlier version, too; no member is there in part. */
static bool options_end(size_t size)
{
	return size == offsetof(struct epk_options, backend) ||
	       size == offsetof(struct epk_options, flags) ||
	       size == offsetof(struct epk_options, reserved) || size >= sizeof(struct epk_options);
}

/*
 * What this version knows of a caller's structure of @size bytes, that is @known_size large here;
 * what it does not know must be zero.
 */
int epk_options_copy(void *known, size_t known_size, const void *options, size_t size)
{
	const char *bytes = options;
	size_t i;

	if (size > EPK_SIZE_MAX)
		return -E2BIG;
	for (i = known_size; i < size; i++)
		if (bytes[i])
			return -E2BIG;
	memset(known, 0, known_size);
	memcpy(known, options, size < known_size ? size : known_size);
	return 0;
}

static int read_options(const struct epk_options *options, struct epk_options *known)
{
	int err;

	memset(known, 0, sizeof(*known));
	if (!options)
		return 0;
	if (!options_end(options->size))
		return epk_remark(-EINVAL, "epk_options.size is to be sizeof(struct epk_options)");
	err = epk_options_copy(known, sizeof(*known), options, options->size);
	if (err)
		return err;
	if (known->flags & ~EPK_NO_SIGNAL_HANDLER || known->reserved)
		return epk_remark(-EINVAL, "epk_options.reserved is not 0, or a flag is unknown");
	return 0;
}

/* Whether errors are explained, before there is any. */
static int read_debug(void)
{
	const char *debug = secure_getenv("EPK_DEBUG");
	struct epk_state state = epk_now;
	int err;

	/* The first time it splits a mapping, of which there may be too many. */
	err = state_protect(PROT_READ);
	if (err)
		return err;
	state.debug = debug && *debug && strcmp(debug, "0");
	epk_state_write(&state);
	return 0;
}

static int choose(const struct epk_options *options)
{
	struct epk_options known;
	void *mark;
	int err;

	if (epk_ops())
		return epk_remark(-EALREADY, "epk_init() comes before all other calls, and once");
	/* What it opens its parent would not have. */
	err = epk_fork_check();
	if (!err)
		err = read_debug();
	if (!err)
		err = read_options(options, &known);
	if (!err)
		err = epk_thread_setup();
	if (!err)
		err = epk_fork_setup();
	if (!err)
		err = epk_copy_mark(&mark);
	if (err)
		return err;
	err = start_wanted(&known);
	if (err)
		epk_copy_unmark(mark);
	return err;
}

/*
 * Under epk_lock, with which no thread may end: open() is where one that is cancelled does.  @options
 * may be NULL.
 */
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
	return epk_ops() ? 0 : epk_init_locked(NULL);
}

int epk_init(const struct epk_options *options)
{
	int saved_errno = errno;
	int err;

	pthread_mutex_lock(&epk_lock);
	err = epk_explain("epk_init", 0, epk_init_locked(options));
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return err;
}

const char *epk_backend(void)
{
	const struct epk_backend *ops = epk_ops();

	return ops ? ops->name : NULL;
}
