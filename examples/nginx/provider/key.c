// SPDX-License-Identifier: MIT
/*
 * Private keys: sealed, and unsealed where they are computed with.
 *
 * The seal is HMAC-SHA256 of the secret, under a key that K makes, and also what the stream
 * that hides the secret begins with (as SIV does, RFC 5297): so nothing has to be drawn, and
 * bytes that somebody has changed are no key.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "key.h"

/* Zeros follow. */
#define TWEAK(what)	{ SECRET_LONG_LIVED, what }

static void compute_seal(struct opened *o, const uint8_t *secret, size_t len, uint8_t *seal)
{
	const uint8_t tweak[8] = TWEAK(1);

	memset(o->work->secret, 0, SEAL_LEN);
	epkp_mix(o, tweak, NULL, 0, o->work->secret, SEAL_LEN);
	epkp_hmac_key(&o->work->hmac, epkp_hash_find("SHA256"), o->work->secret, SEAL_LEN);
	epkp_hmac_begin(&o->work->hmac);
	epkp_hmac_add(&o->work->hmac, secret, len);
	epkp_hmac_end(&o->work->hmac, seal);
}

/* Either way. */
static void stream(struct opened *o, const uint8_t *seal, uint8_t *bytes, size_t len)
{
	uint8_t tweak[8] = TWEAK(2);
	uint32_t i;

	for (i = 0; len; i++) {
		size_t take = len < 32 ? len : 32;

		memcpy(tweak + 4, &i, sizeof(i));
		epkp_mix(o, tweak, seal, SEAL_LEN, bytes, take);
		bytes += take;
		len -= take;
	}
}

/* In a room. */
static bool seal_key(struct private_key *key, struct part secret)
{
	struct opened o;

	key->sealed = malloc(secret.len);
	if (!key->sealed || !epkp_vault_open(key->prov, &o))
		return false;
	compute_seal(&o, secret.at, secret.len, o.work->salt);
	memcpy(key->seal, o.work->salt, SEAL_LEN);
	/* Never as it is: it is hidden where it is, and then copied. */
	stream(&o, key->seal, (uint8_t *)secret.at, secret.len);
	memcpy(key->sealed, secret.at, secret.len);
	stream(&o, key->seal, (uint8_t *)secret.at, secret.len);
	key->sealed_len = secret.len;
	return epkp_vault_close(key->prov, &o);
}

/* In a room. */
static bool unseal_key(const struct private_key *key, uint8_t *secret)
{
	struct opened o;
	bool same;

	if (!epkp_vault_open(key->prov, &o))
		return false;
	memcpy(secret, key->sealed, key->sealed_len);
	stream(&o, key->seal, secret, key->sealed_len);
	compute_seal(&o, secret, key->sealed_len, o.work->salt);
	same = !CRYPTO_memcmp(o.work->salt, key->seal, SEAL_LEN);
	return epkp_vault_close(key->prov, &o) && same;
}

/* ---- */

struct private_key *epkp_key_make(struct provider *prov, const char *type)
{
	struct private_key *key = calloc(1, sizeof(*key));

	if (!key) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*key));
		return NULL;
	}
	key->prov = prov;
	key->type = type;
	key->references = 1;
	return key;
}

struct private_key *epkp_key_hold(struct private_key *key)
{
	__atomic_add_fetch(&key->references, 1, __ATOMIC_RELAXED);
	return key;
}

void epkp_key_drop(struct private_key *key)
{
	if (!key || __atomic_sub_fetch(&key->references, 1, __ATOMIC_ACQ_REL))
		return;
	epkp_idle_free(key->idle);
	EVP_PKEY_free(key->pkey);
	free(key->sealed);
	free(key);
}

/* In a room: what @pem has found there. */
bool epkp_key_take(struct private_key *key, const struct pem *pem)
{
	void *object;

	key->kind = &epkp_key_kinds[pem->type];
	key->curve = pem->curve;
	key->idle = epkp_idle_make();
	object = key->kind->build(key, pem->secret);
	return key->idle && object && key->kind->publish(key, object, pem->secret) &&
	       seal_key(key, pem->secret);
}

/* ---- rooms */

/* Half as much again as libcrypto was seen to need for its numbers, tables and blinding factors. */
static size_t room_size(const struct private_key *key)
{
	return 16384 + key->bytes.n_len * 112;
}

static bool furnish(struct private_key *key, struct room *room)
{
	struct inside in;
	uint8_t *secret;
	bool whole = false;

	if (!epkp_room_enter(room, &in, key->kind->stack))
		return false;
	secret = epkp_arena_get(room->arena, key->sealed_len);
	if (secret) {
		whole = unseal_key(key, secret);
		if (whole)
			room->object = key->kind->build(key, (struct part){ secret,
									    key->sealed_len });
		explicit_bzero(secret, key->sealed_len);
		epkp_arena_put(room->arena, secret);
	}
	return epkp_room_leave(&in) &&
	       (room->object || raise(key->prov, EPK_R_PRIVATE_KEY, "%s", whole ?
				      "it cannot be unpacked" : "its seal is broken"));
}

/* Before the thread is in a room. */
bool epkp_key_get_ready(struct provider *prov, const struct key_kind *kind)
{
	static __thread unsigned int warm;
	unsigned int bit = 1u << (kind - epkp_key_kinds);

	if ((!(warm & bit) && kind->warm_up && !kind->warm_up(kind)) ||
	    (kind->draw && !kind->draw()))
		return raise(prov, EPK_R_PRIVATE_KEY, "OpenSSL's %s does not work", kind->name);
	warm |= bit;
	return true;
}

static struct room *get_room(struct private_key *key)
{
	struct room *room = epkp_idle_take(key->idle);

	if (!room) {
		room = epkp_room_make(key->prov, room_size(key));
		if (room && !furnish(key, room)) {
			epkp_room_free(room);
			room = NULL;
		}
	}
	return room;
}

/* @fn has the room's memory, and no errors of its own. */
bool epkp_key_use(struct private_key *key, bool (*fn)(void *object, void *arg), void *arg)
{
	struct inside in;
	struct room *room;
	bool ok;

	if (!epkp_key_get_ready(key->prov, key->kind))
		return false;
	room = get_room(key);
	if (!room)
		return false;
	if (!epkp_room_enter(room, &in, key->kind->stack)) {
		epkp_room_free(room);
		return false;
	}
	ok = fn(room->object, arg);
	if (!epkp_room_leave(&in)) {
		epkp_room_free(room);
		return false;
	}
	epkp_idle_put(key->idle, room);
	return ok || raise(key->prov, EPK_R_PRIVATE_KEY, "%s refuses it", key->kind->name);
}
