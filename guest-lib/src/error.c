// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "epk.h"
#include "state.h"

/* A table, not a switch in a function: the same words for -error and error. */
static const struct {
	int error;
	const char *text;
} errors[] = {
	{ 0, "no error" },
	{ EINVAL, "an argument is out of range, misaligned or not domain memory" },
	{ ENOENT, "no such domain: never allocated, or freed" },
	{ EPERM, "the domain belongs to another process (by fork), or a seal forbids it" },
	{ EBUSY, "a thread still holds the domain" },
	{ EALREADY, "the thread holds the domain, or the library is initialised, already" },
	{ EACCES, "not held, or not for this; or the file, or /dev/epk, is not open for it" },
	{ EBADF, "no open file" },
	{ EOPNOTSUPP, "a file of a kind, or on a filesystem, that no domain can have" },
	{ EMFILE, "the thread holds as many domains as it can, or too many files are open" },
	{ ENFILE, "too many files are open in the system" },
	{ EAGAIN, "threads hold as many domains as there are places or keys for" },
	{ EDEADLK, "a signal handler asks for what the call that it interrupted is at work on" },
	{ ENOSPC, "no room for more domains or for their RAM, or no protection key is free" },
	{ EDQUOT, "the user has as much as the module's parameters allow" },
	{ ENOMEM, "out of memory, address space, mappings or RLIMIT_MEMLOCK" },
	{ ENODEV, "the machine lacks what the backend needs, or the file cannot be mapped" },
	{ EOVERFLOW, "the range passes the end of the address space" },
	{ EEXIST, "something is mapped at that address" },
	{ E2BIG, "the options come from a later version and ask for more than this one has" },
	{ EIO, "the thread could not stay in the domain's EPT; no right is open" },
};

const char *epk_strerror(int error)
{
	size_t i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].error == error || errors[i].error == -error)
			return errors[i].text;
	return "unknown error";
}

/* Where epk_handle_fault() may have brought the caller from, stdio is no choice. */
static void say(const char *what, int err)
{
	int saved_errno = errno, len;
	char line[256];

	len = snprintf(line, sizeof(line), "libepk[%d]: %s: %s: %s\n", gettid(), what,
		       strerrorname_np(-err), epk_strerror(err));
	if (len > (int)sizeof(line) - 1)
		len = sizeof(line) - 1;
	if (len > 0 && write(STDERR_FILENO, line, len) < 0)
		len = 0;	/* nobody listens */
	errno = saved_errno;
}

int epk_explain(const char *call, long arg, int err)
{
	char what[64];

	if (likely(!err || !epk_now.debug))
		return err;
	snprintf(what, sizeof(what), "%s(%#lx)", call, arg);
	say(what, err);
	return err;
}

int epk_explain_backend(const char *name, int err)
{
	char what[64];

	if (!err || !epk_now.debug)
		return err;
	snprintf(what, sizeof(what), "backend %s", name);
	say(what, err);
	return err;
}
