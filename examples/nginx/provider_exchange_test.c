// SPDX-License-Identifier: MIT
/*
 * What happens while the box of a key exchange is open, with the private key in it: nobody waits
 * for a slot of the vault, and nobody allocates memory, for an error that a peer has made say.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "provider_gates.h"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

static EVP_PKEY *mine, *theirs;

static EVP_PKEY *generate(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(with_epk, "EPK-X25519", NULL);
	EVP_PKEY *pkey = NULL;

	if (EVP_PKEY_keygen_init(ctx) > 0)
		EVP_PKEY_keygen(ctx, &pkey);
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

static bool agree(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(with_epk, mine, NULL);
	uint8_t out[32];
	size_t len = sizeof(out);
	bool ok = EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_derive_set_peer(ctx, theirs) > 0 &&
		  EVP_PKEY_derive(ctx, out, &len) > 0;

	EVP_PKEY_CTX_free(ctx);
	return ok;
}

static void *exchange_often(void *arg)
{
	EVP_PKEY *pkey;
	int i;

	for (i = 0; i < 20; i++) {
		pkey = generate();
		if (!pkey || !agree())
			return NULL;
		EVP_PKEY_free(pkey);
	}
	return arg;
}

/* The first error of a thread's life. */
static void *agree_on_nothing(void *arg)
{
	bool ok = agree();

	return ok || ERR_GET_REASON(ERR_peek_last_error()) != EPK_R_PUBLIC_KEY ? NULL : arg;
}

#define NR_THREADS	24	/* more than the vault has slots to work in */

static void run(int nr, void *(*fn)(void *))
{
	pthread_t threads[NR_THREADS];
	void *right;
	int i;

	nr_waits = nr_openings = 0;
	for (i = 0; i < nr; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, fn, &vault), 0);
	for (i = 0; i < nr; i++) {
		REQUIRE_EQ(pthread_join(threads[i], &right), 0);
		REQUIRE_EQ(right, &vault);
	}
	printf("%zu waits, opened %zu times\n", nr_waits, nr_openings);
	REQUIRE(nr_openings > 0);
	REQUIRE_EQ(nr_waits, 0);
}

static void threads_wait_before_they_open(void **state)
{
	(void)state;
	/* There a process has fewer domains than these threads need. */
	if (!strcmp(epk_backend(), "mpk"))
		skip();
	is_slow = true;
	run(NR_THREADS, exchange_often);
	is_slow = false;
}

/* x25519 agrees on nothing with the point of order 1, which any peer can send. */
static void errors_wait_for_the_end(void **state)
{
	static const uint8_t nothing[32];

	(void)state;
	require_ossl(EVP_PKEY_set1_encoded_public_key(theirs, nothing, sizeof(nothing)));
	run(1, agree_on_nothing);
}

static int setup(void **state)
{
	(void)state;
	with_epk = OSSL_LIB_CTX_new();
	load_providers(with_epk, "");
	REQUIRE_EQ(epk_for_each_mapping(note_vault, NULL), 0);
	watches_all = true;
	mine = generate();
	theirs = generate();
	return !mine || !theirs;
}

static int teardown(void **state)
{
	(void)state;
	EVP_PKEY_free(mine);
	EVP_PKEY_free(theirs);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_wait_before_they_open),
		cmocka_unit_test(errors_wait_for_the_end),
	};

	return cmocka_run_group_tests_name("provider_exchange", tests, setup, teardown);
}
