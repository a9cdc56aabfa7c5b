// SPDX-License-Identifier: MIT
/*
 * Where OpenSSL has a job of its own (SSL_MODE_ASYNC), it is on a stack of 32 KiB from the heap,
 * with nothing below that would be a fault.  What is wiped after a computation with a secret can
 * be more.  Of the stacks of threads the end is found by touching each page: see watch().
 */
#include <openssl/async.h>

#include "epk_provider.h"

bool stack_suffices(struct provider *prov)
{
	return !ASYNC_get_current_job() ||
	       raise(prov, EPK_R_STACK, "one of OpenSSL's jobs has 32 KiB: without SSL_MODE_ASYNC "
		     "there are none");
}
