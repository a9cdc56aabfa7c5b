// SPDX-License-Identifier: MIT
/*
 * The cipher operations that OpenSSL calls.  Each opens the context's domain, calls the
 * default provider's own function on what lies there, wipes and closes the domain again.
 *
 * To TLS 1.3, a record is six calls: length of the IV, IV, expected tag, header, payload,
 * end, resulting tag.  What comes before the payload is public and waits in the struct
 * message, and the end is reached ahead of being asked for, so that the domain is opened
 * once.  Only where the header says that the payload is complete: the tag of a part of a
 * message must not lie in ordinary memory, since with that of the whole it gives away the
 * key of the hash.  The state from before the end is kept, in the domain, should there be
 * more all the same.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#include "cipher.h"
#include "publish.h"
#include "secrets.h"

static OSSL_PARAM octets(const char *name, void *bytes, size_t len)
{
	return OSSL_PARAM_construct_octet_string(name, bytes, len);
}

static bool set_one(struct cipher_ctx *ctx, const char *name, void *bytes, size_t len)
{
	OSSL_PARAM params[] = { octets(name, bytes, len), OSSL_PARAM_construct_end() };

	return ctx->cipher->inner.set(inner(ctx), params) > 0;
}

/* Not by a vector register, whose upper parts may be in use: that takes hundreds of cycles. */
static void copy_tag(uint8_t *to, const uint8_t *from)
{
	typedef uint64_t __attribute__((aligned(1), may_alias)) word;
	const volatile word *half = (const volatile word *)from;

	((word *)to)[0] = half[0];
	((word *)to)[1] = half[1];
}

/* What the message is to end with. */
static bool tell_tag(struct cipher_ctx *ctx)
{
	struct message *m = &ctx->message;
	size_t at = ctx->cipher->expected_at;

	if (ctx->told && at && m->tag_len == TAG_LEN) {
		copy_tag(ctx->mem + at, m->tag);
		return true;
	}
	ctx->told = false;
	if (!set_one(ctx, OSSL_CIPHER_PARAM_AEAD_TAG, m->tag, m->tag_len))
		return false;
	ctx->told = m->tag_len == TAG_LEN;
	return true;
}

static bool tell_message(struct cipher_ctx *ctx)
{
	const struct inner *in = &ctx->cipher->inner;
	struct message *m = &ctx->message;
	size_t outl;

	if (in->init[ctx->sealing](inner(ctx), NULL, 0, m->iv, IV_LEN, NULL) <= 0)
		return false;
	if (m->tag_len && !tell_tag(ctx))
		return false;
	return !m->header_len ||
	       in->update(inner(ctx), NULL, &outl, m->header_len, m->header, m->header_len) > 0;
}

/* The inner context sees what it has not seen yet.  The domain is open. */
static bool settle_for_payload(struct cipher_ctx *ctx)
{
	struct message *m = &ctx->message;
	enum stage stage = ctx->stage;

	ctx->stage = STAGE_PLAIN;
	switch (stage) {
	case STAGE_BEGUN:
		return tell_message(ctx);
	case STAGE_HEADER:
		ctx->told = false;
		return set_one(ctx, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, m->header, TLS_AAD_LEN);
	case STAGE_AHEAD:
		memcpy(inner(ctx), kept(ctx), ctx->cipher->size);
		explicit_bzero(m->tag, sizeof(m->tag));
		break;
	default:
		break;
	}
	return true;
}

/* Before anything but a payload. */
static bool settle(struct cipher_ctx *ctx)
{
	ctx->odd |= ctx->stage == STAGE_HEADER;
	return settle_for_payload(ctx);
}

/* As one that has a key. */
static void count(struct cipher_ctx *ctx, bool record)
{
	if (!ctx->counted)
		epkp_publish_add(&epkp_published.contexts, 1);
	if (ctx->record != record)
		epkp_publish_add(&epkp_published.records, record ? 1 : -1);
	ctx->counted = true;
	ctx->record = record;
}

/* A forked child has no context of its parent's. */
static void discount(struct cipher_ctx *ctx)
{
	if (!ctx->counted || !epkp_box_is_ours(ctx->box))
		return;
	epkp_publish_add(&epkp_published.contexts, -1);
	if (ctx->record)
		epkp_publish_add(&epkp_published.records, -1);
	if (ctx->cbc)
		epkp_publish_add(&epkp_published.cbc_contexts, -1);
}

/* It has no box yet. */
static struct cipher_ctx *ctx_new(struct provider *prov, const struct cipher *cipher)
{
	struct cipher_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", sizeof(*ctx));
		return NULL;
	}
	ctx->prov = prov;
	ctx->cipher = cipher;
	return ctx;
}

static struct cipher_ctx *ctx_new_unkeyed(struct provider *prov, const struct cipher *cipher,
					  const uint8_t *bytes)
{
	struct cipher_ctx *ctx = ctx_new(prov, cipher);

	if (!ctx)
		return NULL;
	ctx->unkeyed = malloc(cipher->size);
	if (!ctx->unkeyed) {
		raise(prov, EPK_R_MEMORY, "%zu bytes", cipher->size);
		free(ctx);
		return NULL;
	}
	memcpy(ctx->unkeyed, bytes, cipher->size);
	ctx->mem = ctx->unkeyed;
	return ctx;
}

static struct cipher_ctx *cipher_newctx(struct provider *prov, const struct cipher *cipher)
{
	return ctx_new_unkeyed(prov, cipher, cipher->fresh);
}

/* A forked child cannot know where it is. */
static void free_tls_mac(struct cipher_ctx *ctx)
{
	char *low;
	void *mac;
	int owned;

	if (ctx->box && !epkp_box_is_ours(ctx->box))
		return;
	low = epkp_ctx_enter(ctx);
	if (!low)
		return;
	memcpy(&mac, ctx->mem + ctx->cipher->tls_mac, sizeof(mac));
	memcpy(&owned, ctx->mem + ctx->cipher->tls_mac_owned, sizeof(owned));
	if (epkp_ctx_leave(ctx, low, 1) > 0 && owned)
		OPENSSL_free(mac);
}

static void cipher_freectx(void *vctx)
{
	struct cipher_ctx *ctx = vctx;

	if (!ctx)
		return;
	if (ctx->tls_mac)
		free_tls_mac(ctx);
	discount(ctx);
	if (ctx->box)
		epkp_box_put(ctx->prov, ctx->box, ctx->half, room(ctx->cipher));
	free(ctx->unkeyed);
	free(ctx);
}

static struct cipher_ctx *copy_where_it_is(struct cipher_ctx *from)
{
	struct cipher_ctx *to;
	struct box *box;

	if (!from->box) {
		to = ctx_new_unkeyed(from->prov, from->cipher, from->unkeyed);
		if (to)
			epkp_ctx_relocate(to->cipher, to->unkeyed, to->unkeyed, from->unkeyed);
		return to;
	}
	to = ctx_new(from->prov, from->cipher);
	box = to ? epkp_box_get(to->prov) : NULL;
	if (!box) {
		free(to);
		return NULL;
	}
	epkp_ctx_have_box(to, box, 0);
	if (epkp_ctx_copy_inner(to, from))
		return to;
	cipher_freectx(to);
	return NULL;
}

static void *cipher_dupctx(void *vctx)
{
	struct cipher_ctx *from = vctx;
	struct cipher_ctx *to;

	if (from->tls_mac) {
		raise(from->prov, EPK_R_NO_COPY, "%s of a TLS connection", from->cipher->name);
		return NULL;
	}
	to = copy_where_it_is(from);
	if (!to)
		return NULL;
	to->keyed = from->keyed;
	if (from->counted)
		count(to, from->record);
	to->sealing = from->sealing;
	to->odd = from->odd;
	to->stage = from->stage;
	to->message = from->message;
	return to;
}

static bool is_empty(const OSSL_PARAM params[])
{
	return !params || !params->key;
}

static bool is_one(const OSSL_PARAM params[], const char *name)
{
	return params && params[0].key && *params[0].key == *name && !params[1].key &&
	       !strcmp(params[0].key, name);
}

/* Does the inner context need to know at once? */
static bool may_wait(const struct cipher_ctx *ctx)
{
	return ctx->cipher->kind == KIND_WHOLE && ctx->keyed && !ctx->odd &&
	       ctx->stage != STAGE_AHEAD && ctx->stage != STAGE_HEADER;
}

/* An IV that cannot be wrong. */
static bool begin_message(struct cipher_ctx *ctx, const uint8_t *iv)
{
	/* A header belongs to its message, but an expected tag is one until there is another. */
	if (ctx->stage != STAGE_BEGUN)
		ctx->message.tag_len = 0;
	ctx->message.header_len = 0;
	memcpy(ctx->message.iv, iv, IV_LEN);
	ctx->stage = STAGE_BEGUN;
	return true;
}

/*
 * A CBC suite of libssl's, which nobody else names a version for: tickets and files may be
 * sealed with these ciphers.
 */
static bool may_serve(const struct cipher_ctx *ctx, const OSSL_PARAM params[])
{
	enum cipher_kind kind = ctx->cipher->kind;

	return (kind != KIND_CBC && kind != KIND_CBC_HMAC) || ctx->prov->any_mac || !params ||
	       !OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_TLS_VERSION) ||
	       raise(ctx->prov, EPK_R_REFUSED, "%s: of its suites libssl has the MAC keys, and of "
		     "a handshake all keys, in ordinary memory; \"allow = CBC\" takes them",
		     ctx->cipher->name);
}

/* The default provider may set its own copy of the last record's MAC aside from now on. */
static void note_params(struct cipher_ctx *ctx, const OSSL_PARAM params[])
{
	bool of_suite = params && OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_TLS_VERSION);

	ctx->iv_len = 0;
	if (ctx->cipher->kind == KIND_CBC && of_suite)
		ctx->tls_mac = true;
	if (ctx->counted && ctx->cipher->kind >= KIND_CBC && !ctx->cbc && of_suite) {
		epkp_publish_add(&epkp_published.cbc_contexts, 1);
		ctx->cbc = true;
	}
	if (ctx->cipher->kind == KIND_WHOLE && params &&
	    OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD))
		ctx->odd = true;
}

static int init_inner(struct cipher_ctx *ctx, const uint8_t *key, size_t keylen,
		      const uint8_t *iv, size_t ivlen, const OSSL_PARAM params[], bool sealing)
{
	int ret;

	note_params(ctx, params);
	ret = settle(ctx) &&
	      ctx->cipher->inner.init[sealing](inner(ctx), key, keylen, iv, ivlen, params) > 0;
	ctx->told = false;
	ctx->keyed = ret && (ctx->keyed || key);
	ctx->sealing = sealing;
	return ret;
}

/* The key of a MAC is one, too. */
static bool may_have_key(const struct cipher_ctx *ctx, const OSSL_PARAM params[])
{
	return ctx->cipher->kind == KIND_CBC_HMAC && !is_empty(params);
}

static int init_keyed(struct cipher_ctx *ctx, const uint8_t *key, size_t keylen,
		      const uint8_t *iv, size_t ivlen, const OSSL_PARAM params[], bool sealing)
{
	struct lineage of;
	bool pairs;
	int ret, taken;
	char *low;

	epkp_handle_lineage(key, keylen, &of);
	pairs = epkp_ctx_may_pair(ctx, &of);
	taken = epkp_ctx_fetch_key(ctx, key, keylen, &of);
	low = !taken ? NULL : taken > 0 ? epkp_ctx_enter_opened(ctx) : epkp_ctx_enter(ctx);
	if (!low) {
		epkp_ctx_leave_box(ctx);
		return 0;
	}
	ret = init_inner(ctx, taken > 0 ? fetched(ctx) : key, keylen, iv, ivlen, params, sealing);
	if (taken > 0)
		explicit_bzero(fetched(ctx), KEY_ROOM);
	ret = epkp_ctx_leave(ctx, low, ret);
	if (ret <= 0)
		return ret;
	count(ctx, taken > 0);
	/* Nobody waits for the lock of boxes with a key's box open. */
	if (taken > 0 && pairs && !lineage_is_some(&ctx->box->of))
		epkp_box_offer(ctx->box, &of);
	return ret;
}

static int init(void *vctx, const unsigned char *key, size_t keylen, const unsigned char *iv,
		size_t ivlen, const OSSL_PARAM params[], bool sealing)
{
	struct cipher_ctx *ctx = vctx;
	char *low;

	if (!key && iv && ivlen == IV_LEN && is_empty(params) && ctx->sealing == sealing &&
	    may_wait(ctx))
		return begin_message(ctx, iv);
	if (!may_serve(ctx, params) || !epkp_stack_suffices(ctx->prov, ctx->cipher->stack))
		return 0;
	if (key)
		return init_keyed(ctx, key, keylen, iv, ivlen, params, sealing);
	if (may_have_key(ctx, params) && !epkp_ctx_find_box(ctx, NULL))
		return 0;
	low = epkp_ctx_enter(ctx);
	if (!low) {
		epkp_ctx_leave_box(ctx);
		return 0;
	}
	return epkp_ctx_leave(ctx, low, init_inner(ctx, NULL, 0, iv, ivlen, params, sealing));
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

static bool more_header(struct message *m, const uint8_t *in, size_t inl)
{
	if (inl > HEADER_LEN - m->header_len)
		return false;
	memcpy(m->header + m->header_len, in, inl);
	m->header_len += inl;
	return true;
}

/* RFC 8446, 5.2: type, version, and the length of payload and tag. */
static bool is_tls13_record(const struct message *m, size_t inl)
{
	const uint8_t *h = m->header;

	return m->header_len == 5 && h[0] == 23 && h[1] == 3 && h[2] == 3 &&
	       (size_t)(h[3] << 8 | h[4]) == inl + TAG_LEN;
}

/* The result, with its tag, which is public from now on. */
static int end_message(struct cipher_ctx *ctx, uint8_t *out, size_t *outl, size_t outsize)
{
	const struct inner *f = &ctx->cipher->inner;
	struct message *m = &ctx->message;
	OSSL_PARAM tag[] = { octets(OSSL_CIPHER_PARAM_AEAD_TAG, m->tag, TAG_LEN),
			     OSSL_PARAM_construct_end() };

	m->right = f->final(inner(ctx), out, outl, outsize);
	if (m->right <= 0 || !ctx->sealing)
		return m->right;
	if (!ctx->cipher->tag_at)
		return f->get(inner(ctx), tag);
	copy_tag(m->tag, ctx->mem + ctx->cipher->tag_at);
	return 1;
}

/* All of a record's payload: ends it, too. */
static int whole(struct cipher_ctx *ctx, uint8_t *out, size_t *outl, size_t outsize,
		 const uint8_t *in, size_t inl)
{
	uint8_t none[TAG_LEN];
	size_t no_more;
	int ret;
	char *low;

	low = epkp_ctx_enter(ctx);
	if (!low)
		return 0;
	ret = settle_for_payload(ctx) ?
	      ctx->cipher->inner.update(inner(ctx), out, outl, outsize, in, inl) : 0;
	if (ret > 0) {
		memcpy(kept(ctx), inner(ctx), ctx->cipher->size);
		ctx->message.right = end_message(ctx, none, &no_more, sizeof(none));
		ctx->stage = STAGE_AHEAD;
	}
	return epkp_ctx_leave(ctx, low, ret);
}

static int cipher_update(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
			 const unsigned char *in, size_t inl)
{
	struct cipher_ctx *ctx = vctx;
	int ret = 0;
	char *low;

	if (ctx->stage == STAGE_BEGUN && in && inl) {
		if (!out && more_header(&ctx->message, in, inl)) {
			*outl = inl;
			return 1;
		}
		if (out && outsize >= inl && is_tls13_record(&ctx->message, inl) &&
		    (ctx->sealing || ctx->message.tag_len))
			return whole(ctx, out, outl, outsize, in, inl);
	}
	low = epkp_ctx_enter(ctx);
	if (!low)
		return 0;
	/* Nothing, or too much, would not use up a record's header. */
	if (inl && inl <= outsize ? settle_for_payload(ctx) : settle(ctx))
		ret = ctx->cipher->inner.update(inner(ctx), out, outl, outsize, in, inl);
	return epkp_ctx_leave(ctx, low, ret);
}

static int cipher_final(void *vctx, unsigned char *out, size_t *outl, size_t outsize)
{
	struct cipher_ctx *ctx = vctx;
	int ret;
	char *low;

	if (ctx->stage == STAGE_AHEAD) {
		ctx->stage = STAGE_ENDED;
		*outl = 0;
		return ctx->message.right;
	}
	low = epkp_ctx_enter(ctx);
	if (!low)
		return 0;
	if (!settle(ctx))
		ret = 0;
	else if (ctx->cipher->kind == KIND_WHOLE)
		ret = end_message(ctx, out, outl, outsize);
	else
		ret = ctx->cipher->inner.final(inner(ctx), out, outl, outsize);
	if (ctx->cipher->kind == KIND_WHOLE && ret > 0)
		ctx->stage = STAGE_ENDED;
	return epkp_ctx_leave(ctx, low, ret);
}

static int cipher_oneshot(void *vctx, unsigned char *out, size_t *outl, size_t outsize,
			  const unsigned char *in, size_t inl)
{
	struct cipher_ctx *ctx = vctx;
	int ret;
	char *low;

	low = epkp_ctx_enter(ctx);
	if (!low)
		return 0;
	ret = settle(ctx) ?
	      ctx->cipher->inner.cipher(inner(ctx), out, outl, outsize, in, inl) : 0;
	return epkp_ctx_leave(ctx, low, ret);
}

/* What is known without the inner context; false if it has to be asked. */
static bool get_known(struct cipher_ctx *ctx, OSSL_PARAM *p)
{
	struct message *m = &ctx->message;
	size_t iv_len = __atomic_load_n(&ctx->iv_len, __ATOMIC_RELAXED);

	if (iv_len && is_one(p, OSSL_CIPHER_PARAM_IVLEN))
		return OSSL_PARAM_set_size_t(p, iv_len);
	if (is_one(p, OSSL_CIPHER_PARAM_KEYLEN))
		return OSSL_PARAM_set_size_t(p, ctx->cipher->key_len);
	if (ctx->stage == STAGE_HEADER && is_one(p, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD))
		return OSSL_PARAM_set_size_t(p, TAG_LEN);
	if (ctx->stage == STAGE_ENDED && m->right > 0 && ctx->sealing &&
	    is_one(p, OSSL_CIPHER_PARAM_AEAD_TAG) && p->data && p->data_size &&
	    p->data_size <= TAG_LEN)
		return OSSL_PARAM_set_octet_string(p, m->tag, p->data_size);
	return false;
}

static bool has_seen_all(const struct cipher_ctx *ctx)
{
	return ctx->stage == STAGE_PLAIN || ctx->stage == STAGE_ENDED;
}

static int ask(struct cipher_ctx *ctx, OSSL_PARAM params[])
{
	size_t iv_len;
	char *low;
	int ret;

	low = epkp_ctx_enter(ctx);
	if (!low)
		return 0;
	ret = has_seen_all(ctx) || settle(ctx) ? ctx->cipher->inner.get(inner(ctx), params) : 0;
	if (ret > 0 && is_one(params, OSSL_CIPHER_PARAM_IVLEN) &&
	    OSSL_PARAM_get_size_t(params, &iv_len))
		__atomic_store_n(&ctx->iv_len, iv_len, __ATOMIC_RELAXED);
	return epkp_ctx_leave(ctx, low, ret);
}

/* To settle changes the context, so a copy does; but the question for an IV is to change it. */
static int cipher_get(void *vctx, OSSL_PARAM params[])
{
	struct cipher_ctx *ctx = vctx, *copy;
	int ret;

	if (is_empty(params) || get_known(ctx, params))
		return 1;
	if (has_seen_all(ctx) || OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN))
		return ask(ctx, params);
	copy = cipher_dupctx(ctx);
	ret = copy ? ask(copy, params) : 0;
	cipher_freectx(copy);
	return ret;
}

/* A header that the inner context would take: its length counts IV, and tag when opening. */
static bool begin_record(struct cipher_ctx *ctx, const uint8_t *header)
{
	size_t overhead = ctx->cipher->explicit_iv + (ctx->sealing ? 0 : TAG_LEN);

	if ((size_t)(header[TLS_AAD_LEN - 2] << 8 | header[TLS_AAD_LEN - 1]) < overhead)
		return false;
	memcpy(ctx->message.header, header, TLS_AAD_LEN);
	ctx->stage = STAGE_HEADER;
	return true;
}

/* What can wait until there is a payload. */
static bool set_later(struct cipher_ctx *ctx, const OSSL_PARAM *p)
{
	struct message *m = &ctx->message;

	if (!may_wait(ctx) || !p->data || p->data_type != OSSL_PARAM_OCTET_STRING)
		return false;
	if (ctx->stage == STAGE_BEGUN && !ctx->sealing &&
	    is_one(p, OSSL_CIPHER_PARAM_AEAD_TAG) && p->data_size && p->data_size <= TAG_LEN) {
		memcpy(m->tag, p->data, p->data_size);
		m->tag_len = p->data_size;
		return true;
	}
	return ctx->stage != STAGE_BEGUN &&
	       is_one(p, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD) && p->data_size == TLS_AAD_LEN &&
	       begin_record(ctx, p->data);
}

static int cipher_set(void *vctx, const OSSL_PARAM params[])
{
	struct cipher_ctx *ctx = vctx;
	int ret;
	char *low;

	if (is_empty(params) || set_later(ctx, params))
		return 1;
	if (!may_serve(ctx, params) || (may_have_key(ctx, params) && !epkp_ctx_find_box(ctx, NULL)))
		return 0;
	low = epkp_ctx_enter(ctx);
	if (!low) {
		epkp_ctx_leave_box(ctx);
		return 0;
	}
	note_params(ctx, params);
	ret = settle(ctx) ? ctx->cipher->inner.set(inner(ctx), params) : 0;
	ctx->told = false;
	return epkp_ctx_leave(ctx, low, ret);
}

/*
 * OpenSSL tells a function of an algorithm neither which it is nor whose; the context
 * that some get is not the inner one.
 */
#define CIPHER(i)									\
	static void *newctx_##i(void *prov)						\
	{										\
		return cipher_newctx(prov, &epkp_ciphers[i]);				\
	}										\
	static int get_params_##i(OSSL_PARAM params[])					\
	{										\
		return epkp_ciphers[i].inner.get_params(params);			\
	}										\
	static const OSSL_PARAM *gettable_params_##i(void *prov)			\
	{										\
		(void)prov;								\
		return epkp_ciphers[i].inner.gettable_params(epkp_inner_provctx);	\
	}										\
	static const OSSL_PARAM *gettable_##i(void *ctx, void *prov)			\
	{										\
		(void)ctx;								\
		(void)prov;								\
		return epkp_ciphers[i].inner.gettable(NULL, epkp_inner_provctx);	\
	}										\
	static const OSSL_PARAM *settable_##i(void *ctx, void *prov)			\
	{										\
		(void)ctx;								\
		(void)prov;								\
		return epkp_ciphers[i].inner.settable(NULL, epkp_inner_provctx);	\
	}

#define FN(id, f)	{ OSSL_FUNC_CIPHER_##id, (void (*)(void))(f) }

#define FUNCTIONS(i)									\
	{										\
		FN(NEWCTX, newctx_##i),							\
		FN(FREECTX, cipher_freectx),						\
		FN(DUPCTX, cipher_dupctx),						\
		FN(ENCRYPT_INIT, cipher_einit),						\
		FN(DECRYPT_INIT, cipher_dinit),						\
		FN(UPDATE, cipher_update),						\
		FN(FINAL, cipher_final),						\
		FN(CIPHER, cipher_oneshot),						\
		FN(GET_PARAMS, get_params_##i),						\
		FN(GETTABLE_PARAMS, gettable_params_##i),				\
		FN(GET_CTX_PARAMS, cipher_get),						\
		FN(SET_CTX_PARAMS, cipher_set),						\
		FN(GETTABLE_CTX_PARAMS, gettable_##i),					\
		FN(SETTABLE_CTX_PARAMS, settable_##i),					\
		{ 0, NULL }								\
	}

CIPHER(0) CIPHER(1) CIPHER(2) CIPHER(3) CIPHER(4) CIPHER(5) CIPHER(6) CIPHER(7)
CIPHER(8) CIPHER(9) CIPHER(10) CIPHER(11) CIPHER(12) CIPHER(13) CIPHER(14) CIPHER(15)

const OSSL_DISPATCH epkp_cipher_functions[NR_CIPHERS][15] = {
	FUNCTIONS(0), FUNCTIONS(1), FUNCTIONS(2), FUNCTIONS(3),
	FUNCTIONS(4), FUNCTIONS(5), FUNCTIONS(6), FUNCTIONS(7),
	FUNCTIONS(8), FUNCTIONS(9), FUNCTIONS(10), FUNCTIONS(11),
	FUNCTIONS(12), FUNCTIONS(13), FUNCTIONS(14), FUNCTIONS(15),
};
