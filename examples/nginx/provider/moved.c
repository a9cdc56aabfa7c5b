// SPDX-License-Identifier: MIT
/*
 * The default provider's ciphers, and whether their contexts can be moved.
 *
 * They come from a library context of our own, in which there is nothing but the default
 * provider, and which no configuration reaches.  OpenSSL promises nothing about what its
 * contexts look like inside, so what we presume is looked for in each cipher when the
 * provider is loaded, and the provider refuses to be if it is not so:
 *
 *	- two contexts without a key are equal, so they point to nothing of their own;
 *	- one that was moved before it got its key computes what one does that was not;
 *	- two that were moved differ afterwards in pointers into themselves alone, so they
 *	  have allocated nothing.  Where these pointers are is noted, for copies.
 *
 * And where one has the tag of what it has sealed, as to ask for that takes as much as all that the
 * provider adds to a record: there before it is asked, at the same offset for one message as for the
 * next, and what is written there is what it tells.  One of which that is not so is asked.
 *
 * And where one has the tag that it is to find, as to tell it costs as much: one that has been told
 * a tag for the message before differs, when it has been told another, there alone.
 * One of which that is not so is told each time.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "epk_provider.h"
#include "heap.h"

/* All that libssl can negotiate and the default provider has. */
struct cipher epkp_ciphers[NR_CIPHERS] = {
	{ .name = "AES-128-GCM", .kind = KIND_WHOLE, .explicit_iv = 8 },
	{ .name = "AES-256-GCM", .kind = KIND_WHOLE, .explicit_iv = 8 },
	{ .name = "ChaCha20-Poly1305", .kind = KIND_WHOLE },
	{ .name = "AES-128-CCM", .kind = KIND_CCM },
	{ .name = "AES-256-CCM", .kind = KIND_CCM },
	{ .name = "ARIA-128-GCM", .kind = KIND_WHOLE, .explicit_iv = 8 },
	{ .name = "ARIA-256-GCM", .kind = KIND_WHOLE, .explicit_iv = 8 },
	{ .name = "AES-128-CBC", .kind = KIND_CBC },
	{ .name = "AES-256-CBC", .kind = KIND_CBC },
	{ .name = "CAMELLIA-128-CBC", .kind = KIND_CBC },
	{ .name = "CAMELLIA-256-CBC", .kind = KIND_CBC },
	{ .name = "DES-EDE3-CBC", .kind = KIND_CBC },
	{ .name = "AES-128-CBC-HMAC-SHA1", .kind = KIND_CBC_HMAC },
	{ .name = "AES-256-CBC-HMAC-SHA1", .kind = KIND_CBC_HMAC },
	{ .name = "AES-128-CBC-HMAC-SHA256", .kind = KIND_CBC_HMAC },
	{ .name = "AES-256-CBC-HMAC-SHA256", .kind = KIND_CBC_HMAC },
};

void *epkp_inner_provctx;

OSSL_LIB_CTX *epkp_inner_libctx;
static OSSL_PROVIDER *inner_provider;
static pthread_mutex_t learn_lock = PTHREAD_MUTEX_INITIALIZER;

#define RECORD_MAX	16384
#define TAG_UNTRIED	((size_t)-1)
#define ROOM		(RECORD_MAX + 512)

/* What a cipher made of the same calls, and how it answered them. */
struct outcome {
	uint8_t bytes[3 * ROOM];
	size_t len, tag_at, expected_at;
	unsigned int answers, calls, tags, expected;
	bool opened;
};

struct drive {
	const struct cipher *cipher;
	uint8_t *ctx;
	bool sealing, moved;
	size_t len;
	const struct outcome *sealed;
	struct outcome *outcome;
};

static void note(struct outcome *o, int ret)
{
	o->answers = o->answers << 1 | (ret > 0);
	o->calls++;
}

/* Of one message after the other: one that is at two offsets has none. */
static void note_where(size_t *offset, unsigned int *nr, size_t at)
{
	*offset = (*nr)++ && *offset != at ? 0 : at;
}

static int tell_octets(const struct drive *d, const char *name, void *bytes, size_t len)
{
	OSSL_PARAM params[] = { OSSL_PARAM_construct_octet_string(name, bytes, len),
				OSSL_PARAM_construct_end() };

	return d->cipher->inner.set(d->ctx, params);
}

static void set_octets(const struct drive *d, const char *name, void *bytes, size_t len)
{
	note(d->outcome, tell_octets(d, name, bytes, len));
}

static int ask_octets(const struct drive *d, const char *name, void *bytes, size_t len)
{
	OSSL_PARAM params[] = { OSSL_PARAM_construct_octet_string(name, bytes, len),
				OSSL_PARAM_construct_end() };

	return d->cipher->inner.get(d->ctx, params);
}

static void init_inner(const struct drive *d, const uint8_t *key, const uint8_t *iv, size_t ivlen)
{
	note(d->outcome, d->cipher->inner.init[d->sealing](d->ctx, key, key ? d->cipher->key_len : 0,
							   iv, ivlen, NULL));
}

/* @in NULL: what the outcome's room holds, in place. */
static void update(const struct drive *d, bool out, const uint8_t *in, size_t inl)
{
	struct outcome *o = d->outcome;
	uint8_t *at = o->bytes + o->len;
	size_t outl = 0;
	int ret = d->cipher->inner.update(d->ctx, out ? at : NULL, &outl,
					  sizeof(o->bytes) - o->len, in ? in : at, inl);

	note(o, ret);
	if (ret > 0 && out && outl <= sizeof(o->bytes) - o->len)
		o->len += outl;
}

static bool final(const struct drive *d)
{
	struct outcome *o = d->outcome;
	size_t outl = 0;
	int ret = d->cipher->inner.final(d->ctx, o->bytes + o->len, &outl,
					 sizeof(o->bytes) - o->len);

	note(o, ret);
	if (ret > 0 && outl <= sizeof(o->bytes) - o->len)
		o->len += outl;
	return ret > 0;
}

/* Whether that is where it is told from, and not a copy: something else there is told as well. */
static bool is_told(const struct drive *d, size_t at)
{
	uint8_t was[TAG_LEN], other[TAG_LEN], told[TAG_LEN] = { 0 };
	size_t i;
	int ret;

	memcpy(was, d->ctx + at, TAG_LEN);
	for (i = 0; i < TAG_LEN; i++)
		other[i] = was[i] ^ (0x5a + i);
	memcpy(d->ctx + at, other, TAG_LEN);
	ret = ask_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, told, TAG_LEN);
	memcpy(d->ctx + at, was, TAG_LEN);
	return ret > 0 && !memcmp(told, other, TAG_LEN);
}

/*
 * Where the tag was in a context that was moved, of which the size is known: @ended is as it was
 * before anybody asked, as asking may be what puts it there.  0: there is no such offset.
 */
static size_t where_tag_is(const struct drive *d, const uint8_t *ended, const uint8_t *tag)
{
	size_t at;

	for (at = 0; at + TAG_LEN <= d->cipher->size; at++)
		if (!memcmp(ended + at, tag, TAG_LEN) && is_told(d, at))
			return at;
	return 0;
}

static void tag(const struct drive *d)
{
	/* Not on the stack, as what a cipher takes of it is measured; one is tried at a time. */
	static uint8_t ended[CTX_MAX];
	struct outcome *o = d->outcome;
	int ret;

	if (!d->sealing)
		return;
	if (d->moved)
		memcpy(ended, d->ctx, d->cipher->size);
	ret = ask_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, o->bytes + o->len, TAG_LEN);
	note(o, ret);
	note_where(&o->tag_at, &o->tags,
		   d->moved && ret > 0 ? where_tag_is(d, ended, o->bytes + o->len) : 0);
	o->len += TAG_LEN;
}

static bool same_but_at(const uint8_t *a, const uint8_t *b, size_t size, size_t at)
{
	return !memcmp(a, b, at) && !memcmp(a + at + TAG_LEN, b + at + TAG_LEN, size - at - TAG_LEN);
}

/*
 * What a message is to end with that is not the context's first.  All bytes of the two tags that
 * it is told differ, so that it is seen where it begins.
 */
static void expect_again(const struct drive *d, uint8_t *expected)
{
	/* As in tag(). */
	static uint8_t before[CTX_MAX], between[CTX_MAX];
	size_t i, at = 0, size = d->cipher->size;
	uint8_t other[TAG_LEN];
	int ret = 0;

	if (d->moved) {
		for (i = 0; i < TAG_LEN; i++)
			other[i] = expected[i] ^ (0x5a + i);
		memcpy(before, d->ctx, size);
		ret = tell_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, other, TAG_LEN);
		memcpy(between, d->ctx, size);
	}
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, expected, TAG_LEN);
	while (ret > 0 && at + TAG_LEN < size && d->ctx[at] == between[at])
		at++;
	if (ret <= 0 || memcmp(between + at, other, TAG_LEN) ||
	    !same_but_at(before, between, size, at))
		at = 0;
	note_where(&d->outcome->expected_at, &d->outcome->expected, at);
}

/* One record as TLS 1.2 has it; that of @len bytes which nobody sealed is refused. */
static void tls12_record(const struct drive *d, size_t explicit_iv)
{
	size_t whole = explicit_iv + d->len + TAG_LEN;
	size_t told = d->sealing ? whole - TAG_LEN : whole;
	uint8_t header[TLS_AAD_LEN] = { [8] = 23, [9] = 3, [10] = 3, [11] = told >> 8, [12] = told };

	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, header, sizeof(header));
	update(d, true, NULL, whole);
}

static void drive_whole(const struct drive *d, uint8_t *key, uint8_t *iv, uint8_t *in)
{
	const uint8_t *from = d->sealing ? in : d->sealed->bytes;
	uint8_t expected[TAG_LEN] = { 0 };
	bool gcm = d->cipher->explicit_iv;
	int i;

	init_inner(d, key, iv, IV_LEN);
	/* What has been sealed so is right. */
	if (!d->sealing)
		set_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, (uint8_t *)from + d->len, TAG_LEN);
	update(d, false, in, TLS_AAD_LEN);
	update(d, true, from, d->len / 2);
	update(d, true, from + d->len / 2, d->len - d->len / 2);
	d->outcome->opened = final(d);
	tag(d);
	/* Others by their IV alone, as a connection has one after the other. */
	for (i = 1; i <= 2; i++) {
		init_inner(d, NULL, iv + i, IV_LEN);
		if (!d->sealing)
			expect_again(d, expected);
		update(d, false, in, 5);
		update(d, true, in, d->len / 2);
		final(d);
		tag(d);
	}
	/* All of the IV, as the rest would be drawn at random. */
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, iv, gcm ? (size_t)-1 : IV_LEN);
	tls12_record(d, d->cipher->explicit_iv);
}

static void drive_ccm(const struct drive *d, uint8_t *key, uint8_t *iv, uint8_t *in)
{
	size_t iv_len = IV_LEN;
	uint8_t expected[TAG_LEN] = { 0 };
	OSSL_PARAM params[] = { OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_IVLEN, &iv_len),
				OSSL_PARAM_construct_end() };

	note(d->outcome, d->cipher->inner.set(d->ctx, params));
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TAG, d->sealing ? NULL : expected, TAG_LEN);
	init_inner(d, key, iv, IV_LEN);
	update(d, false, NULL, d->len);
	update(d, false, in, TLS_AAD_LEN);
	update(d, true, in, d->len);
	final(d);
	tag(d);
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, iv, 4);
	tls12_record(d, 8);
}

static void drive_cbc(const struct drive *d, uint8_t *key, uint8_t *iv, uint8_t *in)
{
	init_inner(d, key, iv, strstr(d->cipher->name, "DES") ? 8 : 16);
	update(d, true, in, d->len / 2);
	update(d, true, in + d->len / 2, d->len - d->len / 2);
	final(d);
}

static void drive_cbc_hmac(const struct drive *d, uint8_t *key, uint8_t *iv, uint8_t *in)
{
	size_t mac = strstr(d->cipher->name, "SHA256") ? 32 : 20;
	size_t whole = (16 + d->len + mac + 16) & ~(size_t)15;
	uint8_t header[TLS_AAD_LEN] = { [8] = 23, [9] = 3, [10] = 3, [11] = (16 + d->len) >> 8,
					[12] = 16 + d->len };

	init_inner(d, key, iv, 16);
	update(d, true, in, d->len & ~(size_t)15);
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_MAC_KEY, in, mac);
	set_octets(d, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, header, sizeof(header));
	update(d, true, NULL, whole);
}

/* The same calls each time, with a key that is nobody's. */
static __attribute__((noinline)) void drive(const struct drive *d)
{
	static void (*const drives[])(const struct drive *, uint8_t *, uint8_t *, uint8_t *) = {
		[KIND_WHOLE] = drive_whole, [KIND_CCM] = drive_ccm, [KIND_CBC] = drive_cbc,
		[KIND_CBC_HMAC] = drive_cbc_hmac,
	};
	static uint8_t in[RECORD_MAX];
	uint8_t key[64], iv[16];
	size_t i;

	for (i = 0; i < sizeof(key); i++)
		key[i] = 3 * i + 1;
	for (i = 0; i < sizeof(iv); i++)
		iv[i] = 5 * i + 2;
	memset(d->outcome, 0, sizeof(*d->outcome));
	/* That some calls are refused is nobody's error. */
	ERR_set_mark();
	drives[d->cipher->kind](d, key, iv, in);
	ERR_pop_to_mark();
}

/* ---- the stack that it takes */

#define PAINTED		32768
#define PAINT		0xa7

static __attribute__((noinline)) void paint(void)
{
	volatile uint8_t bytes[PAINTED];
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = PAINT;
}

/* Bytes from this call's own frame down to the last that was written to. */
static __attribute__((noinline)) size_t unpainted(void)
{
	const volatile uint8_t *top = __builtin_frame_address(0);
	const volatile uint8_t *at = top - PAINTED + 256;

	while (at < top && *at == PAINT)
		at++;
	return top - at;
}

static size_t stack_of(const struct drive *d)
{
	paint();
	drive(d);
	return unpainted();
}

/* ---- what is presumed */

/* Larger than a context by what malloc() rounds up: at most 15 bytes more are copied. */
static void *new_inner(const struct cipher *c, uint8_t filler)
{
	void *ctx = c->inner.newctx(epkp_inner_provctx);
	size_t size = ctx ? malloc_usable_size(ctx) : 0;
	volatile uint8_t *bytes;
	void *again;
	size_t i;

	/* The memory that the next context gets begins with a known content. */
	if (!ctx)
		return NULL;
	c->inner.freectx(ctx);
	again = malloc(size);
	if (!again)
		return NULL;
	bytes = again;
	for (i = 0; i < size; i++)
		bytes[i] = filler;
	free(again);
	return c->inner.newctx(epkp_inner_provctx);
}

static bool copy_fresh(struct provider *prov, struct cipher *c)
{
	uint8_t *one = new_inner(c, 0x5a), *other = new_inner(c, 0x5a);
	bool same;

	if (!one || !other)
		return raise(prov, EPK_R_MEMORY, "%s", c->name);
	c->size = malloc_usable_size(one);
	same = malloc_usable_size(other) == c->size && !memcmp(other, one, c->size) &&
	       c->size <= CTX_MAX;
	if (same)
		memcpy(c->fresh, one, c->size);
	c->inner.freectx(one);
	c->inner.freectx(other);
	return same || raise(prov, EPK_R_NOT_MOVABLE, "%s: two new contexts differ", c->name);
}

/* Up to the end of what is mapped; says how much that was. */
static size_t read_beyond(void *to, void *from, size_t len)
{
	struct iovec local = { to, len }, remote = { from, len };
	ssize_t got;

	/* A range is read all or not, but for its end. */
	for (; len; local.iov_len = remote.iov_len = len = len > 64 ? len - 64 : 0) {
		got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		if (got > 0)
			return got;
	}
	return 0;
}

#define ALIKE	8

/*
 * In a program with a heap of its own (stunnel) nobody tells how large a context is.  So
 * as much is read as there is room for, of several; where these differ, it is not theirs.
 */
static bool guess_fresh(struct provider *prov, struct cipher *c)
{
	uint8_t *ctx[ALIKE] = { NULL }, other[CTX_MAX];
	size_t i, at, got;

	c->size = CTX_MAX;
	for (i = 0; i < ALIKE; i++) {
		ctx[i] = c->inner.newctx(epkp_inner_provctx);
		got = ctx[i] ? read_beyond(i ? other : c->fresh, ctx[i], c->size) : 0;
		if (got < c->size)
			c->size = got;
		for (at = 0; i && at < c->size; at++)
			if (c->fresh[at] != other[at])
				c->fresh[at] = 0;
	}
	memset(c->fresh + c->size, 0, CTX_MAX - c->size);
	explicit_bzero(other, sizeof(other));
	for (i = 0; i < ALIKE; i++)
		if (ctx[i])
			c->inner.freectx(ctx[i]);
	i = c->size;
	c->size = CTX_MAX;
	return i || raise(prov, EPK_R_NOT_MOVABLE, "%s: its contexts cannot be read", c->name);
}

static bool note_relocation(struct provider *prov, struct cipher *c, size_t at)
{
	size_t i;

	for (i = 0; i < c->nr_relocations; i++)
		if (c->relocations[i] == at)
			return true;
	if (c->nr_relocations == RELOCATIONS_MAX)
		return raise(prov, EPK_R_NOT_MOVABLE, "%s: many pointers into itself", c->name);
	c->relocations[c->nr_relocations++] = at;
	return true;
}

/* @a and @b are where two contexts were moved to. */
static bool same_but_for_where(struct provider *prov, struct cipher *c, const uint8_t *a,
			       const uint8_t *b)
{
	uintptr_t in_a, in_b;
	size_t at;

	for (at = 0; at + sizeof(in_a) <= c->size; at += sizeof(in_a)) {
		memcpy(&in_a, a + at, sizeof(in_a));
		memcpy(&in_b, b + at, sizeof(in_b));
		if (in_a == in_b)
			continue;
		if (in_a - (uintptr_t)a >= c->size || in_a - (uintptr_t)a != in_b - (uintptr_t)b)
			return raise(prov, EPK_R_NOT_MOVABLE, "%s: byte %zu", c->name, at);
		if (!note_relocation(prov, c, at))
			return false;
	}
	return !memcmp(a + at, b + at, c->size - at) ||
	       raise(prov, EPK_R_NOT_MOVABLE, "%s: byte %zu", c->name, at);
}

struct trial {
	uint8_t a[CTX_MAX] __attribute__((aligned(64)));
	uint8_t b[CTX_MAX + 64] __attribute__((aligned(64)));
	uint8_t before[CTX_MAX];
	struct outcome there, moved, moved_too, sealed;
};

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	return a->len == b->len && a->answers == b->answers && a->calls == b->calls &&
	       !memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

/* One that is at two offsets has none. */
static void note_tag(size_t *offset, size_t at, size_t at_too)
{
	if (*offset == TAG_UNTRIED)
		*offset = at;
	if (*offset != at || at != at_too)
		*offset = 0;
}

static bool try_once(struct provider *prov, struct cipher *c, struct trial *t, bool sealing,
		     size_t len)
{
	struct drive d = { .cipher = c, .sealing = sealing, .len = len, .sealed = &t->sealed };
	/* Not at the same place in a page, in case code looks. */
	uint8_t *b = t->b + 64;
	size_t stack;

	d.ctx = c->inner.newctx(epkp_inner_provctx);
	if (!d.ctx)
		return raise(prov, EPK_R_MEMORY, "%s", c->name);
	d.outcome = &t->there;
	drive(&d);
	c->inner.freectx(d.ctx);

	d.moved = true;
	d.ctx = memcpy(t->a, c->fresh, c->size);
	d.outcome = &t->moved;
	drive(&d);
	d.ctx = memcpy(b, c->fresh, c->size);
	d.outcome = &t->moved_too;
	stack = stack_of(&d);
	if (stack > c->stack)
		c->stack = stack;
	if (!same_outcome(&t->there, &t->moved) || !same_outcome(&t->there, &t->moved_too))
		return raise(prov, EPK_R_NOT_MOVABLE, "%s computes something else", c->name);
	if (sealing) {
		note_tag(&c->tag_at, t->moved.tag_at, t->moved_too.tag_at);
		t->sealed = t->moved;
	} else {
		note_tag(&c->expected_at, t->moved.opened ? t->moved.expected_at : 0,
			 t->moved_too.expected_at);
	}
	return same_but_for_where(prov, c, t->a, b);
}

/*
 * A record that is opened leaves the context with its MAC in memory of its own, as a
 * pointer and an int that says so.
 */
static bool find_tls_mac(struct provider *prov, struct cipher *c, struct trial *t)
{
	unsigned int version = 0x303;
	size_t mac_len = 20, at;
	void *mac = NULL, *word;
	OSSL_PARAM set[] = { OSSL_PARAM_construct_uint(OSSL_CIPHER_PARAM_TLS_VERSION, &version),
			     OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_TLS_MAC_SIZE, &mac_len),
			     OSSL_PARAM_construct_end() };
	OSSL_PARAM get[] = { OSSL_PARAM_construct_octet_ptr(OSSL_CIPHER_PARAM_TLS_MAC, &mac,
							    mac_len),
			     OSSL_PARAM_construct_end() };
	struct drive d = { .cipher = c, .ctx = t->a, .outcome = &t->moved };
	unsigned int found = 0, owned = 0;
	int was, is;

	memcpy(t->a, c->fresh, c->size);
	drive(&d);
	if (c->inner.set(t->a, set) <= 0)
		return raise(prov, EPK_R_NOT_MOVABLE, "%s takes no TLS version", c->name);
	memcpy(t->before, t->a, c->size);
	t->moved.len = 0;
	ERR_set_mark();
	update(&d, true, NULL, 160);
	ERR_pop_to_mark();
	if (c->inner.get(t->a, get) <= 0 || !mac)
		return raise(prov, EPK_R_NOT_MOVABLE, "%s gives no MAC", c->name);
	for (at = 0; at + sizeof(word) <= c->size; at += sizeof(word)) {
		memcpy(&word, t->a + at, sizeof(word));
		if (word == mac) {
			c->tls_mac = at;
			found++;
		}
	}
	for (at = c->tls_mac + sizeof(word); found && at <= c->tls_mac + sizeof(word); at++) {
		memcpy(&was, t->before + at, sizeof(was));
		memcpy(&is, t->a + at, sizeof(is));
		if (was == 0 && is == 1) {
			c->tls_mac_owned = at;
			owned++;
		}
	}
	if (found != 1 || owned != 1 || ((uint8_t *)mac >= t->moved.bytes &&
					 (uint8_t *)mac < t->moved.bytes + sizeof(t->moved.bytes)))
		return raise(prov, EPK_R_NOT_MOVABLE, "%s: where the MAC is", c->name);
	OPENSSL_free(mac);
	return true;
}

static bool learn(struct provider *prov, struct cipher *c, struct trial *t)
{
	static const size_t lengths[] = { 16, 160, 1504, RECORD_MAX };
	size_t i;
	OSSL_PARAM params[] = { OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_KEYLEN, &c->key_len),
				OSSL_PARAM_construct_end() };

	if (!(epkp_heap_is_programs() ? guess_fresh(prov, c) : copy_fresh(prov, c)) ||
	    c->inner.get_params(params) <= 0)
		return false;
	memcpy(t->before, c->fresh, c->size);
	c->tag_at = c->expected_at = TAG_UNTRIED;
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		if (!try_once(prov, c, t, true, lengths[i]) || !try_once(prov, c, t, false, lengths[i]))
			return false;
	if (memcmp(t->before, c->fresh, c->size))
		return raise(prov, EPK_R_NOT_MOVABLE, "%s: a new context changed", c->name);
	/* Many records at a time take more, and are not tried here. */
	c->stack = c->kind == KIND_CBC_HMAC ? 8192 : (c->stack + 128 + 63) & ~(size_t)63;
	return c->kind != KIND_CBC || find_tls_mac(prov, c, t);
}

/* ---- where they come from */

static void read_functions(struct inner *in, const OSSL_DISPATCH *d)
{
	for (; d->function_id; d++) {
		switch (d->function_id) {
#define TAKE(id, member, type)								\
		case OSSL_FUNC_CIPHER_##id:						\
			in->member = OSSL_FUNC_cipher_##type(d);			\
			break
		TAKE(NEWCTX, newctx, newctx);
		TAKE(FREECTX, freectx, freectx);
		TAKE(ENCRYPT_INIT, init[true], encrypt_init);
		TAKE(DECRYPT_INIT, init[false], decrypt_init);
		TAKE(UPDATE, update, update);
		TAKE(FINAL, final, final);
		TAKE(CIPHER, cipher, cipher);
		TAKE(GET_PARAMS, get_params, get_params);
		TAKE(GETTABLE_PARAMS, gettable_params, gettable_params);
		TAKE(GET_CTX_PARAMS, get, get_ctx_params);
		TAKE(SET_CTX_PARAMS, set, set_ctx_params);
		TAKE(GETTABLE_CTX_PARAMS, gettable, gettable_ctx_params);
		TAKE(SETTABLE_CTX_PARAMS, settable, settable_ctx_params);
#undef TAKE
		}
	}
}

static bool is_complete(const struct inner *in)
{
	return in->newctx && in->freectx && in->init[0] && in->init[1] && in->update &&
	       in->final && in->cipher && in->get_params && in->gettable_params && in->get &&
	       in->set && in->gettable && in->settable;
}

static bool has_name(const char *names, const char *name)
{
	size_t len = strlen(name);

	return !strncasecmp(names, name, len) && (!names[len] || names[len] == ':');
}

static bool take(struct provider *prov, const OSSL_ALGORITHM *a, struct trial *t)
{
	struct cipher *c;

	for (c = epkp_ciphers; c < epkp_ciphers + NR_CIPHERS; c++) {
		if (c->names || !has_name(a->algorithm_names, c->name))
			continue;
		read_functions(&c->inner, a->implementation);
		if (!is_complete(&c->inner))
			return raise(prov, EPK_R_NOT_MOVABLE, "%s lacks a function", c->name);
		if (!learn(prov, c, t))
			return false;
		c->names = a->algorithm_names;
	}
	return true;
}

static bool take_all(struct provider *prov)
{
	const OSSL_ALGORITHM *a;
	struct trial *t;
	int no_cache;
	bool ok;

	if (!epkp_inner_libctx)
		epkp_inner_libctx = OSSL_LIB_CTX_new();
	if (!inner_provider)
		inner_provider = epkp_inner_libctx ? OSSL_PROVIDER_load(epkp_inner_libctx,
									"default") : NULL;
	a = inner_provider ? OSSL_PROVIDER_query_operation(inner_provider, OSSL_OP_CIPHER,
							   &no_cache) : NULL;
	if (!a)
		return raise(prov, EPK_R_NOT_MOVABLE, "there is no default provider");
	epkp_inner_provctx = OSSL_PROVIDER_get0_provider_ctx(inner_provider);
	t = aligned_alloc(64, (sizeof(*t) + 63) & ~(size_t)63);
	if (!t)
		return raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*t));
	for (ok = true; ok && a->algorithm_names; a++)
		ok = take(prov, a, t);
	free(t);
	return ok;
}

/* That they may be tried once more. */
static void drop_all(void)
{
	struct cipher *c;

	for (c = epkp_ciphers; c < epkp_ciphers + NR_CIPHERS; c++) {
		c->names = NULL;
		c->nr_relocations = 0;
		c->stack = 0;
	}
}

/*
 * Once a process.  The library context is never freed: threads have state of its random
 * generators, which they free when they end.
 */
bool epkp_ciphers_learn(struct provider *prov)
{
	static bool learned;
	bool ok;

	pthread_mutex_lock(&learn_lock);
	if (!learned) {
		learned = take_all(prov);
		if (!learned)
			drop_all();
	}
	ok = learned;
	pthread_mutex_unlock(&learn_lock);
	return ok;
}
