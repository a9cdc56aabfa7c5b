// SPDX-License-Identifier: MIT
/*
 * Who wants to compute with a key that is in ordinary memory: TLS, or a program for itself?
 *
 * OpenSSL does not say.  But libssl is a library of its own, and it is among who has called.
 * Where it is not, as in a program that has both linked into it, everything may be TLS.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <string.h>

#include <openssl/crypto.h>

#include "key.h"

#define DEEP	64

static bool is_of(const void *code, const char *library)
{
	Dl_info info;

	return dladdr(code, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

static const void *libcrypto_code(void)
{
	const union { void (*fn)(void *, size_t); const void *address; } code = { OPENSSL_cleanse };

	return code.address;
}

bool called_by_libssl(void)
{
	void *callers[DEEP];
	int nr, i;

	if (!is_of(libcrypto_code(), "/libcrypto.so"))
		return true;
	nr = backtrace(callers, DEEP);
	for (i = 0; i < nr; i++)
		if (is_of(callers[i], "/libssl.so"))
			return true;
	/* libssl is close, if it is there: libcrypto has no recursion of such depth. */
	return nr < 2;
}
