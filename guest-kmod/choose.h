/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where in guest-physical space the windows find room.  Knows nothing of the kernel, so that
 * tests/firmware/ can ask the same source about what firmware leaves.
 */
#ifndef EPK_CHOOSE_H
#define EPK_CHOOSE_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#include <stddef.h>
#endif

#include <asm/kvm_epk.h>

/* Whatever fits. */
#define EPK_ASK_ANY	(-1)

/* What the windows are to stay out of. */
enum epk_taken_by {
	EPK_TAKEN_DEVICE,
	EPK_TAKEN_RAM,
	/* RAM can come here. */
	EPK_TAKEN_PLUG,
};

/**
 * struct epk_taken - a range of guest-physical space that is something already
 * @start: its first address
 * @last: its last address, not below @start
 * @by: what it is
 * @name: for who asks
 */
struct epk_taken {
	__u64 start;
	__u64 last;
	enum epk_taken_by by;
	char name[36];
};

/**
 * struct epk_space - guest-physical space, and what the host can do in it
 * @end: the first address beyond
 * @taken: in any order; they may overlap
 * @nr_taken: how many
 * @max_epts: the greatest number of EPTs
 */
struct epk_space {
	__u64 end;
	const struct epk_taken *taken;
	unsigned int nr_taken;
	unsigned int max_epts;
};

/**
 * struct epk_ask - what the administrator wants, each EPK_ASK_ANY for whatever fits
 * @epts: number of EPTs
 * @slots: slots in each window
 * @base: address of the first window
 */
struct epk_ask {
	int epts;
	int slots;
	long base;
};

/**
 * struct epk_layout - where windows and identity page are
 * @base: address of the first window
 * @identity: address of the identity page, in a block of its own
 * @epts: number of EPTs
 * @slots: slots in each window
 */
struct epk_layout {
	__u64 base;
	__u64 identity;
	unsigned int epts;
	unsigned int slots;
};

/* A line for the log. */
#define EPK_WHY_BYTES	768

/**
 * epk_choose() - find the highest hole that takes the windows
 * @space: guest-physical space
 * @ask: what the administrator wants
 * @layout: gets the layout
 * @why: EPK_WHY_BYTES, get why there is none, or why it is less than RAM and host could use,
 *	or an empty string
 *
 * If no hole takes the greatest number of EPTs with the slots that RAM needs, there are fewer
 * slots, then fewer EPTs.
 *
 * Return: 0, -EINVAL if what is asked for makes no sense, -EBUSY if something is in the way.
 */
int epk_choose(const struct epk_space *space, const struct epk_ask *ask, struct epk_layout *layout,
	       char *why);

/**
 * epk_taken_in() - what lies in a range
 * @space: guest-physical space
 * @start: its first address
 * @last: its last address
 *
 * Return: one range that overlaps, or NULL.
 */
const struct epk_taken *epk_taken_in(const struct epk_space *space, __u64 start, __u64 last);

/**
 * epk_layout_ok() - whether a layout can be one at all
 * @layout: the layout
 * @end: the first address beyond guest-physical space
 */
bool epk_layout_ok(const struct epk_layout *layout, __u64 end);

#endif /* EPK_CHOOSE_H */
