// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "code.h"
#include "component.h"
#include "copy.h"
#include "registry.h"

static const struct epk_backend *const backends[] = {
	&epk_backend_epk,
	&epk_backend_mpk,
	&epk_backend_none,
	&epk_backend_vmfunc,
	&epk_backend_mprotect,
};

#define NR_BACKENDS	(sizeof(backends) / sizeof(backends[0]))

/* What goes on in C where a gate cannot, and which gates there are. */
static void choose_gates(struct epk_state *state)
{
	state->begin_slow = epk_begin_slow;
	state->end_slow = epk_end_slow;
	state->call_slow = epk_gate_call_slow;
	state->release = epk_components_release;
	state->begin = state->gates ? epk_pin_begin : epk_begin_slow;
	state->end = state->gates ? epk_pin_end : epk_end_slow;
	state->close = state->index_mask ? epk_close : epk_close_unknown;
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
	state.table = epk_table_area_reserve();
	if (!state.table) {
		err = -ENOMEM;
		goto exit_registry;
	}
	err = epk_explain_backend(backend->name, backend->init(&state));
	if (err)
		goto release_table_area;
	state.debug = epk_now.debug;
	state.strict = epk_now.strict;
	state.code = epk_now.code;
	choose_gates(&state);
	epk_state_page_write(&state);
	return 0;

release_table_area:
	epk_table_area_release(state.table);
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
	return epk_explain_backend(name, epk_because(EPK_CAUSE_BACKEND));
}

/* No protection is for machines that have none to give, not for who is short of something. */
static int start_any(void)
{
	int err = start(&epk_backend_epk);

	if (err)
		err = start(&epk_backend_mpk);
	if (err != -ENODEV)
		return err;
	err = start(&epk_backend_none);
	if (!err)
		epk_say(EPK_LEVEL_WARNING, "nothing is protected: this machine has no protection keys, and "
			"nobody asked for another backend; EPK_BACKEND=none says that this is meant");
	return err;
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

static int read_options(const struct epk_options *options, struct epk_options *known)
{
	int err;

	memset(known, 0, sizeof(*known));
	if (!options)
		return 0;
	if (!options_end(options->size))
		return epk_because(EPK_CAUSE_SIZE);
	err = epk_options_copy(known, sizeof(*known), options, options->size);
	if (err)
		return err;
	if (known->flags & ~(EPK_NO_SIGNAL_HANDLER | EPK_STRICT | EPK_CODE) || known->reserved)
		return epk_because(EPK_CAUSE_OPTION);
	return 0;
}

static bool is_set(const char *variable)
{
	const char *value = secure_getenv(variable);

	return value && *value && strcmp(value, "0");
}

/* Whether errors are explained, before there is any. */
static int read_debug(void)
{
	struct epk_state state = epk_now;
	int err;

	/* The first time it splits a mapping, of which there may be too many. */
	err = epk_state_page_seal();
	if (err)
		return err;
	choose_gates(&state);
	state.debug = is_set("EPK_DEBUG");
	state.strict = is_set("EPK_STRICT");
	epk_state_page_write(&state);
	return 0;
}

static void be_strict(void)
{
	struct epk_state state = epk_now;

	state.strict = true;
	epk_state_page_write(&state);
}

/* Before there is a backend, as it is no backend's. */
static int have_code(void)
{
	struct epk_state state = epk_now;

	state.code = epk_code_reserve();
	if (!state.code)
		return -ENOMEM;
	epk_state_page_write(&state);
	return 0;
}

static void have_no_code(void)
{
	struct epk_state state = epk_now;

	if (!state.code)
		return;
	epk_code_release(state.code);
	state.code = NULL;
	epk_state_page_write(&state);
}

static int choose(const struct epk_options *options)
{
	struct epk_options known;
	void *claim;
	int err;

	if (epk_ops())
		return epk_because(EPK_CAUSE_INITIALISED);
	/* What it opens its parent would not have. */
	err = epk_fork_check();
	if (!err)
		err = read_debug();
	if (!err)
		err = read_options(options, &known);
	if (!err && known.flags & EPK_STRICT)
		be_strict();
	if (!err)
		err = epk_thread_setup();
	if (!err)
		err = epk_fork_setup();
	if (!err)
		err = epk_copy_claim(&claim);
	if (err)
		return err;
	if (known.flags & EPK_CODE)
		err = have_code();
	if (!err)
		err = start_wanted(&known);
	/* Why other backends were not taken is no cause of anything later. */
	if (!err)
		epk_cause_pending = 0;
	if (err) {
		have_no_code();
		epk_copy_release(claim);
	} else if ((epk_now.debug || epk_printing()) && !(known.flags & EPK_NO_SIGNAL_HANDLER)) {
		epk_fault_explain();
	}
	return err;
}

/*
 * Under epk_lock, with which no thread may end: open() is where one that is cancelled does.  @options
 * may be NULL.
 */
static int init_locked(const struct epk_options *options)
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
	return epk_ops() ? 0 : init_locked(NULL);
}

int epk_init(const struct epk_options *options)
{
	int saved_errno = errno;
	int err;

	pthread_mutex_lock(&epk_lock);
	err = epk_explain("epk_init", 0, init_locked(options));
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return err;
}

epk_print_fn epk_set_print(epk_print_fn print)
{
	int saved_errno = errno;
	epk_print_fn old;

	/* Not by what it calls, nor in a handler that interrupted the library. */
	if (pthread_mutex_lock(&epk_lock))
		return epk_printing();
	old = epk_printing();
	/* Without memory for that nobody is told elsewhere than before. */
	epk_print_write(print);
	pthread_mutex_unlock(&epk_lock);
	errno = saved_errno;
	return old;
}

const char *epk_backend(void)
{
	const struct epk_backend *ops = epk_ops();

	return ops ? ops->name : NULL;
}
