// SPDX-License-Identifier: MIT
/*
 * What an attacker tries against private keys in domains: another thread that reads while they
 * are used, and files and sources of text that are to end up with OpenSSL's own code.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ssl.h>

#include "provider_keys.h"

OSSL_LIB_CTX *with_epk, *plain;

/* ---- looking while keys are used: by a process that has nothing else of the key */

#define NEEDLE	32
#define MASK	0x5a	/* so that what is looked for is nowhere */
#define SECONDS	3

static struct {
	uint8_t masked[NEEDLE];
	const volatile uint8_t *start, *end;
	int stop;
	unsigned long found, rounds;
} watch_for;

static void find_heap(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "[heap]") || sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		watch_for.start = (const uint8_t *)start;
		watch_for.end = (const uint8_t *)end;
	}
	fclose(maps);
	assert_non_null(watch_for.start);
}

static unsigned int look_once(void)
{
	const volatile uint8_t *at;
	unsigned int found = 0;
	size_t i;

	for (at = watch_for.start; at + NEEDLE <= watch_for.end; at++) {
		for (i = 0; i < NEEDLE && (at[i] ^ MASK) == watch_for.masked[i]; i++)
			;
		found += i == NEEDLE;
		/* Backwards: as hashes get a number. */
		for (i = 0; i < NEEDLE && (at[i] ^ MASK) == watch_for.masked[NEEDLE - 1 - i]; i++)
			;
		found += i == NEEDLE;
	}
	return found;
}

static void *look_on(void *arg)
{
	for (; !__atomic_load_n(&watch_for.stop, __ATOMIC_RELAXED); watch_for.rounds++)
		watch_for.found += look_once();
	return arg;
}

static int sign_watched(const char *file, const char *masked)
{
	const struct way way = { NULL, 0, 0 }, hashed = { "SHA256", 0, 0 };
	uint8_t signature[1024];
	time_t end;
	pthread_t thread;
	EVP_PKEY *pkey;
	BIO *bio;
	int fd = open(masked, O_RDONLY | O_CLOEXEC);

	assert_int_equal(read(fd, watch_for.masked, NEEDLE), NEEDLE);
	close(fd);
	with_epk = make_libctx(1);
	bio = BIO_new_file(file, "r");
	pkey = read_from(bio);
	BIO_free(bio);
	assert_ossl(pkey != NULL);
	assert_string_equal(provider_of(pkey), EPK_NAME);
	find_heap();
	assert_int_equal(look_once(), 0);
	assert_int_equal(pthread_create(&thread, NULL, look_on, NULL), 0);
	for (end = time(NULL) + SECONDS; time(NULL) < end;)
		sign_with(with_epk, pkey, EVP_PKEY_is_a(pkey, "RSA") || EVP_PKEY_is_a(pkey, "EC") ?
					  &hashed : &way, signature);
	__atomic_store_n(&watch_for.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("%s: found %lu times, looked %lu times\n", EVP_PKEY_get0_type_name(pkey),
	       watch_for.found, watch_for.rounds);
	assert_true(watch_for.rounds > 0);
	assert_int_equal(look_once(), 0);
	return watch_for.found != 0;
}

/* As it lies in memory, the lowest byte of a number first. */
static void needle_of(EVP_PKEY *pkey, uint8_t *needle)
{
	BIGNUM *number = NULL;
	uint8_t bytes[1024];
	size_t len = sizeof(bytes), i;

	if (EVP_PKEY_is_a(pkey, "RSA")) {
		assert_ossl(EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_FACTOR1, &number));
		BN_bn2lebinpad(number, bytes, sizeof(bytes));
	} else if (EVP_PKEY_is_a(pkey, "EC")) {
		assert_ossl(EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number));
		BN_bn2lebinpad(number, bytes, sizeof(bytes));
	} else {
		assert_ossl(EVP_PKEY_get_raw_private_key(pkey, bytes, &len));
	}
	BN_free(number);
	for (i = 0; i < NEEDLE; i++)
		needle[i] = bytes[i] ^ MASK;
}

static void no_thread_sees_a_key_in_use(void **state)
{
	static const size_t which[] = { 5, 8, 9, 1 };
	char masked[] = "/tmp/epk-key-needle-XXXXXX";
	uint8_t needle[NEEDLE];
	int fd = mkstemp(masked), status;
	size_t i;
	pid_t pid;

	(void)state;
	for (i = 0; i < sizeof(which) / sizeof(which[0]); i++) {
		BIO_free(file_of_key(made[which[i]], false));
		needle_of(made[which[i]], needle);
		assert_int_equal(pwrite(fd, needle, NEEDLE, 0), NEEDLE);
		pid = fork();
		if (!pid) {
			execl("/proc/self/exe", "provider_key_attack_test", path, masked, NULL);
			_exit(127);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		unlink(path);
		assert_int_equal(status, 0);
	}
	close(fd);
	unlink(masked);
}

static int setup(void **state)
{
	(void)state;
	plain = make_libctx(0);
	with_epk = make_libctx(1);
	make_keys();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_thread_sees_a_key_in_use),
	};

	if (argc == 3)
		return sign_watched(argv[1], argv[2]);
	return cmocka_run_group_tests_name("provider_key_attack", tests, setup, NULL);
}
