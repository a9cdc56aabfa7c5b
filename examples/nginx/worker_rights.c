// SPDX-License-Identifier: MIT
/*
 * As servers do: OpenSSL starts in the master, and a forked worker gives up its root
 * directory and its rights before it has a session.
 *
 * Exit status: 0 if the worker's cipher contexts have domains.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#define NOBODY	65534

static int fail(const char *what)
{
	fprintf(stderr, "worker_rights: %s\n", what);
	ERR_print_errors_fp(stderr);
	return 1;
}

static int work(EVP_CIPHER *cipher, const char *root)
{
	static const unsigned char key[32], iv[12];
	unsigned char text[16] = { 1 };
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int outl;

	if (chroot(root) || chdir("/") || setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)) {
		perror("worker_rights");
		return 1;
	}
	if (!access("/dev/epk", F_OK))
		return fail("the root directory is to have no devices");
	if (EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL) <= 0 ||
	    EVP_EncryptUpdate(ctx, text, &outl, text, sizeof(text)) <= 0)
		return fail("the worker cannot seal");
	EVP_CIPHER_CTX_free(ctx);
	return 0;
}

int main(int argc, char **argv)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	int status;
	pid_t pid;

	if (argc != 2) {
		fprintf(stderr, "usage: worker_rights EMPTY-FOLDER\n");
		return 2;
	}
	if (!cipher || strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "EPK"))
		return fail("the cipher is not the epk provider's");
	pid = fork();
	if (!pid)
		_exit(work(cipher, argv[1]));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return fail("the worker failed");
	printf("a worker of nobody's with another root directory has domains\n");
	EVP_CIPHER_free(cipher);
	return 0;
}
