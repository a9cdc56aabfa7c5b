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

#include "epk.h"
#include "trace.h"

/**
 * epk_revoked_keys() - which keys of a thread are to be closed
 * @ctx: the context of the thread's address space
 * @pkru: the thread's PKRU
 * @ept: its EPT
 * @seen: the last epoch whose revocations it has met
 *
 * Context: the thread does not run in user mode until its PKRU has them.
 * Return: the access-disable bits of those keys.
 */
u32 epk_revoked_keys(struct epk_context *ctx, u32 pkru, u32 ept, u64 seen)
{
	unsigned int pkey;
	u32 deny = 0;

	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (!(pkru & epk_pkru_deny(pkey)) &&
		    READ_ONCE(ctx->revoked[ept][pkey]) > seen)
			deny |= epk_pkru_deny(pkey);
	}
	if (deny) {
		epk_table_count_revocation(ctx);
		trace_epk_revoke(ept, deny);
	}
	return deny;
}

static void revoke_cpu(void *ctx)
{
	epk_thread_revoke(ctx);
}

/**
 * epk_revoke() - make all vacated places of a context fit for new domains
 * @ctx: the context, locked; no page is mapped at any vacated place, except at those
 *	which the caller vacates anew
 *
 * Context: process.
 */
void epk_revoke(struct epk_context *ctx)
{
	u64 epoch = ctx->epoch + 1;
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

	epk_dawdle();
	/* Pairs with the acquire in thread_meet_revocations(). */
	smp_store_release(&ctx->epoch, epoch);
	/* Pairs with the barrier in epk_context_note_cpu(). */
	smp_mb();
	epk_dawdle();
	/*
	 * Not mm_cpumask(): a CPU that is about to switch to a thread of this context has
	 * perhaps looked at the epoch already, but not changed its page tables yet.
	 */
	on_each_cpu_mask(&ctx->cpus, revoke_cpu, ctx, true);
}
