// SPDX-License-Identifier: MIT
/* Domains of the kernel module that are to share an EPT. */
#include <sys/ioctl.h>

#include "backend.h"
#include "registry.h"

#define MOST	EPK_NR_PKEYS

/**
 * struct plan - where they are, and what else is there
 * @num: domains to be gathered
 * @ids: these
 * @epts: where each is, or EPK_EPT_NONE
 * @used: keys that are in use in each EPT
 * @mine: of these, by them
 * @keys: in each, but for those of domains that are everywhere
 */
struct plan {
	int num;
	int ids[MOST];
	uint16_t epts[MOST];
	uint8_t used[KVM_EPK_MAX_EPTS];
	uint8_t mine[KVM_EPK_MAX_EPTS];
	int keys;
};

/* The EPT of the domain at @index, EPK_EPT_ALL or EPK_EPT_NONE. */
static unsigned int ept_of(uint32_t index, int *id)
{
	struct epk_entry entry = epk_entry_load(index);

	*id = entry.id;
	return entry.id && entry.pkey ? entry.ept : EPK_EPT_NONE;
}

static void look(struct plan *plan)
{
	uint32_t index;
	unsigned int ept;
	int i, id;

	/* Entry 0 is no domain's. */
	for (index = 1; index < epk_registry_high(); index++) {
		ept = ept_of(index, &id);
		if (ept == EPK_EPT_ALL)
			plan->keys--;
		else if (ept < KVM_EPK_MAX_EPTS)
			plan->used[ept]++;
	}
	for (i = 0; i < plan->num; i++) {
		ept = ept_of(EPK_ID_INDEX(plan->ids[i]), &id);
		plan->epts[i] = ept;
		/* Meanwhile another may have come to its index. */
		if (ept < KVM_EPK_MAX_EPTS)
			plan->mine[ept]++;
	}
}

static bool is_mine(const struct plan *plan, int id)
{
	int i;

	for (i = 0; i < plan->num && plan->ids[i] != id; i++)
		;
	return i < plan->num;
}

/* Others make room, as many as have to: each goes where one of those was that come. */
static unsigned int exchange(const struct plan *plan, unsigned int to, struct epk_move *moves,
			     unsigned int nr)
{
	int lack = plan->num - plan->mine[to] - (plan->keys - plan->used[to]), i = 0, id;
	uint32_t index;

	for (index = 1; index < epk_registry_high() && lack > 0; index++) {
		if (ept_of(index, &id) != to || is_mine(plan, id))
			continue;
		while (i < plan->num && plan->epts[i] == to)
			i++;
		if (i == plan->num)
			break;
		moves[nr++] = (struct epk_move){ .id = id, .ept = plan->epts[i++] };
		lack--;
	}
	return nr;
}

/* Also those that are there: where they are when they go the kernel knows, under its lock. */
static int move_to(const struct plan *plan, unsigned int to)
{
	struct epk_move moves[2 * MOST];
	struct epk_moves arg = { .moves = (uintptr_t)moves };
	unsigned int nr = 0;
	int i;

	for (i = 0; i < plan->num; i++)
		moves[nr++] = (struct epk_move){ .id = plan->ids[i], .ept = to };
	arg.num = exchange(plan, to, moves, nr);
	return ioctl(epk_now.fd, EPK_IOC_MOVE, &arg) ? -errno : 0;
}

static bool has_room(const struct plan *plan, unsigned int ept)
{
	return plan->num - plan->mine[ept] <= plan->keys - plan->used[ept];
}

/* Where most of them are; of those with room, if there is one with any of them. */
static unsigned int best(const struct plan *plan, bool with_room)
{
	unsigned int ept, found = EPK_EPT_NONE;

	for (ept = 0; ept < KVM_EPK_MAX_EPTS; ept++)
		if (plan->mine[ept] && (!with_room || has_room(plan, ept)) &&
		    (found == EPK_EPT_NONE || plan->mine[ept] > plan->mine[found]))
			found = ept;
	return found;
}

/*
 * To where most are; else to an EPT with room for all, perhaps a new one; else others make room.  What
 * has no room for other reasons, or is not there, is passed over.
 */
static int gather_once(int num, const int *ids, int keys)
{
	struct plan plan = { .keys = keys };
	unsigned int ept;
	int err = -ENOSPC, i, id;

	/* What is everywhere is together with all. */
	for (i = 0; i < num; i++)
		if (ept_of(EPK_ID_INDEX(ids[i]), &id) != EPK_EPT_ALL)
			plan.ids[plan.num++] = ids[i];
	if (!plan.num)
		return 0;
	look(&plan);
	if (plan.num > plan.keys)
		return -E2BIG;
	ept = best(&plan, true);
	if (ept != EPK_EPT_NONE)
		err = move_to(&plan, ept);
	for (ept = 0; ept < KVM_EPK_MAX_EPTS && err == -ENOSPC; ept++)
		if (!plan.mine[ept] && has_room(&plan, ept))
			err = move_to(&plan, ept);
	/* There are no more EPTs. */
	if (err == -ENOSPC || err == -EINVAL) {
		ept = best(&plan, false);
		err = move_to(&plan, ept == EPK_EPT_NONE ? 0 : ept);
	}
	return err;
}

/* Threads that begin domains have them placed, and others evicted, whoever looks. */
#define TRIES	3

int epk_module_gather(int num, const int *ids)
{
	int keys = __builtin_popcount(epk_now.pkeys), err = -ENOSPC, i;

	if (num > MOST)
		return epk_because(EPK_CAUSE_GATHER);
	for (i = 0; i < TRIES && err == -ENOSPC; i++)
		err = gather_once(num, ids, keys);
	if (err == -E2BIG)
		return epk_because(EPK_CAUSE_GATHER);
	/* Nobody sees the places of what the table unlists, so that nothing of it can make room. */
	return err == -ENOSPC ? epk_because(EPK_CAUSE_GATHER_ROOM) : err;
}
