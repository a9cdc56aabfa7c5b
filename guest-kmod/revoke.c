// SPDX-License-Identifier: GPL-2.0
/*
 * Revocation: a thread that had a domain's key open when the domain was freed
 * or moved must not reach the next domain that gets the same place.
 *
 * A key means another domain in each EPT, so it is closed only in the threads
 * that are in the EPT in question: at once, by an interrupt, in those that run;
 * when it is next switched in, in a registered thread that does not, which is
 * why each place remembers the epoch of its last revocation and each thread the
 * last epoch that it has seen.  A thread that is not registered loses its EPT
 * with the CPU, and is no holder of domains.
 */
#include <linux/smp.h>

#include <asm/pkru.h>

#include "epk.h"

/**
 * epk_revoke_current() - close the keys of current that were revoked
 * @ctx: the context of current->mm
 * @ept: the EPT in which current runs, or runs once it is switched in
 * @seen: the last epoch whose revocations current has met
 *
 * Context: interrupts off.
 */
void epk_revoke_current(struct epk_context *ctx, u32 ept, u32 seen)
{
	u32 pkru = read_pkru(), deny = 0;
	unsigned int pkey;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (!(pkru & epk_pkru_deny(pkey)) &&
		    (s32)(READ_ONCE(ctx->revoked[ept][pkey]) - seen) > 0)
			deny |= epk_pkru_deny(pkey);
	}
	if (!deny)
		return;
	/* First, so that a thread that this interrupts between RDPKRU and WRPKRU sees it. */
	epk_table_count_revocation(ctx);
	write_pkru(pkru | deny);
}

static void revoke_cpu(void *ctx)
{
	epk_thread_revoke(ctx);
}

/**
 * epk_revoke() - make all vacated places of a context fit for new domains
 * @ctx: the context, locked; no page is mapped at any vacated place
 *
 * Context: process.
 */
void epk_revoke(struct epk_context *ctx)
{
	u32 epoch = ctx->epoch + 1;
	unsigned int ept, pkey;

	lockdep_assert_held(&ctx->lock);

	for (ept = 0; ept < epk_host.nr_epts; ept++) {
		if (!ctx->vacated[ept])
			continue;
		for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
			if (ctx->vacated[ept] & BIT(pkey))
				WRITE_ONCE(ctx->revoked[ept][pkey], epoch);
		}
		ctx->vacated[ept] = 0;
	}
	ctx->revoke_due = false;

	/* Pairs with the acquire in thread_sched_in(). */
	smp_store_release(&ctx->epoch, epoch);
	/*
	 * A CPU that is not in the mask now enters it by a locked instruction
	 * before it switches a thread in, which then sees the epoch.
	 */
	smp_mb();
	on_each_cpu_mask(mm_cpumask(ctx->mm), revoke_cpu, ctx, true);
}
