// SPDX-License-Identifier: MIT
/*
 * Who wants to compute with a key that is in ordinary memory: TLS, or a program for itself?
 *
 * OpenSSL does not say.  But libssl is a library of its own, and it is among who has called.
 * Where it is not, everything may be TLS: in a program that has libcrypto linked into it, and in
 * one that has libssl so, which shows by what it asks for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <string.h>

#include <openssl/crypto.h>

#include "key.h"

#define DEEP	64
#define LIBSSL	"/libssl.so"

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

static bool has_asked;

/* Nobody else asks for the groups of TLS. */
void epkp_libssl_is_there(void)
{
	__atomic_store_n(&has_asked, true, __ATOMIC_RELAXED);
}

static int is_libssl(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	return info->dlpi_name && strstr(info->dlpi_name, LIBSSL);
}

bool epkp_called_by_libssl(void)
{
	void *callers[DEEP];
	int nr, i;

	if (!is_of(libcrypto_code(), "/libcrypto.so"))
		return true;
	if (__atomic_load_n(&has_asked, __ATOMIC_RELAXED) && !dl_iterate_phdr(is_libssl, NULL))
		return true;
	nr = backtrace(callers, DEEP);
	for (i = 0; i < nr; i++)
		if (is_of(callers[i], LIBSSL))
			return true;
	/* libssl is close, if it is there: libcrypto has no recursion of such depth. */
	return nr < 2;
}
