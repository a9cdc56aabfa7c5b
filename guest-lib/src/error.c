// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "epk.h"
#include "state.h"

#define ERROR(error, text)	{ error, #error, text }

/* A table, not a switch in a function: the same words for -error and error. */
static const struct error {
	int error;
	const char *name;
	const char *text;
} errors[] = {
	{ 0, "0", "no error" },
	ERROR(EINVAL, "an argument is out of range, misaligned or not domain memory"),
	ERROR(ENOENT, "no such domain: never allocated, or freed"),
	ERROR(EPERM, "the domain belongs to another process (by fork), or a seal forbids it"),
	ERROR(EBUSY, "a thread still holds the domain, or another copy of the library is at work"),
	ERROR(EALREADY, "the thread holds the domain, or the library is initialised, already"),
	ERROR(EACCES, "not held, or not for this; or the file, or /dev/epk, is not open for it"),
	ERROR(EBADF, "no open file"),
	ERROR(EOPNOTSUPP, "a file of a kind, or on a filesystem, that no domain can have"),
	ERROR(EMFILE, "the thread holds as many domains as it can, or too many files are open"),
	ERROR(ENFILE, "too many files are open in the system"),
	ERROR(EAGAIN, "threads hold as many domains as there are places or keys for"),
	ERROR(EDEADLK, "a signal handler asks for what the call that it interrupted is at work on"),
	ERROR(ENOSPC, "no room for more domains or for their RAM, or no protection key is free"),
	ERROR(EDQUOT, "the user has as much as the module's parameters allow"),
	ERROR(ENOMEM, "out of memory, address space, mappings or RLIMIT_MEMLOCK"),
	ERROR(ENODEV, "the machine lacks what the backend needs, or the file cannot be mapped"),
	ERROR(EOVERFLOW, "the range passes the end of the address space"),
	ERROR(EEXIST, "something is mapped at that address"),
	ERROR(E2BIG, "the options come from a later version and ask for more than this one has"),
	ERROR(EIO, "the thread could not stay in the domain's EPT; no right is open"),
};

static const struct error *find(int error)
{
	size_t i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].error == error || -errors[i].error == error)
			return &errors[i];
	return NULL;
}

const char *epk_strerror(int error)
{
	const struct error *found = find(error);

	return found ? found->text : "unknown error";
}

/* Not by stdio, whose locks a signal handler may have interrupted. */
static void say(const char *text)
{
	int saved_errno = errno, len;
	char line[256];

	len = snprintf(line, sizeof(line), "libepk[%d]: %s\n", gettid(), text);
	if (len > (int)sizeof(line) - 1)
		len = sizeof(line) - 1;
	if (len > 0 && write(STDERR_FILENO, line, len) < 0)
		len = 0;	/* nobody listens */
	errno = saved_errno;
}

static int explain(const char *what, int err)
{
	const struct error *found = find(err);
	char text[256];

	snprintf(text, sizeof(text), "%s: %s: %s", what, found ? found->name : "error",
		 found ? found->text : strerror(-err));
	say(text);
	return err;
}

int epk_explain(const char *call, long arg, int err)
{
	char what[64];

	if (likely(!err || !epk_now.debug))
		return err;
	snprintf(what, sizeof(what), "%s(%#lx)", call, arg);
	return explain(what, err);
}

int epk_explain_backend(const char *name, int err)
{
	char what[64];

	if (!err || !epk_now.debug)
		return err;
	snprintf(what, sizeof(what), "backend %s", name);
	return explain(what, err);
}

int epk_remark(int err, const char *what)
{
	if (epk_now.debug)
		say(what);
	return err;
}
