// SPDX-License-Identifier: MIT
/*
 * A key store: keys are made, used and destroyed inside a domain, and code outside
 * sees their number and what they sign, and does not reach their bytes.
 *
 * What "signing" is does not matter here: a toy that must not be used for more.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include <epk.h>

#include "stray.h"

#define KEYS	8

struct key {
	int in_use;
	uint8_t bytes[32];
};

struct request {
	struct key *keys;
	int nr;
	const char *message;
	uint64_t signature;
};

static int store;
static struct key *keys;

static int store_open(void)
{
	int err = alloc_domains(1, &store);

	if (err)
		return err;
	keys = epk_calloc(store, KEYS, sizeof(*keys));
	return keys ? 0 : -errno;
}

/* The rest of the program calls these two. */
static int key_make(void)
{
	int i, err, nr = -ENOSPC;

	EPK_WITH_ERROR(err, store, PROT_READ | PROT_WRITE) {
		for (i = 0; i < KEYS && keys[i].in_use; i++)
			;
		if (i == KEYS)
			break;
		/* A system call uses the thread's rights; so few bytes come all or not. */
		if (getrandom(keys[i].bytes, sizeof(keys[i].bytes), 0) < 0) {
			nr = -errno;
			break;
		}
		keys[i].in_use = 1;
		nr = i;
	}
	return err ? err : nr;
}

/* Runs on a stack inside the key store: no byte of the key stays behind on ours. */
static long sign_inside(void *arg)
{
	struct request *request = arg;
	const struct key *key = &request->keys[request->nr];
	uint8_t schedule[32];
	uint64_t sum = 0;
	size_t i;

	if (!key->in_use)
		return -ENOENT;
	memcpy(schedule, key->bytes, sizeof(schedule));
	for (i = 0; request->message[i]; i++)
		sum = (sum ^ (uint8_t)request->message[i] ^ schedule[i % 32]) * 0x100000001b3;
	request->signature = sum;
	return 0;
}

static int key_sign(int nr, const char *message, uint64_t *signature)
{
	struct request request = { .keys = keys, .nr = nr, .message = message };
	long result;
	int err;

	if (nr < 0 || nr >= KEYS)
		return -EINVAL;
	err = epk_call(store, sign_inside, &request, &result);
	if (err || result)
		return err ? err : (int)result;
	*signature = request.signature;
	return 0;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "key_store: %s: %s\n", what, epk_strerror(err));
	return 1;
}

int main(void)
{
	uint64_t first, second, other;
	bool got;
	int err, a, b;

	err = store_open();
	if (err)
		return fail("store_open", err);
	a = key_make();
	b = key_make();
	if (a < 0 || b < 0)
		return fail("key_make", a < 0 ? a : b);
	err = key_sign(a, "hello", &first);
	if (!err)
		err = key_sign(a, "hello", &second);
	if (!err)
		err = key_sign(b, "hello", &other);
	if (err)
		return fail("key_sign", err);
	if (key_sign(KEYS - 1, "hello", &other) != -ENOENT) {
		fprintf(stderr, "key_store: a key that was never made signed\n");
		return 1;
	}
	got = stray_read(keys[a].bytes);
	printf("backend %s: key %d signs alike twice: %s; key %d signs otherwise: %s; a stray read of a key %s\n",
	       epk_backend(), a, first == second ? "yes" : "no", b, first != other ? "yes" : "no",
	       stray_says(got));
	return first != second || first == other || !stray_is_as_it_should_be(got) || free_domains(1, &store);
}
