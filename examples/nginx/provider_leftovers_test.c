// SPDX-License-Identifier: MIT
/*
 * Wiping what others have read changes nothing for them: programs that do with files and memory
 * what OpenSSL allows work as without the provider.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

#include <openssl/pem.h>

#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

static FILE *open_certificate(const char *mode)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/cert.pem", BUILD_DIR);
	file = fopen(path, mode);
	REQUIRE(file);
	return file;
}

static BIO *read_certificate(FILE *file)
{
	BIO *bio = BIO_new_fp(file, BIO_NOCLOSE);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	require_ossl(cert != NULL);
	X509_free(cert);
	return bio;
}

/* Whose memory somebody else has then. */
static void file_is_closed_first(void **state)
{
	uint8_t *others;
	FILE *file;
	BIO *bio;
	size_t i;

	(void)state;
	file = open_certificate("r");
	bio = read_certificate(file);
	fclose(file);
	others = malloc(sizeof(*file) + 256);
	REQUIRE(others);
	memset(others, 0x41, sizeof(*file) + 256);
	BIO_free(bio);
	for (i = 0; i < sizeof(*file) + 256; i++)
		REQUIRE_EQ(others[i], 0x41);
	free(others);
}

/* Which goes on being read afterwards. */
static void file_is_closed_later(void **state)
{
	FILE *file = open_certificate("r");
	char *start;
	long at;

	(void)state;
	BIO_free(read_certificate(file));
	at = ftell(file);
	REQUIRE(at > 500);
	start = file->_IO_buf_base;
	REQUIRE(start);
	REQUIRE(memchr(start, '-', at) == NULL);
	rewind(file);
	REQUIRE_EQ(getc(file), '-');
	fclose(file);
}

/* Its buffer is the file, which may only be read. */
static void file_is_mapped(void **state)
{
	FILE *file = open_certificate("rm");

	(void)state;
	BIO_free(read_certificate(file));
	rewind(file);
	REQUIRE_EQ(getc(file), '-');
	fclose(file);
}

static int has_it, may_end;

static void *have_locked(void *file)
{
	flockfile(file);
	__atomic_store_n(&has_it, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&may_end, __ATOMIC_ACQUIRE))
		usleep(1000);
	funlockfile(file);
	return NULL;
}

/* As while it waits for a terminal: neither this nor another file waits for it. */
static void file_is_anothers(void **state)
{
	FILE *file = open_certificate("r"), *other;
	BIO *bio = read_certificate(file);
	pthread_t thread;

	(void)state;
	has_it = may_end = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, have_locked, file), 0);
	while (!__atomic_load_n(&has_it, __ATOMIC_ACQUIRE))
		usleep(1000);
	alarm(30);
	BIO_free(bio);
	other = open_certificate("r");
	fclose(other);
	alarm(0);
	__atomic_store_n(&may_end, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	fclose(file);
}

/* ---- blocks */

#define LONG	2400
#define SHORT	100

struct read {
	char *name, *header;
	uint8_t *data;
	long len;
};

/* Of @len bytes. */
static BIO *make_pem(long len)
{
	uint8_t *bytes = calloc(1, len);
	BIO *bio = BIO_new(BIO_s_mem());

	REQUIRE(bytes);
	require_ossl(PEM_write_bio(bio, "SOMETHING", "", bytes, len));
	free(bytes);
	return bio;
}

static void read_pem(long len, struct read *r)
{
	BIO *bio = make_pem(len);

	require_ossl(PEM_read_bio(bio, &r->name, &r->header, &r->data, &r->len));
	REQUIRE_EQ(r->len, len);
	BIO_free(bio);
}

/* By what the heap gives a block to who asks next for one that is as long. */
static void *have_again(const struct read *r, size_t len)
{
	void *again;

	free(r->data);
	again = OPENSSL_malloc(len);
	REQUIRE_EQ(again, r->data);
	free(r->name);
	free(r->header);
	return again;
}

/* A program may give free() what it has from libcrypto, where that has no heap of its own. */
static void longer_block_was_there(void **state)
{
	uint8_t *first, *next[32];
	struct read r;
	int i, j;

	(void)state;
	for (i = 0; i < 32; i++) {
		read_pem(LONG, &r);
		free(r.name);
		free(r.header);
		first = r.data;
		free(r.data);
		/* Large enough that what is free becomes one piece. */
		free(malloc(1 << 20));
		for (j = 0; j < 32; j++) {
			next[j] = OPENSSL_malloc(SHORT);
			REQUIRE(next[j]);
			memset(next[j], 0x41, SHORT);
		}
		for (j = 0; j < 32; j++) {
			if (next[j] == first) {
				OPENSSL_free(next[j]);
				next[j] = NULL;
			}
		}
		for (j = 0; j < 32; j++)
			if (next[j])
				REQUIRE_EQ(next[j][SHORT - 1] + next[j][0], 2 * 0x41);
		for (j = 0; j < 32; j++)
			OPENSSL_free(next[j]);
	}
}

/* It grows with all that it has. */
static void shorter_block_was_there(void **state)
{
	struct read r;
	uint8_t *block;
	size_t i;

	(void)state;
	read_pem(16, &r);
	block = have_again(&r, malloc_usable_size(r.data));
	memset(block, 0x41, malloc_usable_size(block));
	i = malloc_usable_size(block);
	block = OPENSSL_realloc(block, 10000);
	while (i)
		REQUIRE_EQ(block[--i], 0x41);
	OPENSSL_free(block);
}

/* Where the program has allocated it, too. */
static void programs_block_is_there(void **state)
{
	uint8_t *block;
	struct read r;
	size_t len;

	(void)state;
	read_pem(16, &r);
	len = malloc_usable_size(r.data);
	free(r.data);
	block = malloc(len);
	REQUIRE_EQ(block, r.data);
	memset(block, 0x41, len);
	block = OPENSSL_realloc(block, 10000);
	while (len)
		REQUIRE_EQ(block[--len], 0x41);
	OPENSSL_free(block);
	OPENSSL_free(r.name);
	OPENSSL_free(r.header);
}

#define MANY	20000

static void many_are_kept(void **state)
{
	struct read *kept = calloc(MANY, sizeof(*kept));
	BIO *bio = make_pem(64);
	char *text;
	int i;

	(void)state;
	BIO_get_mem_data(bio, &text);
	for (i = 0; i < MANY; i++) {
		BIO *again = BIO_new_mem_buf(text, BIO_pending(bio));

		require_ossl(PEM_read_bio(again, &kept[i].name, &kept[i].header, &kept[i].data,
					  &kept[i].len));
		BIO_free(again);
	}
	for (i = 0; i < MANY; i++) {
		OPENSSL_free(kept[i].name);
		OPENSSL_free(kept[i].header);
		OPENSSL_free(kept[i].data);
	}
	BIO_free(bio);
	free(kept);
}

static int setup(void **state)
{
	(void)state;
	with_epk = make_libctx(1);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_is_closed_first),
		cmocka_unit_test(file_is_closed_later),
		cmocka_unit_test(file_is_mapped),
		cmocka_unit_test(file_is_anothers),
		cmocka_unit_test(longer_block_was_there),
		cmocka_unit_test(shorter_block_was_there),
		cmocka_unit_test(programs_block_is_there),
		cmocka_unit_test(many_are_kept),
	};

	return cmocka_run_group_tests_name("provider_leftovers", tests, setup, NULL);
}
