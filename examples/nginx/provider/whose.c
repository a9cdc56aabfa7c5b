// SPDX-License-Identifier: MIT
/*
 * Whose OpenSSL reads the configuration, and in which program.
 *
 * A program can bring an OpenSSL of its own, linked statically, that reads the same file.
 * What is bound to libcrypto.so.3 would work on the other's structures, or be bound to
 * parts of both.
 *
 * And there are programs that use libcrypto for keys of their own, in a way that a domain
 * is in the way of: ssh forks with its ciphers, sshd uses them where it may make no system
 * calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "whose.h"

static const void *object_of(const void *code)
{
	Dl_info info;

	return code && dladdr(code, &info) ? info.dli_fbase : NULL;
}

/* What a program that exports its own has of it for certain. */
static bool is_bound_to(void *lib)
{
	const struct {
		const char *name;
		const void *bound;
	} bound[] = {
		{ "CRYPTO_malloc", (const void *)CRYPTO_malloc },
		{ "ERR_new", (const void *)ERR_new },
		{ "EVP_CIPHER_fetch", (const void *)EVP_CIPHER_fetch },
		{ "OPENSSL_init_crypto", (const void *)OPENSSL_init_crypto },
		{ "OSSL_LIB_CTX_new", (const void *)OSSL_LIB_CTX_new },
	};
	size_t i;

	for (i = 0; i < sizeof(bound) / sizeof(bound[0]); i++)
		if (dlsym(lib, bound[i].name) != bound[i].bound)
			return false;
	return true;
}

/* dlmopen(): with a libc of its own, which is told of no fork, and a libepk that nobody knows of. */
static bool is_apart(void *lib)
{
	Lmid_t namespace;

	return dlinfo(lib, RTLD_DI_LMID, &namespace) || namespace != LM_ID_BASE;
}

static const char *why_not_ours(void *lib, const void *code)
{
	if (!lib || !is_bound_to(lib) ||
	    object_of(code) != object_of(dlsym(lib, "OPENSSL_init_crypto")))
		return "an OpenSSL of its own";
	return is_apart(lib) ? "an OpenSSL in a namespace of its own" : NULL;
}

/* @code: of the OpenSSL that calls */
bool epkp_is_of_our_libcrypto(const void *code)
{
	void *lib = dlopen("libcrypto.so.3", RTLD_LAZY | RTLD_NOLOAD);
	const char *why_not = why_not_ours(lib, code);

	if (lib)
		dlclose(lib);
	if (why_not)
		fprintf(stderr, "epk provider: process %d has %s, which is refused\n",
			(int)getpid(), why_not);
	return !why_not;
}

static char exempt_in[PATH_MAX];

/* "PATH, PATH": is this program one of them?  Remembered for the cipher check. */
bool epkp_note_exempt(const char *list)
{
	char program[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);

	if (len <= 0)
		return false;
	program[len] = 0;
	while (list && *list) {
		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if ((size_t)len == strlen(program) && !strncmp(list, program, len))
			strcpy(exempt_in, program);
		list += len;
	}
	return epkp_is_exempt();
}

bool epkp_is_exempt(void)
{
	return exempt_in[0];
}
