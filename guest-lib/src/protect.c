// SPDX-License-Identifier: MIT
/* What all threads may do with a domain that they do not hold. */
#include <pthread.h>

#include "backend.h"
#include "registry.h"

#define PROT_RW		(PROT_READ | PROT_WRITE)

static int protect(int id, int prot)
{
	const struct epk_backend *ops = epk_ops();
	struct epk_entry entry;
	int err;

	if (prot & ~PROT_RW)
		return epk_because(EPK_CAUSE_COMMON);
	if (prot & PROT_WRITE)
		prot = PROT_RW;
	err = epk_lookup(id, &entry);
	if (err)
		return err;
	return ops && ops->common ? ops->common(id, prot) : epk_because(EPK_CAUSE_PROTECT);
}

int epk_protect(int dom_id, int prot)
{
	int saved_errno = errno, err = protect(dom_id, prot);

	errno = saved_errno;
	return epk_explain("epk_protect", dom_id, err);
}
