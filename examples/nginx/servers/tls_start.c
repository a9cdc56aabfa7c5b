// SPDX-License-Identifier: MIT
/*
 * A program that starts TLS and waits for the end of its input: linked dynamically and
 * statically, and run in ways by which a program could lose the provider.
 *
 * Exit status: 0 if TLS would have ciphers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

static void *wait_for_the_end(void *arg)
{
	char c;

	(void)arg;
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	exit(0);
}

/* A second libssl, with a second libcrypto, which reads the configuration or does not. */
static int start_in_namespace(int reads)
{
	void *lib = dlmopen(LM_ID_NEWLM, "libssl.so.3", RTLD_NOW);
	int (*init)(uint64_t opts, const OPENSSL_INIT_SETTINGS *settings);
	SSL_CTX *(*new)(const SSL_METHOD *method);
	const SSL_METHOD *(*method)(void);
	SSL *(*new_ssl)(SSL_CTX *ctx);
	SSL_CTX *ctx;

	if (!lib)
		return 0;
	*(void **)&init = dlsym(lib, "OPENSSL_init_ssl");
	*(void **)&new = dlsym(lib, "SSL_CTX_new");
	*(void **)&method = dlsym(lib, "TLS_method");
	*(void **)&new_ssl = dlsym(lib, "SSL_new");
	if (!reads)
		init(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	ctx = new(method());
	return ctx && new_ssl(ctx);
}

int main(int argc, char **argv)
{
	pthread_t other;
	SSL_CTX *ctx;

	if (argc == 2 && !strcmp(argv[1], "--no-config"))
		OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	/* Of two libcs that are in use the threads' keys are the same. */
	if (argc == 2 && !strncmp(argv[1], "--namespace", 11)) {
		if (!start_in_namespace(!strcmp(argv[1], "--namespace")))
			return 1;
		puts("started");
		fflush(stdout);
		wait_for_the_end(NULL);
	}
	ctx = SSL_CTX_new(TLS_method());
	if (!ctx || !SSL_new(ctx)) {
		ERR_print_errors_fp(stderr);
		return 1;
	}
	puts("started");
	fflush(stdout);
	if (argc == 2 && !strcmp(argv[1], "--leader-ends")) {
		if (pthread_create(&other, NULL, wait_for_the_end, NULL))
			return 1;
		pthread_exit(NULL);
	}
	wait_for_the_end(NULL);
}
