// SPDX-License-Identifier: MIT
/*
 * Where the bytes of a cipher context are, and how it gets from there to a box.
 *
 * Until it gets a key, a context holds no secret, and waits in ordinary memory: so that a
 * connection that changes its keys needs no memory but the half of a box that it has just given
 * back.  Nothing that has no box ever gets a key.
 */
#include <stdlib.h>
#include <string.h>

#include "cipher.h"
#include "secrets.h"

/* @bytes: of a context that was at @from and is to be at @to */
void epkp_ctx_relocate(const struct cipher *c, uint8_t *bytes, const uint8_t *to,
		       const uint8_t *from)
{
	uintptr_t word;
	size_t i;

	for (i = 0; i < c->nr_relocations; i++) {
		memcpy(&word, bytes + c->relocations[i], sizeof(word));
		if (word - (uintptr_t)from >= c->size)
			continue;
		word += to - from;
		memcpy(bytes + c->relocations[i], &word, sizeof(word));
	}
}

/* The box is open, if it has one, and the stack suffices. */
char *epkp_ctx_enter_opened(struct cipher_ctx *ctx)
{
	if (ctx->box && ctx->unkeyed) {
		memcpy(inner(ctx), ctx->unkeyed, ctx->cipher->size);
		epkp_ctx_relocate(ctx->cipher, inner(ctx), inner(ctx), ctx->unkeyed);
	}
	return epkp_watch(ctx->cipher->stack);
}

/* NULL, or for epkp_ctx_leave() how far down the stack is expected to be used. */
char *epkp_ctx_enter(struct cipher_ctx *ctx)
{
	return epkp_stack_suffices(ctx->prov, ctx->cipher->stack) &&
	       (!ctx->box || epkp_box_open(ctx->prov, ctx->box)) ?
	       epkp_ctx_enter_opened(ctx) : NULL;
}

/* Returns what the operation returns to OpenSSL: more than 0 only if all went well. */
int epkp_ctx_leave(struct cipher_ctx *ctx, char *low, int ret)
{
	epkp_scrub(low);
	if (!ctx->box)
		return ret;
	ret = epkp_box_close(ctx->prov, ctx->box) ? ret : 0;
	/* Not while the box is open, as the heap has a lock. */
	free(ctx->unkeyed);
	ctx->unkeyed = NULL;
	return ret;
}

void epkp_ctx_have_box(struct cipher_ctx *ctx, struct box *box, unsigned int half)
{
	ctx->box = box;
	ctx->half = half;
	ctx->mem = box->mem + half * HALF_LEN;
}

/* One that has not been in its box does not stay there. */
void epkp_ctx_leave_box(struct cipher_ctx *ctx)
{
	if (!ctx->box || !ctx->unkeyed)
		return;
	epkp_box_put(ctx->prov, ctx->box, ctx->half, 0);
	ctx->box = NULL;
	ctx->half = 0;
	ctx->mem = ctx->unkeyed;
}

bool epkp_ctx_copy_inner(struct cipher_ctx *to, struct cipher_ctx *from)
{
	const struct cipher *c = from->cipher;
	char *low = epkp_ctx_enter(from);
	bool ok;

	if (!low)
		return false;
	ok = epkp_box_open(to->prov, to->box);
	if (ok) {
		memcpy(inner(to), inner(from), c->size);
		epkp_ctx_relocate(c, inner(to), inner(to), inner(from));
		if (from->stage == STAGE_AHEAD) {
			memcpy(kept(to), kept(from), c->size);
			epkp_ctx_relocate(c, kept(to), inner(to), inner(from));
		}
		ok = epkp_box_close(to->prov, to->box);
	}
	return epkp_ctx_leave(from, low, ok) > 0;
}

/* With its key, to a box of its own. */
static bool move(struct cipher_ctx *ctx, struct box *box)
{
	struct cipher_ctx from = *ctx;

	epkp_ctx_have_box(ctx, box, 0);
	if (epkp_ctx_copy_inner(ctx, &from)) {
		epkp_box_put(ctx->prov, from.box, from.half, room(ctx->cipher));
		return true;
	}
	epkp_box_put(ctx->prov, box, 0, room(ctx->cipher));
	*ctx = from;
	return false;
}

/* May it have one box with another of this connection? */
bool epkp_ctx_may_pair(const struct cipher_ctx *ctx, const struct lineage *of)
{
	return lineage_is_some(of) && ctx->unkeyed && room(ctx->cipher) <= HALF_LEN &&
	       (ctx->cipher->kind == KIND_WHOLE || ctx->cipher->kind == KIND_CCM);
}

/*
 * Before a key of this connection, or of none (NULL), comes: to the box that has the
 * connection's other key, or to a new one, and out of one that has another connection's.
 */
bool epkp_ctx_find_box(struct cipher_ctx *ctx, const struct lineage *of)
{
	static const struct lineage none;
	struct box *box = NULL;
	unsigned int half = 0;

	of = of ? of : &none;
	if (ctx->box && (lineage_is(&ctx->box->of, of) || !lineage_is_some(&ctx->box->of)))
		return true;
	epkp_ctx_leave_box(ctx);
	if (epkp_ctx_may_pair(ctx, of))
		box = epkp_box_join(of, &half);
	if (!box)
		box = epkp_box_get(ctx->prov);
	if (!box)
		return false;
	if (ctx->box)
		return move(ctx, box);
	epkp_ctx_have_box(ctx, box, half);
	return true;
}

/*
 * The key that a handle names goes from the vault into the box while both are open, so that it
 * is in no other memory.
 *
 * 1: the box is open and has it; 0: an error; -1: @key is no handle.
 */
int epkp_ctx_fetch_key(struct cipher_ctx *ctx, const uint8_t *key, size_t len,
		       const struct lineage *of)
{
	struct opened o;
	int taken;

	if (!ctx->prov->wraps || !epkp_handle_looks_like(key, len))
		return epkp_ctx_find_box(ctx, NULL) ? -1 : 0;
	if (!epkp_ctx_find_box(ctx, of) || !epkp_vault_open(ctx->prov, &o))
		return 0;
	taken = epkp_handle_take_to_box(ctx->prov, &o, ctx->box, fetched(ctx), key, len);
	if (epkp_vault_close(ctx->prov, &o))
		return taken < 0 && !epkp_ctx_find_box(ctx, NULL) ? 0 : taken;
	if (taken > 0) {
		explicit_bzero(fetched(ctx), KEY_ROOM);
		epkp_box_close(ctx->prov, ctx->box);
	}
	return 0;
}
