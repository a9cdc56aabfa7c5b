// SPDX-License-Identifier: MIT
/*
 * Servers whose OpenSSL has each private key in a domain: of the certificate, of RSA-1024 as in
 * VDom's artifact, and of each key exchange.  A request has a handshake's three private operations
 * and the records of a file; a server does more besides, so that its share is smaller.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "peers.h"

#define STEP		17
#define KEY_BYTES	(2 * PEERS_PAGE)
#define X25519_BYTES	32
#define RECORD		16384

long keys_bytes;

static EVP_PKEY *template, *keys[MOST_GROUPS];
static EVP_PKEY *peer;
static EVP_CIPHER_CTX *session;
static int nr_keys;

/* libcrypto's allocations go there while a key's copy is made. */
static struct peers_group *arena;
static size_t arena_used;

/* Before each allocation: how long it is, and whether it is an arena's. */
struct header {
	size_t len;
	size_t in_arena;
};

static void *get(size_t len, const char *file, int line)
{
	size_t whole = sizeof(struct header) + ((len + 15) & ~15ul);
	struct header *header;

	(void)file;
	(void)line;
	if (arena) {
		peers_need(arena_used + whole <= arena->len, "a key is larger than its pages");
		header = (void *)(arena->mem + arena_used);
		arena_used += whole;
	} else {
		header = malloc(whole);
		if (!header)
			return NULL;
	}
	*header = (struct header) { len, arena != NULL };
	return header + 1;
}

static void put(void *mem, const char *file, int line)
{
	struct header *header = (struct header *)mem - 1;

	(void)file;
	(void)line;
	if (mem && !header->in_arena)
		free(header);
}

static void *change(void *mem, size_t len, const char *file, int line)
{
	size_t old = mem ? ((struct header *)mem - 1)->len : 0;
	void *new = get(len, file, line);

	if (new && mem) {
		memcpy(new, mem, old < len ? old : len);
		put(mem, file, line);
	}
	return new;
}

/* One for all processes that follow, as making it takes long. */
void keys_init(void)
{
	static const uint8_t point[X25519_BYTES] = { 9 };
	uint8_t key[32] = { 1 };

	peers_need(CRYPTO_set_mem_functions(get, change, put), "CRYPTO_set_mem_functions");
	template = EVP_RSA_gen(1024);
	peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, point, sizeof(point));
	session = EVP_CIPHER_CTX_new();
	peers_need(template && peer && session &&
		   EVP_EncryptInit_ex(session, EVP_aes_256_gcm(), NULL, key, NULL) == 1, "OpenSSL");
}

/* A group for a certificate's key, and one for the key exchanges of its connection. */
bool keys_make(int nr)
{
	for (; nr_keys < nr; nr_keys++) {
		if (!peers_make(KEY_BYTES))
			return false;
		arena = &peers_groups[peers_nr - 1];
		arena_used = 0;
		keys[nr_keys] = EVP_PKEY_dup(template);
		arena = NULL;
		peers_need(keys[nr_keys], "EVP_PKEY_dup");
		peers_close(peers_nr - 1);
		if (!peers_make(PEERS_PAGE))
			return false;
		peers_close(peers_nr - 1);
	}
	return true;
}

static void sign(int which)
{
	static const uint8_t transcript[64];
	uint8_t signature[256];
	size_t len = sizeof(signature);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	peers_open(2 * which, RW);
	if (EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, keys[which]) != 1 ||
	    EVP_DigestSign(ctx, signature, &len, transcript, sizeof(transcript)) != 1)
		abort();
	/* It has a hold on the key. */
	EVP_MD_CTX_free(ctx);
	peers_close(2 * which);
}

/* Two openings: for the key that is drawn, and for what is agreed on. */
static void exchange(int which)
{
	uint8_t *own = (uint8_t *)peers_groups[2 * which + 1].mem, bytes[X25519_BYTES];
	size_t len = sizeof(bytes);
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *key;

	peers_open(2 * which + 1, RW);
	RAND_bytes(own, X25519_BYTES);
	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, own, X25519_BYTES);
	if (!key || EVP_PKEY_get_raw_public_key(key, bytes, &len) != 1)
		abort();
	peers_close(2 * which + 1);
	ctx = EVP_PKEY_CTX_new(key, NULL);
	len = sizeof(bytes);
	peers_open(2 * which + 1, RW);
	if (EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, peer) != 1 ||
	    EVP_PKEY_derive(ctx, own + X25519_BYTES, &len) != 1)
		abort();
	peers_close(2 * which + 1);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static void send_file(void)
{
	static uint8_t record[RECORD + 16];
	static const uint8_t iv[12];
	long left, len;
	int out;

	for (left = keys_bytes; left; left -= len) {
		len = left < RECORD ? left : RECORD;
		if (EVP_EncryptInit_ex(session, NULL, NULL, NULL, iv) != 1 ||
		    EVP_EncryptUpdate(session, record, &out, record, len) != 1 ||
		    EVP_EncryptFinal_ex(session, record, &out) != 1 ||
		    EVP_CIPHER_CTX_ctrl(session, EVP_CTRL_AEAD_GET_TAG, 16, record + RECORD) != 1)
			abort();
	}
}

void keys_sign(int i)
{
	sign((long)i * STEP % nr_keys);
}

void keys_serve(int i)
{
	int which = (long)i * STEP % nr_keys;

	exchange(which);
	sign(which);
	send_file();
}
