// SPDX-License-Identifier: GPL-2.0
/*
 * In the place of the module where there is no host: looks for room, or keeps the one that a
 * host would say is in use, reserves it, and says where.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

#include "room.h"

static uint bits = 40;
module_param(bits, uint, 0);
static uint max_epts = 512;
module_param(max_epts, uint, 0);

/* Adopt this. */
static unsigned long long kept_base;
module_param(kept_base, ullong, 0);
static unsigned long long kept_identity;
module_param(kept_identity, ullong, 0);
static uint kept_epts;
module_param(kept_epts, uint, 0);
static uint kept_slots;
module_param(kept_slots, uint, 0);

static int __init room_init(void)
{
	struct epk_layout layout = { kept_base, kept_identity, kept_epts, kept_slots };
	int ret = kept_base ? epk_room_keep(bits, &layout) : epk_room_find(bits, max_epts, &layout);

	if (!ret)
		pr_info("room: %u EPTs, %u slots, %#llx, %#llx\n", layout.epts, layout.slots,
			layout.base, layout.identity);
	return ret;
}

static void __exit room_exit(void)
{
	epk_room_release();
}

module_init(room_init);
module_exit(room_exit);
MODULE_LICENSE("GPL");
