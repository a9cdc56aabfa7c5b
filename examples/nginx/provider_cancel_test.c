// SPDX-License-Identifier: MIT
/*
 * A thread that is to be cancelled (pthread_cancel()) does not end with a domain open or with a
 * lock: the kernel is called with both, and such calls are where it would end.  What a program has
 * to clean up after it would run with the domain open.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "provider_certificate.h"
#include "provider_link.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

static SSL_CTX *server_ctx, *client_ctx;

static bool shake_hands(void)
{
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	int c = 0, s = 0, rounds = 0;

	link_ends(server, client);
	while ((c != 1 || s != 1) && rounds++ < 10) {
		c = SSL_do_handshake(client);
		s = SSL_do_handshake(server);
	}
	SSL_free(server);
	SSL_free(client);
	ERR_clear_error();
	return c == 1 && s == 1;
}

/* ---- where a key's file is read, before which there are calls that it may end at */

static unsigned int nr_reads, nr_ends;

/* With a domain open it may not. */
static void note_read(void)
{
	int cancels;

	if (!epk_held(NULL, 0))
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels);
	pthread_setcancelstate(cancels, NULL);
	nr_reads++;
	nr_ends += cancels != PTHREAD_CANCEL_DISABLE;
}

/* In place of the C library's, for the provider. */
__attribute__((visibility("default")))
ssize_t pread(int fd, void *to, size_t len, off_t at)
{
	static ssize_t (*real)(int fd, void *to, size_t len, off_t at);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pread");
	note_read();
	return real(fd, to, len, at);
}

static void keys_are_read(void **state)
{
	char path[4096];
	EVP_PKEY *pkey;
	BIO *bio;

	(void)state;
	snprintf(path, sizeof(path), "%s/key.pem", BUILD_DIR);
	bio = BIO_new_file(path, "r");
	require_ossl(bio != NULL);
	pkey = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, with_epk, NULL);
	require_ossl(pkey != NULL);
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	REQUIRE(nr_reads > 0);
	REQUIRE_EQ(nr_ends, 0);
}

/* ---- */

static bool fork_a_child(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	/* To wait for it would be where the thread ends, with any library. */
	return pid > 0;
}

struct work {
	bool (*fn)(void);
	bool ok, goes_on;
};

/* Cancelled before, it would end at the first call that it can end at. */
static void *do_work(void *arg)
{
	struct work *work = arg;

	pthread_cancel(pthread_self());
	work->ok = work->fn();
	pthread_testcancel();
	work->goes_on = true;
	return NULL;
}

static void goes_through(bool (*fn)(void))
{
	struct work work = { .fn = fn };
	pthread_t thread;
	void *ended;

	REQUIRE_EQ(pthread_create(&thread, NULL, do_work, &work), 0);
	REQUIRE_EQ(pthread_join(thread, &ended), 0);
	REQUIRE(work.ok);
	/* And afterwards it can be cancelled as before. */
	REQUIRE(!work.goes_on && ended == PTHREAD_CANCELED);
}

static void make_ctxs(OSSL_LIB_CTX *server, OSSL_LIB_CTX *client)
{
	server_ctx = SSL_CTX_new_ex(server, NULL, TLS_server_method());
	client_ctx = SSL_CTX_new_ex(client, NULL, TLS_client_method());
	require_ossl(server_ctx && client_ctx);
	use_certificate(server_ctx);
	/* What is opened once is. */
	REQUIRE(shake_hands());
}

static void drop_ctxs(void)
{
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
}

static void handshakes_go_through(void **state)
{
	int i;

	(void)state;
	/* OpenSSL's own has no call of the kernel's, or this shows nothing. */
	for (i = 0; i < 3; i++) {
		make_ctxs(i == 1 ? with_epk : plain, i == 2 ? with_epk : plain);
		goes_through(shake_hands);
		drop_ctxs();
	}
}

static void forks_go_through(void **state)
{
	(void)state;
	goes_through(fork_a_child);
	REQUIRE(wait(NULL) > 0);
	/* Nobody has the lock. */
	make_ctxs(with_epk, plain);
	REQUIRE(shake_hands());
	drop_ctxs();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handshakes_go_through),
		cmocka_unit_test(keys_are_read),
		cmocka_unit_test(forks_go_through),
	};

	/* A thread that has gone with a lock has the others wait for ever. */
	alarm(60);
	return cmocka_run_group_tests_name("provider_cancel", tests, make_both, NULL);
}
