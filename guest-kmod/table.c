// SPDX-License-Identifier: GPL-2.0
/*
 * The domain table, the table of its domains' notes, and the domains behind them.  They are made a
 * page at a time, when an entry is used or looked at.
 */
#include <linux/slab.h>
#include <linux/string.h>

#include "module.h"

static_assert(sizeof(struct epk_entry) == sizeof(u64));
/* As many notes to a page as entries. */
static_assert(PAGE_SIZE / sizeof(u64) == EPK_CHUNK_ENTRIES);

/* One store, so that a reader sees the old entry or the new one. */
static void entry_write(struct epk_context *ctx, u32 index, struct epk_entry entry)
{
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];
	union {
		struct epk_entry entry;
		u64 word;
	} u = { .entry = entry };

	WRITE_ONCE(*(u64 *)&chunk->table[index % EPK_CHUNK_ENTRIES], u.word);
}

/**
 * epk_chunk_get() - the part of the domain table that holds an entry
 * @ctx: the context, locked
 * @index: the entry, below EPK_TABLE_ENTRIES
 *
 * Return: the chunk, made if there was none; NULL without memory.
 */
struct epk_chunk *epk_chunk_get(struct epk_context *ctx, u32 index)
{
	struct epk_chunk **slot = &ctx->chunks[index / EPK_CHUNK_ENTRIES];
	struct epk_chunk *chunk = *slot;

	lockdep_assert_held(&ctx->lock);

	if (chunk)
		return chunk;
	chunk = kzalloc(sizeof(*chunk), GFP_KERNEL_ACCOUNT);
	if (!chunk)
		return NULL;
	chunk->table = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!chunk->table) {
		kfree(chunk);
		return NULL;
	}
	memset16(chunk->generations, ctx->generation, EPK_CHUNK_ENTRIES);
	/* Pairs with epk_table_read(). */
	smp_store_release(slot, chunk);
	return chunk;
}

static void unlisted_write(struct epk_context *ctx, u32 index, struct epk_entry entry)
{
	union {
		struct epk_entry entry;
		u64 word;
	} u = { .entry = entry };
	u64 *unlisted = ctx->chunks[index / EPK_CHUNK_ENTRIES]->unlisted;

	if (unlisted)
		WRITE_ONCE(unlisted[index % EPK_CHUNK_ENTRIES], u.word);
}

/* Where a domain is.  Of a private one only its note says it, of an unlisted one nothing. */
static void place_write(struct epk_context *ctx, const struct epk_domain *domain, u16 ept, u8 pkey)
{
	u32 index = EPK_ID_INDEX(domain->id);
	u64 *note, key = pkey;

	if (domain->private) {
		note = &ctx->chunks[index / EPK_CHUNK_ENTRIES]->notes[index % EPK_CHUNK_ENTRIES];
		if (domain->confined)
			key = key << EPK_NOTE_CONFINED_SHIFT | EPK_NOTE_IS_CONFINED;
		WRITE_ONCE(*note, EPK_NOTE_ADDR(*note) | key | (u64)ept << 48);
		ept = EPK_EPT_NONE;
		pkey = 0;
	}
	/* Who finds it unlisted finds where it is, or that it is nowhere, and asks again. */
	if (domain->unlisted) {
		unlisted_write(ctx, index, (struct epk_entry) { domain->id, ept, pkey });
		entry_write(ctx, index, (struct epk_entry) { domain->id, EPK_EPT_NONE, 0 });
	} else {
		entry_write(ctx, index, (struct epk_entry) { domain->id, ept, pkey });
		unlisted_write(ctx, index, (struct epk_entry) { 0 });
	}
}

/**
 * epk_domain_at() - find a live domain
 * @ctx: the context, locked
 * @index: EPK_ID_INDEX() of its ID
 *
 * Return: the domain or NULL.
 */
struct epk_domain *epk_domain_at(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];

	lockdep_assert_held(&ctx->lock);
	return chunk ? chunk->domains[index % EPK_CHUNK_ENTRIES] : NULL;
}

/**
 * epk_domain_peek() - find a live domain by its whole ID
 * @ctx: the context, locked by who waits for the caller
 * @id: the ID, or 0
 *
 * Return: the domain or NULL.
 */
struct epk_domain *epk_domain_peek(struct epk_context *ctx, int id)
{
	u32 index = EPK_ID_INDEX(id);
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];
	struct epk_domain *domain = chunk ? chunk->domains[index % EPK_CHUNK_ENTRIES] : NULL;

	return domain && domain->id == id ? domain : NULL;
}

/**
 * epk_domain_find() - the same for who has the context locked
 * @ctx: the context, locked
 * @id: the ID
 *
 * Return: the domain or NULL.
 */
struct epk_domain *epk_domain_find(struct epk_context *ctx, int id)
{
	lockdep_assert_held(&ctx->lock);
	return epk_domain_peek(ctx, id);
}

/**
 * epk_table_write() - show where a domain is
 * @ctx: the context, locked
 * @domain: one of its domains
 */
void epk_table_write(struct epk_context *ctx, const struct epk_domain *domain)
{
	lockdep_assert_held(&ctx->lock);
	place_write(ctx, domain, domain->ept, domain->pkey);
}

/**
 * epk_table_unlist() - show a domain as evicted while it is on its way
 * @ctx: the context, locked
 * @domain: one of its domains
 */
void epk_table_unlist(struct epk_context *ctx, const struct epk_domain *domain)
{
	lockdep_assert_held(&ctx->lock);
	place_write(ctx, domain, EPK_EPT_NONE, 0);
}

/**
 * epk_table_clear() - show that an index has no domain
 * @ctx: the context, locked
 * @index: the index
 */
void epk_table_clear(struct epk_context *ctx, u32 index)
{
	lockdep_assert_held(&ctx->lock);
	entry_write(ctx, index, (struct epk_entry) { .id = 0 });
}

/**
 * epk_table_count_revocation() - let a thread see that a key of it was closed
 * @ctx: the context
 *
 * Context: any.
 */
void epk_table_count_revocation(struct epk_context *ctx)
{
	/* The upper half of entry 0, whose chunk exists from EPK_IOC_INIT on. */
	atomic_inc((atomic_t *)&ctx->chunks[0]->table[0] + 1);
	atomic_long_inc(&ctx->revocations);
}

/**
 * epk_notes_get() - the page that has a note
 * @ctx: the context, locked
 * @index: the domain's, below EPK_TABLE_ENTRIES
 *
 * Return: the page, made if there was none; NULL without memory.
 */
u64 *epk_notes_get(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = epk_chunk_get(ctx, index);

	if (chunk && !chunk->notes)
		/* Pairs with epk_note_read(). */
		smp_store_release(&chunk->notes, (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT));
	return chunk ? chunk->notes : NULL;
}

/**
 * epk_unlisted_get() - the page that says where domains are that the table unlists
 * @ctx: the context, locked
 * @index: that of a live domain
 *
 * Return: the page, made if there was none; NULL without memory.
 */
u64 *epk_unlisted_get(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];

	lockdep_assert_held(&ctx->lock);
	if (!chunk->unlisted)
		/* Pairs with epk_table_read(). */
		smp_store_release(&chunk->unlisted, (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT));
	return chunk->unlisted;
}

/**
 * epk_note_clear() - a domain goes, and its note with it
 * @ctx: the context, locked
 * @index: the domain's, which no other has yet
 */
void epk_note_clear(struct epk_context *ctx, u32 index)
{
	struct epk_chunk *chunk = ctx->chunks[index / EPK_CHUNK_ENTRIES];

	lockdep_assert_held(&ctx->lock);
	if (chunk->notes)
		WRITE_ONCE(chunk->notes[index % EPK_CHUNK_ENTRIES], 0);
}

/**
 * epk_table_init() - make the first page of the table
 * @ctx: the context, locked
 *
 * Return: 0, -ENOMEM.
 */
int epk_table_init(struct epk_context *ctx)
{
	struct epk_chunk *chunk = epk_chunk_get(ctx, 0);

	if (!chunk)
		return -ENOMEM;
	chunk->table[0].id = 1;
	return 0;
}

/**
 * epk_table_exit() - free the table; nothing is mapped
 * @ctx: the context, nobody else's any more
 */
void epk_table_exit(struct epk_context *ctx)
{
	unsigned int i;

	for (i = 0; i < EPK_CHUNKS; i++) {
		if (!ctx->chunks[i])
			continue;
		free_page((unsigned long)ctx->chunks[i]->table);
		free_page((unsigned long)ctx->chunks[i]->notes);
		free_page((unsigned long)ctx->chunks[i]->unlisted);
		kfree(ctx->chunks[i]);
		ctx->chunks[i] = NULL;
	}
}
