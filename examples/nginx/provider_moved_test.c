// SPDX-License-Identifier: MIT
/* Contexts that cannot be moved are noticed when the provider is loaded. */
#include "provider/heap.c"
#include "provider/moved.c"
#include "provider_test.h"

OSSL_LIB_CTX *with_epk, *plain;

bool epkp_raise_error(struct provider *prov, const char *file, int line, const char *func,
		      enum epk_reason reason, const char *fmt, ...)
{
	(void)prov;
	(void)file;
	(void)line;
	(void)func;
	(void)fmt;
	REQUIRE_EQ(reason, EPK_R_NOT_MOVABLE);
	return false;
}

/* A cipher whose contexts are as OpenSSL's might be one day. */
static struct {
	bool points_to_itself;		/* before it has a key */
	bool points_to_its_key;		/* afterwards */
	bool allocates;
	bool remembers_where_it_was;
} fake;

struct fake_ctx {
	void *self;
	uint8_t *round_key;
	uint8_t key[16];
	uint8_t *allocated;
};

static struct fake_ctx *made_last;

static void *fake_newctx(void *prov)
{
	struct fake_ctx *ctx = OPENSSL_zalloc(sizeof(*ctx));

	(void)prov;
	if (fake.points_to_itself)
		ctx->self = ctx;
	made_last = ctx;
	return ctx;
}

static void fake_freectx(void *ctx)
{
	OPENSSL_free(ctx);
}

static int fake_init(void *vctx, const unsigned char *key, size_t keylen, const unsigned char *iv,
		     size_t ivlen, const OSSL_PARAM params[])
{
	struct fake_ctx *ctx = vctx;

	(void)iv;
	(void)ivlen;
	(void)params;
	if (!key)
		return 1;
	memcpy(ctx->key, key, keylen);
	if (fake.points_to_its_key)
		ctx->round_key = ctx->key;
	if (fake.allocates)
		ctx->allocated = malloc(32);
	return 1;
}

static int fake_update(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
		       const unsigned char *in, size_t inl)
{
	struct fake_ctx *ctx = vctx;
	size_t i;

	(void)outsize;
	for (i = 0; i < inl; i++)
		out[i] = in[i] ^ ctx->key[i % 16] ^
			 (fake.remembers_where_it_was && ctx != made_last);
	*outl = inl;
	return 1;
}

static int fake_final(void *ctx, unsigned char *out, size_t *outl, size_t outsize)
{
	(void)ctx;
	(void)out;
	(void)outsize;
	*outl = 0;
	return 1;
}

static int fake_get_params(OSSL_PARAM params[])
{
	return OSSL_PARAM_set_size_t(OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_KEYLEN), 16);
}

static int fake_params(void *ctx, OSSL_PARAM params[])
{
	(void)ctx;
	(void)params;
	return 1;
}

static int fake_set(void *ctx, const OSSL_PARAM params[])
{
	(void)ctx;
	(void)params;
	return 1;
}

static bool learn_fake(struct cipher *c)
{
	static struct trial t;

	*c = (struct cipher){
		.name = "AES-128-CBC-HMAC-SHA1", .kind = KIND_CBC_HMAC,
		.inner = {
			.newctx = fake_newctx, .freectx = fake_freectx,
			.init = { fake_init, fake_init }, .update = fake_update,
			.final = fake_final, .get_params = fake_get_params,
			.get = fake_params, .set = fake_set,
		},
	};
	return learn(NULL, c, &t);
}

/* ---- a cipher that has tags, and where */

static struct {
	bool finishes_when_asked;	/* until then there is a part of it */
	bool does_not_tell;
	bool alternates;		/* between two places */
	bool has_a_copy;		/* before it */
	bool counts;			/* tags that it is told */
	bool expects_in_turn;		/* in one place or another */
	bool expects_scrambled;
	bool forgets_what_it_found;
	bool never_opens;
} tagged;

struct tagged_ctx {
	uint8_t key[16], zeros[24], hash[16], copy[16], tags[2][16], expected[2][16];
	int nth, told;
	bool opens, has_none;
};

static void *tagged_newctx(void *prov)
{
	(void)prov;
	return OPENSSL_zalloc(sizeof(struct tagged_ctx));
}

static int tagged_init(struct tagged_ctx *ctx, const uint8_t *key, size_t keylen, const uint8_t *iv,
		       size_t ivlen, bool opens)
{
	ctx->opens = opens;
	if (key)
		memcpy(ctx->key, key, keylen);
	memset(ctx->hash, 0x11, sizeof(ctx->hash));
	memcpy(ctx->hash, iv, ivlen < sizeof(ctx->hash) ? ivlen : sizeof(ctx->hash));
	return 1;
}

static int tagged_einit(void *ctx, const unsigned char *key, size_t keylen, const unsigned char *iv,
			size_t ivlen, const OSSL_PARAM params[])
{
	(void)params;
	return tagged_init(ctx, key, keylen, iv, ivlen, false);
}

static int tagged_dinit(void *ctx, const unsigned char *key, size_t keylen, const unsigned char *iv,
			size_t ivlen, const OSSL_PARAM params[])
{
	(void)params;
	return tagged_init(ctx, key, keylen, iv, ivlen, true);
}

static int tagged_set(void *vctx, const OSSL_PARAM params[])
{
	struct tagged_ctx *ctx = vctx;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TAG);
	int i;

	if (!p)
		return 1;
	ctx->told++;
	memcpy(ctx->expected[tagged.expects_in_turn && ctx->told % 2], p->data, 16);
	if (!tagged.counts && !tagged.expects_in_turn)
		ctx->told = 0;
	for (i = 0; tagged.expects_scrambled && i < 16; i++)
		ctx->expected[0][i] ^= 0xff;
	ctx->has_none = false;
	return 1;
}

static int tagged_update(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
			 const unsigned char *in, size_t inl)
{
	struct tagged_ctx *ctx = vctx;
	uint8_t byte;
	size_t i;

	(void)outsize;
	for (i = 0; i < inl; i++) {
		byte = in[i] ^ ctx->key[i % 16];
		if (out)
			out[i] = byte;
		ctx->hash[i % 16] = ctx->hash[i % 16] * 3 + byte + i;
	}
	*outl = inl;
	return 1;
}

static void mix(uint8_t *to, const struct tagged_ctx *ctx)
{
	size_t i;

	for (i = 0; i < 16; i++)
		to[i] = ctx->hash[i] ^ ctx->key[i];
}

static int tagged_final(void *vctx, unsigned char *out, size_t *outl, size_t outsize)
{
	struct tagged_ctx *ctx = vctx;

	(void)out;
	(void)outsize;
	*outl = 0;
	if (ctx->opens) {
		ctx->has_none = tagged.forgets_what_it_found;
		return !tagged.never_opens;
	}
	if (tagged.finishes_when_asked)
		return 1;
	ctx->nth = tagged.alternates && !ctx->nth;
	mix(ctx->tags[ctx->nth], ctx);
	if (tagged.has_a_copy)
		mix(ctx->copy, ctx);
	return 1;
}

static int tagged_get(void *vctx, OSSL_PARAM params[])
{
	struct tagged_ctx *ctx = vctx;

	if (tagged.does_not_tell)
		return 0;
	if (tagged.finishes_when_asked)
		mix(ctx->hash, ctx);
	return OSSL_PARAM_set_octet_string(params, tagged.finishes_when_asked ? ctx->hash :
					   ctx->tags[ctx->nth], 16);
}

static struct cipher learned(void)
{
	static struct trial t;
	struct cipher c = {
		.name = "AES-128-GCM", .kind = KIND_WHOLE, .explicit_iv = 8,
		.inner = {
			.newctx = tagged_newctx, .freectx = fake_freectx,
			.init = { tagged_dinit, tagged_einit }, .update = tagged_update,
			.final = tagged_final, .get_params = fake_get_params,
			.get = tagged_get, .set = tagged_set,
		},
	};

	REQUIRE(learn(NULL, &c, &t));
	return c;
}

static size_t learned_place(void)
{
	return learned().tag_at;
}

static size_t place_of_expected(void)
{
	return learned().expected_at;
}

static int reset(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	memset(&tagged, 0, sizeof(tagged));
	return 0;
}

static void flat_context_is_movable(void **state)
{
	struct cipher c;

	(void)state;
	REQUIRE(learn_fake(&c));
	REQUIRE_IN(c.size, sizeof(struct fake_ctx), sizeof(struct fake_ctx) + 15);
	REQUIRE_EQ(c.nr_relocations, 0);
}

static void pointers_into_itself_are_noted(void **state)
{
	struct cipher c;

	(void)state;
	fake.points_to_its_key = true;
	REQUIRE(learn_fake(&c));
	REQUIRE_EQ(c.nr_relocations, 1);
	REQUIRE_EQ(c.relocations[0], offsetof(struct fake_ctx, round_key));
}

static void pointer_before_the_key_is_refused(void **state)
{
	struct cipher c;

	(void)state;
	fake.points_to_itself = true;
	REQUIRE(!learn_fake(&c));
}

static void allocation_is_refused(void **state)
{
	struct cipher c;

	(void)state;
	fake.allocates = true;
	REQUIRE(!learn_fake(&c));
}

static void other_output_is_refused(void **state)
{
	struct cipher c;

	(void)state;
	fake.remembers_where_it_was = true;
	REQUIRE(!learn_fake(&c));
}

static void tag_in_one_place_is_found(void **state)
{
	(void)state;
	REQUIRE_EQ(learned_place(), offsetof(struct tagged_ctx, tags));
}

static void tag_that_is_made_when_asked_for_is_not(void **state)
{
	(void)state;
	tagged.finishes_when_asked = true;
	REQUIRE_EQ(learned_place(), 0);
}

/* Where nothing is, something has as many zeros. */
static void tag_that_is_not_told_is_not(void **state)
{
	(void)state;
	tagged.does_not_tell = true;
	REQUIRE_EQ(learned_place(), 0);
}

static void tag_in_two_places_in_turn_is_not(void **state)
{
	(void)state;
	tagged.alternates = true;
	REQUIRE_EQ(learned_place(), 0);
}

static void copy_of_a_tag_is_not_it(void **state)
{
	(void)state;
	tagged.has_a_copy = true;
	REQUIRE_EQ(learned_place(), offsetof(struct tagged_ctx, tags));
}

static void expected_tag_in_one_place_is_found(void **state)
{
	(void)state;
	REQUIRE_EQ(place_of_expected(), offsetof(struct tagged_ctx, expected));
}

static void expected_tag_is_not_all_that_changes(void **state)
{
	(void)state;
	tagged.counts = true;
	REQUIRE_EQ(place_of_expected(), 0);
}

static void expected_tag_in_two_places_in_turn_is_told(void **state)
{
	(void)state;
	tagged.expects_in_turn = true;
	REQUIRE_EQ(place_of_expected(), 0);
}

static void expected_tag_that_is_kept_as_something_else_is_told(void **state)
{
	(void)state;
	tagged.expects_scrambled = true;
	REQUIRE_EQ(place_of_expected(), 0);
}

static void expected_tag_that_is_forgotten_is_told(void **state)
{
	(void)state;
	tagged.forgets_what_it_found = true;
	REQUIRE_EQ(place_of_expected(), 0);
}

/* Whether it would be forgotten is not seen. */
static void expected_tag_that_nothing_had_is_told(void **state)
{
	(void)state;
	tagged.never_opens = true;
	REQUIRE_EQ(place_of_expected(), 0);
}

/* Or each record takes longer. */
static void tags_of_libcrypto_are_found(void **state)
{
	size_t i;

	(void)state;
	REQUIRE(epkp_ciphers_learn(NULL));
	for (i = 0; i < NR_CIPHERS; i++)
		if (epkp_ciphers[i].kind == KIND_WHOLE && epkp_ciphers[i].names)
			REQUIRE(epkp_ciphers[i].tag_at && epkp_ciphers[i].expected_at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(flat_context_is_movable, reset),
		cmocka_unit_test_setup(pointers_into_itself_are_noted, reset),
		cmocka_unit_test_setup(pointer_before_the_key_is_refused, reset),
		cmocka_unit_test_setup(allocation_is_refused, reset),
		cmocka_unit_test_setup(other_output_is_refused, reset),
		cmocka_unit_test_setup(tag_in_one_place_is_found, reset),
		cmocka_unit_test_setup(tag_that_is_made_when_asked_for_is_not, reset),
		cmocka_unit_test_setup(tag_that_is_not_told_is_not, reset),
		cmocka_unit_test_setup(tag_in_two_places_in_turn_is_not, reset),
		cmocka_unit_test_setup(copy_of_a_tag_is_not_it, reset),
		cmocka_unit_test_setup(expected_tag_in_one_place_is_found, reset),
		cmocka_unit_test_setup(expected_tag_is_not_all_that_changes, reset),
		cmocka_unit_test_setup(expected_tag_in_two_places_in_turn_is_told, reset),
		cmocka_unit_test_setup(expected_tag_that_is_kept_as_something_else_is_told, reset),
		cmocka_unit_test_setup(expected_tag_that_is_forgotten_is_told, reset),
		cmocka_unit_test_setup(expected_tag_that_nothing_had_is_told, reset),
		cmocka_unit_test_setup(tags_of_libcrypto_are_found, reset),
	};

	return cmocka_run_group_tests_name("provider_moved", tests, NULL, NULL);
}
