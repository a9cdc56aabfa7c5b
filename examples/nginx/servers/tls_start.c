// SPDX-License-Identifier: MIT
/*
 * A program that starts TLS and waits for the end of its input: linked dynamically and
 * statically, and run in ways by which a program could lose the provider.
 *
 * Exit status: 0 if TLS would have ciphers.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

int main(int argc, char **argv)
{
	SSL_CTX *ctx;
	char c;

	if (argc == 2 && !strcmp(argv[1], "--no-config"))
		OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	ctx = SSL_CTX_new(TLS_method());
	if (!ctx || !SSL_new(ctx)) {
		ERR_print_errors_fp(stderr);
		return 1;
	}
	puts("started");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}
