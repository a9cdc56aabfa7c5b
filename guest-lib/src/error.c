// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "causes.h"
#include "epk.h"
#include "state_page.h"

#define ERROR(error, text)	{ error, #error, text }

/* What a number means that no cause was told with.  The same words for -error and error, but for one. */
static const struct error {
	int error;
	const char *name;
	const char *text;
} errors[] = {
	{ 0, "0", "no error" },
	ERROR(EINVAL, "an argument is out of range: the call's manual page says which can be"),
	ERROR(ENOENT, "no such domain: never allocated, or freed"),
	ERROR(EPERM, "the domain is a component, or another process's, inherited by fork(): allocate one here"),
	ERROR(EBUSY, "the domain is still held: domain_end() comes first"),
	ERROR(EALREADY, "the thread holds the domain, with all of that: EPK_WITH() can stand in another"),
	ERROR(EACCES, "the thread does not hold the domain, or not for that: domain_begin() comes first"),
	ERROR(EBADF, "no open file: its descriptor was closed, or never one"),
	ERROR(EOPNOTSUPP, "a file of a kind, or on a filesystem, that no domain can have"),
	ERROR(EMFILE, "the thread holds as many domains as it can: end some"),
	ERROR(ENFILE, "too many files are open in the system: raise fs.file-max"),
	ERROR(EAGAIN, "threads hold as many domains as there are places or keys for: hold fewer at a time"),
	ERROR(EDEADLK, "a signal handler asks for what the call that it interrupted is at work on"),
	ERROR(EFAULT, "the component's function has faulted, and was left there: it can be called again"),
	ERROR(ENOBUFS, "the component waits, with too little stack left to be entered: give it more (stack_bytes)"),
	ERROR(EINTR, "a fatal signal came: the process ends, and nothing is to be done"),
	ERROR(ENOSPC, "no room for more domains or for their RAM: free some"),
	ERROR(EDQUOT, "the user has as much as the module's parameters allow: max_user_*"),
	ERROR(ENOMEM, "out of memory, address space or mappings (vm.max_map_count)"),
	ERROR(ENODEV, "the machine lacks what the backend needs: epk-check(1) says what"),
	ERROR(EOVERFLOW, "the range passes the end of the address space: give a shorter one"),
	ERROR(EEXIST, "something is mapped at that address: give another, or none"),
	ERROR(E2BIG, "the options come from a later version and ask for more than this one has"),
	ERROR(EIO, "the thread could not stay in the domain's EPT; no right is open"),
};

/* The library returns -EFAULT only; in errno it is a system call's. */
static const struct error of_system_call =
	ERROR(EFAULT, "a part of the memory is none, or of a domain that the thread does not hold for that: "
		      "epk_may_access() tells");

#define CAUSE(cause, error, text)	[cause] = { error, #error, text },
static const struct error causes[EPK_NR_CAUSES] = { EPK_CAUSES(CAUSE) };
#undef CAUSE

static const struct error *find(int error)
{
	size_t i;

	if (error == EFAULT)
		return &of_system_call;
	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].error == error || -errors[i].error == error)
			return &errors[i];
	return NULL;
}

/* The cause @number, if it is one of @error. */
static const struct error *cause_of(unsigned int number, int error)
{
	const struct error *cause = &causes[number < EPK_NR_CAUSES ? number : 0];

	if (error == EFAULT)
		return NULL;
	return cause->error && (cause->error == error || -cause->error == error) ? cause : NULL;
}

static const char *of_libc(int error)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
	const char *text = error == INT_MIN ? NULL : strerrordesc_np(abs(error));

	return text ? text : "unknown error";
#else
	return error == INT_MIN ? "unknown error" : strerror(abs(error));
#endif
}

const char *epk_strerror(int error)
{
	const struct error *found = cause_of(epk_cause_last, error);

	if (!found)
		found = find(error);
	return found ? found->text : of_libc(error);
}

int epk_because(enum epk_cause cause)
{
	epk_cause_pending = cause;
	return -causes[cause].error;
}

/* Not by stdio, whose locks a signal handler may have interrupted. */
void epk_say(enum epk_level level, const char *text)
{
	epk_print_fn print = epk_printing();
	int saved_errno = errno, len;
	char line[320];

	len = snprintf(line, sizeof(line), "libepk[%d]: %s\n", gettid(), text);
	if (len > (int)sizeof(line) - 1)
		len = sizeof(line) - 1;
	if (print)
		print(level, line);
	else if (len > 0 && write(STDERR_FILENO, line, len) < 0)
		len = 0;	/* nobody listens */
	errno = saved_errno;
}

static int explain(const char *what, int err)
{
	const struct error *found = cause_of(epk_cause_last, err);
	char text[256];

	if (!found)
		found = find(err);
	snprintf(text, sizeof(text), "%s: %s: %s", what, found ? found->name : "error",
		 found ? found->text : of_libc(err));
	epk_say(EPK_LEVEL_DEBUG, text);
	return err;
}

/* What is pending is the call's that fails now, or of one within it that did not matter. */
int epk_fails(int err)
{
	epk_cause_last = cause_of(epk_cause_pending, err) ? epk_cause_pending : 0;
	epk_cause_pending = 0;
	return err;
}

/*
 * What is at work on a call of the library's that has failed, with its number in errno, fails for that; its
 * own failure is told, and by that its cause no longer pending.
 */
int epk_because_of_call(void)
{
	return epk_because_of(-errno);
}

int epk_because_of(int err)
{
	epk_cause_pending = epk_cause_last;
	return err;
}

static bool told(void)
{
	return epk_now.debug || epk_printing();
}

int epk_explain(const char *call, long arg, int err)
{
	char what[64];

	if (likely(!err))
		return 0;
	epk_fails(err);
	if (likely(!told()))
		return err;
	snprintf(what, sizeof(what), "%s(%#lx)", call, arg);
	return explain(what, err);
}

int epk_explain_backend(const char *name, int err)
{
	char what[64];

	if (!err)
		return 0;
	/* Pending still: it is why nothing is initialised, unless another backend is. */
	epk_cause_last = cause_of(epk_cause_pending, err) ? epk_cause_pending : 0;
	if (!told())
		return err;
	snprintf(what, sizeof(what), "backend %s", name);
	return explain(what, err);
}
