// SPDX-License-Identifier: GPL-2.0
/*
 * The choice of a layout for windows and identity page: see choose.h.  All counts in blocks.
 *
 * Windows go to the upper end of the highest hole that takes them.  That is as far from RAM as
 * can be, so that RAM which no table announces has room to grow to; and where none is
 * announced, there are twice as many slots as RAM needs if they cost nothing.
 */
#include <linux/errno.h>
#ifdef __KERNEL__
#include <linux/kernel.h>
#else
#include <stdio.h>
#endif

#include "choose.h"

#define ANYTHING_ELSE							\
	"a VM with a larger address width (-cpu host,host-phys-bits=on or phys-bits=), "	\
	"less memory to plug (maxmem=) or a smaller PCI hole "					\
	"(q35: -global q35-pcihost.pci-hole64-size=) has more room; it takes a restart of the VM"

/* What of a line depends on the VM. */
#define TEXT_BYTES	320

/* Blocks from @start up to @end, which is none of them. */
struct hole {
	__u64 start;
	__u64 end;
};

/* What all parts of a search need. */
struct search {
	const struct epk_space *space;
	/* The only base of the first window, or 0. */
	__u64 fixed;
	/* Blocks in all holes together. */
	__u64 free;
};

static __u64 block_of(__u64 address)
{
	return address >> KVM_EPK_BLOCK_SHIFT;
}

static __u64 address_of(__u64 block)
{
	return block << KVM_EPK_BLOCK_SHIFT;
}

static bool is_power_of_two(__u64 n)
{
	return n && !(n & (n - 1));
}

const struct epk_taken *epk_taken_in(const struct epk_space *space, __u64 start, __u64 last)
{
	unsigned int i;

	for (i = 0; i < space->nr_taken; i++)
		if (space->taken[i].start <= last && space->taken[i].last >= start)
			return &space->taken[i];
	return NULL;
}

static const struct epk_taken *taken_block(const struct epk_space *space, __u64 block)
{
	return epk_taken_in(space, address_of(block), address_of(block + 1) - 1);
}

/* The next hole below @hole. */
static bool hole_below(const struct epk_space *space, struct hole *hole)
{
	const struct epk_taken *taken;
	unsigned int i;

	hole->end = hole->start;
	while (hole->end > KVM_EPK_FIRST_BLOCK && (taken = taken_block(space, hole->end - 1)))
		hole->end = block_of(taken->start);
	if (hole->end <= KVM_EPK_FIRST_BLOCK)
		return false;

	hole->start = KVM_EPK_FIRST_BLOCK;
	for (i = 0; i < space->nr_taken; i++) {
		__u64 last = block_of(space->taken[i].last);

		if (last < hole->end && last >= hole->start)
			hole->start = last + 1;
	}
	return true;
}

/* How many blocks have RAM or can have it. */
static __u64 ram_blocks(const struct epk_space *space)
{
	__u64 next = 0, count = 0;

	for (;;) {
		__u64 first = block_of(space->end), end = 0;
		unsigned int i;

		for (i = 0; i < space->nr_taken; i++) {
			const struct epk_taken *taken = &space->taken[i];
			__u64 block = block_of(taken->start), last = block_of(taken->last);

			if (taken->by == EPK_TAKEN_DEVICE || last < next)
				continue;
			if (block < next)
				block = next;
			if (block < first) {
				first = block;
				end = last < block_of(space->end) ? last + 1 : block_of(space->end);
			}
		}
		if (!end)
			return count;
		count += end - first;
		next = end;
	}
}

static bool ram_announced(const struct epk_space *space)
{
	unsigned int i;

	for (i = 0; i < space->nr_taken; i++)
		if (space->taken[i].by == EPK_TAKEN_PLUG)
			return true;
	return false;
}

static unsigned int slots_for(__u64 blocks)
{
	unsigned int slots = 1;

	while (slots < blocks && slots < KVM_EPK_MAX_SLOTS)
		slots *= 2;
	return slots;
}

/* How many windows @hole takes, with a block left somewhere for the identity page. */
static __u64 windows_in(const struct search *search, const struct hole *hole, unsigned int slots)
{
	__u64 start = (hole->start + slots - 1) & ~(__u64)(slots - 1);
	__u64 most = (search->free - 1) / slots, windows;

	if (search->fixed && start != hole->start)
		return 0;
	windows = start < hole->end ? (hole->end - start) / slots : 0;
	return windows < most ? windows : most;
}

/*
 * Find the highest hole that takes @epts windows, or the one that takes most.  Where the
 * first window is fixed, it is from there on.  Return how many it takes, up to @epts.
 */
static unsigned int find(const struct search *search, unsigned int epts, unsigned int slots,
			 struct hole *found)
{
	struct hole hole = { .start = block_of(search->space->end) };
	__u64 most = 0;

	while (most < epts && hole_below(search->space, &hole)) {
		struct hole part = hole;
		__u64 windows;

		if (search->fixed) {
			if (search->fixed < hole.start || search->fixed >= hole.end)
				continue;
			part.start = search->fixed;
		}
		windows = windows_in(search, &part, slots);
		if (windows > most) {
			most = windows;
			*found = part;
		}
	}
	return most < epts ? most : epts;
}

/* The highest free block that is not one of @count from @block on: there is one. */
static __u64 identity_block(const struct epk_space *space, __u64 block, __u64 count)
{
	struct hole hole = { .start = block_of(space->end) };

	while (hole_below(space, &hole)) {
		__u64 last = hole.end - 1;

		if (last >= block && last < block + count)
			last = block - 1;
		if (last >= hole.start)
			return last;
	}
	return 0;
}

static const char *name_at(const struct epk_space *space, __u64 block)
{
	const struct epk_taken *taken;

	if (block >= block_of(space->end))
		return "the end of the address width";
	taken = taken_block(space, block);
	return taken ? taken->name : "the first 4 GiB";
}

static int say_largest(const struct search *search, char *text)
{
	struct hole hole = { .start = block_of(search->space->end) }, largest = { 0, 0 };

	while (hole_below(search->space, &hole))
		if (hole.end - hole.start > largest.end - largest.start)
			largest = hole;
	if (!largest.end)
		return snprintf(text, TEXT_BYTES, "no GiB from %#llx to %#llx is free",
				address_of(KVM_EPK_FIRST_BLOCK), search->space->end);
	return snprintf(text, TEXT_BYTES, "the largest hole is %#llx-%#llx (%llu GiB), between %s and %s",
			address_of(largest.start), address_of(largest.end) - 1,
			largest.end - largest.start, name_at(search->space, largest.start - 1),
			name_at(search->space, largest.end));
}

/* What keeps the windows from being where they were asked for. */
static int say_base(const struct search *search, __u64 blocks, char *text)
{
	__u64 last = address_of(search->fixed + blocks) - 1;
	const struct epk_taken *taken = epk_taken_in(search->space, address_of(search->fixed),
						     last);

	if (taken)
		return snprintf(text, TEXT_BYTES, "%s lies at %#llx-%#llx", taken->name,
				taken->start, taken->last);
	if (last >= search->space->end)
		return snprintf(text, TEXT_BYTES, "the address width ends at %#llx",
				search->space->end);
	return snprintf(text, TEXT_BYTES, "no GiB is left for the identity page");
}

static int refuse(const struct search *search, unsigned int epts, unsigned int slots, char *why)
{
	__u64 blocks = (__u64)epts * slots;
	char text[TEXT_BYTES];

	if (search->fixed) {
		say_base(search, blocks, text);
		snprintf(why, EPK_WHY_BYTES, "base=%#llx: the windows of %u EPTs, of %u GiB each, would take %llu GiB from there, but %s: leave out base=, or give another or fewer EPTs (epts=)",
			 address_of(search->fixed), epts, slots, blocks, text);
	} else {
		say_largest(search, text);
		snprintf(why, EPK_WHY_BYTES, "no room for the windows of %u EPTs, of %u GiB each, which are %llu GiB side by side, and for an identity page: %s; %s%s",
			 epts, slots, blocks, text,
			 blocks > 1 ? "ask for fewer EPTs (epts=) or slots (slots=); " : "",
			 ANYTHING_ELSE);
	}
	return -EBUSY;
}

static int check(const struct epk_space *space, const struct epk_ask *ask, char *why)
{
	__u64 step = address_of(ask->slots > 0 ? ask->slots : 1);

	if (ask->epts != EPK_ASK_ANY &&
	    (ask->epts < 1 || (unsigned int)ask->epts > space->max_epts))
		snprintf(why, EPK_WHY_BYTES, "epts=%d: the host gives this VM 1 to %u", ask->epts,
			 space->max_epts);
	else if (ask->slots != EPK_ASK_ANY &&
		 (ask->slots < 1 || ask->slots > KVM_EPK_MAX_SLOTS || !is_power_of_two(ask->slots)))
		snprintf(why, EPK_WHY_BYTES, "slots=%d: it has to be a power of two from 1 to %d",
			 ask->slots, KVM_EPK_MAX_SLOTS);
	else if (ask->base != EPK_ASK_ANY &&
		 (ask->base < 0 || block_of(ask->base) < KVM_EPK_FIRST_BLOCK ||
		  (__u64)ask->base >= space->end || ask->base & (step - 1)))
		snprintf(why, EPK_WHY_BYTES, "base=%#lx: it has to be a multiple of %#llx, the size of a window, from %#llx on and below %#llx, where the address width ends",
			 ask->base, step, address_of(KVM_EPK_FIRST_BLOCK), space->end);
	else
		return 0;
	return -EINVAL;
}

int epk_choose(const struct epk_space *space, const struct epk_ask *ask, struct epk_layout *layout,
	       char *why)
{
	struct search search = { .space = space };
	bool any_slots = ask->slots == EPK_ASK_ANY, any_epts = ask->epts == EPK_ASK_ANY;
	unsigned int want_epts, want_slots, epts, slots;
	struct hole hole = { .start = block_of(space->end) };
	__u64 block;
	int ret = check(space, ask, why);

	if (ret)
		return ret;
	want_epts = any_epts ? space->max_epts : (unsigned int)ask->epts;
	want_slots = any_slots ? slots_for(ram_blocks(space)) : (unsigned int)ask->slots;
	if (ask->base != EPK_ASK_ANY)
		search.fixed = block_of(ask->base);
	while (hole_below(space, &hole))
		search.free += hole.end - hole.start;
	if (!search.free)
		return refuse(&search, any_epts ? 1 : want_epts, any_slots ? 1 : want_slots, why);

	slots = want_slots;
	while ((epts = find(&search, want_epts, slots, &hole)) < want_epts && any_slots && slots > 1)
		slots /= 2;
	if (epts < (any_epts ? 1 : want_epts))
		return refuse(&search, any_epts ? 1 : want_epts, slots, why);

	why[0] = 0;
	if (epts < want_epts || slots < want_slots) {
		char text[TEXT_BYTES];

		if (search.fixed)
			say_base(&search, (__u64)want_epts * want_slots, text);
		else
			say_largest(&search, text);
		snprintf(why, EPK_WHY_BYTES, "windows of %u GiB for %u EPTs, not of %u GiB for %u as RAM and host would have it: %s",
			 slots, epts, want_slots, want_epts, text);
	} else if (any_slots && slots < KVM_EPK_MAX_SLOTS && !ram_announced(space) &&
		   windows_in(&search, &hole, 2 * slots) >= epts) {
		slots *= 2;
	}

	block = search.fixed ?: (hole.end & ~(__u64)(slots - 1)) - (__u64)epts * slots;
	layout->base = address_of(block);
	layout->epts = epts;
	layout->slots = slots;
	layout->identity = address_of(identity_block(space, block, (__u64)epts * slots) + 1) - 4096;
	return 0;
}

bool epk_layout_ok(const struct epk_layout *layout, __u64 end)
{
	__u64 block = block_of(layout->base), identity = block_of(layout->identity);
	__u64 count = (__u64)layout->epts * layout->slots;

	return layout->epts >= 1 && layout->epts <= KVM_EPK_MAX_EPTS &&
	       layout->slots <= KVM_EPK_MAX_SLOTS && is_power_of_two(layout->slots) &&
	       block >= KVM_EPK_FIRST_BLOCK && layout->base == address_of(block) && !(block & (layout->slots - 1)) &&
	       layout->base < end && count <= block_of(end) - block &&
	       identity >= KVM_EPK_FIRST_BLOCK && !(layout->identity & 4095) && identity < block_of(end) &&
	       (identity < block || identity >= block + count);
}
