// SPDX-License-Identifier: MIT
/*
 * The cipher operations that OpenSSL calls.  Each opens the context's domain,
 * does its work and closes the domain again, whatever came of it.
 */
#include <stdlib.h>
#include <string.h>

#include "epk_provider.h"

/* More than the deepest of nettle's calls here uses. */
#define SCRUB_BYTES	4096

/*
 * Nettle keeps round keys in vector registers and key stream on the stack.
 * Neither may outlive the open domain.
 */
static __attribute__((noinline)) void scrub(void)
{
	char stack[SCRUB_BYTES];

	explicit_bzero(stack, sizeof(stack));
	__asm__ volatile("pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\t"
			 "pxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
			 "pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
			 "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
			 "pxor %%xmm8, %%xmm8\n\tpxor %%xmm9, %%xmm9\n\t"
			 "pxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
			 "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
			 "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15"
			 : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
			       "xmm15");
}

struct aead_state *ctx_open(struct cipher_ctx *ctx)
{
	return box_open(ctx->prov, &ctx->box) ? ctx->box.mem : NULL;
}

/* Returns what the operation returns to OpenSSL: 1 only if all went well. */
int ctx_close(struct cipher_ctx *ctx, bool ok)
{
	struct aead_state *s = ctx->box.mem;

	if (s->dirty) {
		s->dirty = false;
		scrub();
	}
	return box_close(ctx->prov, &ctx->box) && ok;
}

static struct cipher_ctx *ctx_alloc(struct provider *prov, const struct cipher *cipher)
{
	struct cipher_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*ctx));
		return NULL;
	}
	ctx->prov = prov;
	ctx->cipher = cipher;
	if (!box_new(prov, &ctx->box, sizeof(struct aead_state))) {
		free(ctx);
		return NULL;
	}
	return ctx;
}

static void cipher_freectx(void *vctx)
{
	struct cipher_ctx *ctx = vctx;

	if (!ctx)
		return;
	box_free(ctx->prov, &ctx->box);
	free(ctx);
}

static void *cipher_newctx(struct provider *prov, const struct cipher *cipher)
{
	struct cipher_ctx *ctx = ctx_alloc(prov, cipher);
	struct aead_state *s;

	if (!ctx)
		return NULL;
	s = ctx_open(ctx);
	if (!s)
		goto fail;
	s->iv_len = IV_LEN;
	s->tag_len = TAG_LEN;
	if (ctx_close(ctx, true))
		return ctx;
fail:
	cipher_freectx(ctx);
	return NULL;
}

static void *cipher_dupctx(void *vctx)
{
	struct cipher_ctx *from = vctx;
	struct cipher_ctx *to = ctx_alloc(from->prov, from->cipher);

	if (to && !box_copy(from->prov, &to->box, &from->box)) {
		cipher_freectx(to);
		to = NULL;
	}
	return to;
}

static bool set_key(struct cipher_ctx *ctx, struct aead_state *s, const uint8_t *key, size_t len)
{
	const struct nettle_aead *nettle = ctx->cipher->nettle;

	if (len != nettle->key_size)
		return raise(ctx->prov, EPK_R_KEY_LENGTH, "%zu bytes, not %u", len,
			     nettle->key_size);
	s->dirty = true;
	nettle->set_encrypt_key(&s->nettle, key);
	s->key_set = true;
	if (s->iv_state == IV_RUNNING)
		s->iv_state = IV_SPENT;
	return true;
}

static bool set_iv(struct cipher_ctx *ctx, struct aead_state *s, const uint8_t *iv, size_t len)
{
	if (!len || len > ctx->cipher->iv_max || (ctx->cipher->iv_max == IV_LEN && len != IV_LEN))
		return raise(ctx->prov, EPK_R_IV_LENGTH, "%zu bytes", len);
	memcpy(s->iv, iv, len);
	s->iv_len = len;
	s->iv_state = IV_SET;
	return true;
}

static int init(void *vctx, const unsigned char *key, size_t keylen, const unsigned char *iv,
		size_t ivlen, const OSSL_PARAM params[], bool sealing)
{
	struct cipher_ctx *ctx = vctx;
	struct aead_state *s = ctx_open(ctx);
	bool ok;

	if (!s)
		return 0;
	if (s->sealing != sealing) {
		s->sealing = sealing;
		s->tag_set = false;
		if (s->iv_state == IV_RUNNING)
			s->iv_state = IV_SPENT;
	}
	s->tls_aad_set = false;
	ok = (!iv || set_iv(ctx, s, iv, ivlen)) &&
	     (!key || set_key(ctx, s, key, keylen)) &&
	     state_set_params(ctx, s, params);
	return ctx_close(ctx, ok);
}

static int cipher_einit(void *vctx, const unsigned char *key, size_t keylen,
			const unsigned char *iv, size_t ivlen, const OSSL_PARAM params[])
{
	return init(vctx, key, keylen, iv, ivlen, params, true);
}

static int cipher_dinit(void *vctx, const unsigned char *key, size_t keylen,
			const unsigned char *iv, size_t ivlen, const OSSL_PARAM params[])
{
	return init(vctx, key, keylen, iv, ivlen, params, false);
}

/* Starts the message if this is its first piece. */
static bool in_message(struct cipher_ctx *ctx, struct aead_state *s)
{
	if (!s->key_set)
		return raise(ctx->prov, EPK_R_NO_KEY, "set one first");
	if (s->iv_state == IV_SET) {
		aead_start(ctx->cipher, s, s->iv, s->iv_len);
		s->iv_state = IV_RUNNING;
		/* An expected tag may be set first; an old result must not stay. */
		if (s->sealing)
			s->tag_set = false;
	}
	if (s->iv_state != IV_RUNNING)
		return raise(ctx->prov, EPK_R_NO_IV, "each message needs an IV of its own");
	return true;
}

static bool stream(struct cipher_ctx *ctx, struct aead_state *s, unsigned char *out,
		   size_t outsize, const unsigned char *in, size_t inl)
{
	const struct cipher *c = ctx->cipher;

	if (!in_message(ctx, s))
		return false;
	if (!out) {
		if (s->in_data)
			return raise(ctx->prov, EPK_R_AAD_AFTER_DATA, "%zu bytes", inl);
		aead_aad(c, s, in, inl);
		return true;
	}
	if (outsize < inl)
		return raise(ctx->prov, EPK_R_OUTPUT_TOO_SMALL, "%zu bytes for %zu", outsize, inl);
	if (inl > c->data_max - s->data_len)
		return raise(ctx->prov, EPK_R_TOO_LONG, "%zu bytes more", inl);
	aead_data(c, s, out, in, inl);
	return true;
}

static int cipher_update(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
			 const unsigned char *in, size_t inl)
{
	struct cipher_ctx *ctx = vctx;
	struct aead_state *s;
	size_t done = inl;
	bool ok;

	*outl = 0;
	if (!inl)
		return 1;
	s = ctx_open(ctx);
	if (!s)
		return 0;
	if (!s->tls_aad_set)
		ok = stream(ctx, s, out, outsize, in, inl);
	else if (!out || outsize < inl)
		ok = raise(ctx->prov, EPK_R_OUTPUT_TOO_SMALL, "%zu bytes for %zu", outsize, inl);
	else
		ok = tls12_record(ctx, s, out, &done, in, inl);
	if (!ctx_close(ctx, ok))
		return 0;
	*outl = done;
	return 1;
}

static bool finish(struct cipher_ctx *ctx, struct aead_state *s)
{
	if (!in_message(ctx, s))
		return false;
	if (!s->sealing && !s->tag_set)
		return raise(ctx->prov, EPK_R_NO_TAG, "set the expected one first");
	s->iv_state = IV_SPENT;
	if (s->sealing) {
		aead_digest(ctx->cipher, s, s->tag);
		s->tag_set = true;
		return true;
	}
	aead_digest(ctx->cipher, s, s->computed);
	s->tag_set = false;
	if (!aead_tag_matches(s->tag, s->computed, s->tag_len))
		return raise(ctx->prov, EPK_R_BAD_TAG, "message rejected");
	return true;
}

static int cipher_final(void *vctx, unsigned char *out, size_t *outl, size_t outsize)
{
	struct cipher_ctx *ctx = vctx;
	struct aead_state *s = ctx_open(ctx);

	(void)out;
	(void)outsize;
	*outl = 0;
	return s ? ctx_close(ctx, finish(ctx, s)) : 0;
}

static int cipher_oneshot(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
			  const unsigned char *in, size_t inl)
{
	return in ? cipher_update(vctx, out, outl, outsize, in, inl) :
		    cipher_final(vctx, out, outl, outsize);
}

#define FN(id, f)	{ OSSL_FUNC_CIPHER_##id, (void (*)(void))(f) }

#define CIPHER(name)									\
	static void *name##_newctx(void *prov)						\
	{										\
		return cipher_newctx(prov, &cipher_##name);				\
	}										\
	static int name##_get_params(OSSL_PARAM params[])				\
	{										\
		return cipher_get_params(&cipher_##name, params);			\
	}										\
	const OSSL_DISPATCH name##_functions[] = {					\
		FN(NEWCTX, name##_newctx),						\
		FN(FREECTX, cipher_freectx),						\
		FN(DUPCTX, cipher_dupctx),						\
		FN(ENCRYPT_INIT, cipher_einit),						\
		FN(DECRYPT_INIT, cipher_dinit),						\
		FN(UPDATE, cipher_update),						\
		FN(FINAL, cipher_final),						\
		FN(CIPHER, cipher_oneshot),						\
		FN(GET_PARAMS, name##_get_params),					\
		FN(GETTABLE_PARAMS, cipher_gettable_params),				\
		FN(GET_CTX_PARAMS, cipher_get_ctx_params),				\
		FN(SET_CTX_PARAMS, cipher_set_ctx_params),				\
		FN(GETTABLE_CTX_PARAMS, cipher_gettable_ctx_params),			\
		FN(SETTABLE_CTX_PARAMS, cipher_settable_ctx_params),			\
		{ 0, NULL }								\
	}

CIPHER(aes128_gcm);
CIPHER(aes256_gcm);
CIPHER(chacha20_poly1305);
