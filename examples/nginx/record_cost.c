// SPDX-License-Identifier: MIT
/*
 * What the domain of a record's key adds to a record, with nothing else to differ: a backend
 * against "none", in instructions where the emulator counts these.
 *
 *	record_cost PROVIDER.so BACKEND [limits]
 *
 * Many contexts, each in turn: under "epk" they are in several EPTs.  Exit status: 0, or 1 if
 * something failed, or is over its limit.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#define RECORD		16384
#define TAG		16
#define IV		12
#define CONTEXTS	48
#define TURNS		5

/* In hundredths of what it takes with "none". */
#define LIMIT		105

static const char *const names[] = { "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305" };

#define NR_CIPHERS	3

/* The median of a record, by cipher and direction. */
struct costs {
	uint64_t median[NR_CIPHERS][2];
	bool complete;
};

static uint8_t record[RECORD + TAG];

static bool fail(const char *what)
{
	fprintf(stderr, "record_cost: %s\n", what);
	ERR_print_errors_fp(stderr);
	return false;
}

/* As openssl.cnf has them, but for the cipher check. */
static OSSL_LIB_CTX *load(const char *provider, const char *backend)
{
	char path[] = "/tmp/record-cost-XXXXXX";
	OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
	FILE *f = fdopen(mkstemp(path), "w");
	bool ok;

	if (!libctx || !f)
		return NULL;
	fprintf(f, "config_diagnostics = 1\nopenssl_conf = o\n[o]\nproviders = p\n"
		"[p]\nEPK = e\n[e]\nmodule = %s\nactivate = 1\nbackend = %s\n", provider, backend);
	fclose(f);
	ok = OSSL_LIB_CTX_load_config(libctx, path) > 0;
	unlink(path);
	return ok ? libctx : NULL;
}

static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* As libssl seals and opens a record of TLS 1.3; what is opened was sealed before. */
static bool pass(EVP_CIPHER_CTX *ctx, bool sealing)
{
	static const uint8_t iv[IV] = { 2 };
	uint8_t header[5] = { 23, 3, 3, (RECORD + TAG) >> 8, (uint8_t)(RECORD + TAG) };
	int len;

	return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, sealing) > 0 &&
	       (sealing || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, record + RECORD) > 0) &&
	       EVP_CipherUpdate(ctx, NULL, &len, header, sizeof(header)) > 0 &&
	       EVP_CipherUpdate(ctx, record, &len, record, RECORD) > 0 && len == RECORD &&
	       EVP_CipherFinal_ex(ctx, record + len, &len) > 0 &&
	       (!sealing || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, record + RECORD) > 0);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* A pair of contexts with one key each, so that each record can be opened. */
static bool measure(OSSL_LIB_CTX *libctx, const char *name, uint64_t median[2])
{
	static uint64_t taken[2][CONTEXTS * TURNS];
	static EVP_CIPHER_CTX *ctx[CONTEXTS][2];
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, NULL);
	uint8_t key[32] = { 1 };
	size_t i, turn, n = 0;
	uint64_t start;
	int way;

	if (!cipher)
		return fail(name);
	for (i = 0; i < CONTEXTS; i++)
		for (way = 0; way < 2; way++) {
			key[1] = i;
			ctx[i][way] = EVP_CIPHER_CTX_new();
			if (EVP_CipherInit_ex(ctx[i][way], cipher, NULL, key, NULL, !way) <= 0 ||
			    EVP_CIPHER_CTX_ctrl(ctx[i][way], EVP_CTRL_AEAD_SET_IVLEN, IV, NULL) <= 0)
				return fail("a context has no domain");
		}
	/* The first round is not counted. */
	for (turn = 0; turn <= TURNS; turn++)
		for (i = 0; i < CONTEXTS; i++) {
			for (way = 0; way < 2; way++) {
				start = now();
				if (!pass(ctx[i][way], !way))
					return fail("a record");
				if (turn)
					taken[way][n] = now() - start;
			}
			n += turn > 0;
		}
	for (way = 0; way < 2; way++) {
		qsort(taken[way], n, sizeof(taken[way][0]), by_value);
		median[way] = taken[way][n / 2];
	}
	for (i = 0; i < CONTEXTS; i++)
		for (way = 0; way < 2; way++)
			EVP_CIPHER_CTX_free(ctx[i][way]);
	EVP_CIPHER_free(cipher);
	return true;
}

static bool measure_all(const char *provider, const char *backend, struct costs *costs)
{
	OSSL_LIB_CTX *libctx = load(provider, backend);
	size_t i;

	if (!libctx)
		return fail(backend);
	for (i = 0; i < NR_CIPHERS; i++)
		if (!measure(libctx, names[i], costs->median[i]))
			return false;
	costs->complete = true;
	return true;
}

/* There is one backend in a process. */
static bool measure_apart(const char *provider, const char *backend, struct costs *costs)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(!measure_all(provider, backend, costs));
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status && costs->complete;
}

int main(int argc, char **argv)
{
	struct costs *costs = mmap(NULL, 2 * sizeof(*costs), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool limits = argc == 4 && !strcmp(argv[3], "limits");
	size_t i, over = 0;
	uint64_t with, without;
	int way;

	if (argc < 3 || argc > 4 || (argc == 4 && !limits)) {
		fprintf(stderr, "usage: record_cost PROVIDER.so BACKEND [limits]\n");
		return 2;
	}
	if (costs == MAP_FAILED || !measure_apart(argv[1], "none", &costs[0]) ||
	    !measure_apart(argv[1], argv[2], &costs[1]))
		return 1;
	for (i = 0; i < NR_CIPHERS; i++)
		for (way = 0; way < 2; way++) {
			without = costs[0].median[i][way];
			with = costs[1].median[i][way];
			printf("%-18s 16 KiB %s: %8lu, with %s %8lu: %.4f\n", names[i],
			       way ? "opened" : "sealed", without, argv[2], with,
			       (double)with / without);
			over += with * 100 > without * LIMIT;
		}
	if (limits && over)
		printf("record_cost: %zu are over %d %%\n", over, LIMIT);
	return limits && over;
}
