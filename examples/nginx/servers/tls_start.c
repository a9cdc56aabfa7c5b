// SPDX-License-Identifier: MIT
/*
 * A program that starts TLS and waits for the end of its input: linked dynamically and
 * statically, and run in ways by which a program could lose the provider.
 *
 * Exit status: 0 if TLS would have ciphers.
 */
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

int main(int argc, char **argv)
{
	pthread_t other;
	SSL_CTX *ctx;

	if (argc == 2 && !strcmp(argv[1], "--no-config"))
		OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
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
