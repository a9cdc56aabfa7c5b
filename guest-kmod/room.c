// SPDX-License-Identifier: GPL-2.0
/*
 * Room for windows and identity page in guest-physical space, outside of all that the kernel
 * and the firmware's tables say is there, and kept free of everything else from then on.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/acpi.h>
#include <linux/ioport.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "room.h"

static struct epk_ask ask = { EPK_ASK_ANY, EPK_ASK_ANY, EPK_ASK_ANY };
module_param_named(epts, ask.epts, int, 0444);
MODULE_PARM_DESC(epts, "number of EPTs (default: -1, what the host gives and there is room for)");
module_param_named(slots, ask.slots, int, 0444);
MODULE_PARM_DESC(slots, "GiB that each EPT's window reaches at a time, a power of two (default: -1, what RAM needs and there is room for)");
module_param_named(base, ask.base, long, 0444);
MODULE_PARM_DESC(base, "guest-physical address of the windows (default: -1, the highest that is free)");

static struct resource windows = {
	.name = "EPK windows",
	.flags = IORESOURCE_MEM | IORESOURCE_BUSY,
};

static struct resource identity = {
	.name = "EPK identity page",
	.flags = IORESOURCE_MEM | IORESOURCE_BUSY,
};

/* Others take and give back resources meanwhile. */
#define TRIES	8

/**
 * struct survey - what is in guest-physical space
 * @taken: room for @room entries
 * @count: how many there are, which may be more
 * @looked: the kernel's resources are among them
 */
struct survey {
	struct epk_taken *taken;
	unsigned int room;
	unsigned int count;
	bool looked;
};

static void __init survey_add(struct survey *survey, u64 start, u64 last, enum epk_taken_by by,
			      const char *name)
{
	struct epk_taken *taken;

	if (survey->count++ >= survey->room)
		return;
	taken = &survey->taken[survey->count - 1];
	taken->start = start;
	taken->last = last;
	taken->by = by;
	strscpy(taken->name, name ?: "a device", sizeof(taken->name));
}

/*
 * The kernel calls this for a hole, with the lock of the tree held, and has no other function
 * for modules that tells a resource's name.  RAM may lie within another resource.
 */
static resource_size_t __init survey_look(void *arg, const struct resource *avail,
					  resource_size_t size, resource_size_t align)
{
	struct resource *res = iomem_resource.child;
	struct survey *survey = arg;

	while (res && !survey->looked) {
		bool ram = (res->flags & IORESOURCE_SYSTEM_RAM) == IORESOURCE_SYSTEM_RAM;

		if (ram || res->parent == &iomem_resource)
			survey_add(survey, res->start, res->end,
				   ram ? EPK_TAKEN_RAM : EPK_TAKEN_DEVICE, res->name);
		if (res->child) {
			res = res->child;
			continue;
		}
		while (!res->sibling && res->parent != &iomem_resource)
			res = res->parent;
		res = res->sibling;
	}
	survey->looked = true;
	/* Two bytes from here on are no range: the hole is declined. */
	return -1;
}

static void __init survey_resources(struct survey *survey)
{
	/* Of no type, so that the kernel cuts nothing from the holes. */
	struct resource none = { };

	survey->looked = false;
	allocate_resource(&iomem_resource, &none, 2, 0, -1, 1, survey_look, survey);
}

#ifdef CONFIG_ACPI

/* Where RAM can be plugged.  What of it is there already is counted once. */
static void __init survey_srat(struct survey *survey)
{
	const struct acpi_srat_mem_affinity *mem;
	struct acpi_table_header *table;
	const u8 *at, *end;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_SRAT, 0, &table)))
		return;
	at = (u8 *)table + sizeof(struct acpi_table_srat);
	end = (u8 *)table + table->length;
	for (; at + sizeof(struct acpi_subtable_header) <= end; at += mem->header.length) {
		u64 last;

		mem = (const void *)at;
		if (mem->header.length < sizeof(mem->header) || at + mem->header.length > end)
			break;
		if (mem->header.type != ACPI_SRAT_TYPE_MEMORY_AFFINITY ||
		    mem->header.length < sizeof(*mem) || !mem->length ||
		    !(mem->flags & ACPI_SRAT_MEM_ENABLED))
			continue;
		if (check_add_overflow(mem->base_address, mem->length - 1, &last))
			last = U64_MAX;
		if (mem->flags & ACPI_SRAT_MEM_HOT_PLUGGABLE)
			survey_add(survey, mem->base_address, last, EPK_TAKEN_PLUG,
				   "hot-pluggable memory");
		else
			survey_add(survey, mem->base_address, last, EPK_TAKEN_DEVICE,
				   "memory of the SRAT");
	}
	acpi_put_table(table);
}

#else

static void __init survey_srat(struct survey *survey) {}

#endif

/* Fill @survey, whose memory is the caller's to free. */
static int __init survey_make(struct survey *survey)
{
	*survey = (struct survey){ };
	do {
		kvfree(survey->taken);
		survey->room = survey->count + 64;
		survey->count = 0;
		survey->taken = kvcalloc(survey->room, sizeof(*survey->taken), GFP_KERNEL);
		if (!survey->taken)
			return -ENOMEM;
		survey_resources(survey);
		survey_srat(survey);
	} while (survey->count > survey->room);

	/* Without a hole of a single byte nobody looked. */
	return survey->looked ? 0 : -EBUSY;
}

/* Nothing may be there yet, not even what lets others lie within it. */
static int __init reserve(const struct epk_layout *layout)
{
	u64 size = (u64)layout->epts * layout->slots << KVM_EPK_BLOCK_SHIFT;
	u64 block = BIT_ULL(KVM_EPK_BLOCK_SHIFT);

	windows.start = layout->base;
	windows.end = layout->base + size - 1;
	identity.start = layout->identity & ~(block - 1);
	identity.end = identity.start + block - 1;
	if (request_resource(&iomem_resource, &windows))
		return -EBUSY;
	if (!request_resource(&iomem_resource, &identity))
		return 0;
	release_resource(&windows);
	return -EBUSY;
}

/* Where KVM may have windows, and this kernel entries of page tables that lead there. */
static u64 __init space_end(unsigned int phys_bits)
{
	return min_t(u64, BIT_ULL(phys_bits) - 1, iomem_resource.end) + 1;
}

static int __init room_try(unsigned int phys_bits, unsigned int max_epts, struct epk_layout *layout)
{
	struct epk_space space = { .end = space_end(phys_bits), .max_epts = max_epts };
	static char why[EPK_WHY_BYTES] __initdata;
	struct survey survey;
	int ret;

	ret = survey_make(&survey);
	if (!ret) {
		space.taken = survey.taken;
		space.nr_taken = survey.count;
		ret = epk_choose(&space, &ask, layout, why);
		if (ret)
			pr_err("%s\n", why);
		else
			ret = reserve(layout) ? -EAGAIN : 0;
		if (!ret && why[0])
			pr_notice("%s\n", why);
	} else {
		pr_err("cannot look for room in the physical address space (%d)\n", ret);
	}
	kvfree(survey.taken);
	return ret;
}

/**
 * epk_room_find() - choose a layout for windows and identity page, and reserve it
 * @phys_bits: the address width, from 31 to 52
 * @max_epts: the greatest number of EPTs
 * @layout: gets the layout
 *
 * Return: 0, -EINVAL, -EBUSY or -ENOMEM, with a line in the log.
 */
int __init epk_room_find(unsigned int phys_bits, unsigned int max_epts, struct epk_layout *layout)
{
	unsigned int i;
	int ret = -EAGAIN;

	for (i = 0; ret == -EAGAIN && i < TRIES; i++)
		ret = room_try(phys_bits, max_epts, layout);
	if (ret != -EAGAIN)
		return ret;
	pr_err("others took each layout that was free, %u times: try again\n", TRIES);
	return -EBUSY;
}

static void __init say_in_the_way(const struct epk_space *space, const struct resource *res)
{
	const struct epk_taken *taken = epk_taken_in(space, res->start, res->end);

	if (taken)
		pr_err("EPK was enabled before with %s at %pR, where %s lies at %#llx-%#llx now: start the VM anew\n",
		       res->name, res, taken->name, taken->start, taken->last);
}

/**
 * epk_room_keep() - reserve the layout that the host says is in use already
 * @phys_bits: the address width, from 31 to 52
 * @layout: the layout
 *
 * Return: 0, -EBUSY, -ENODEV if it is no layout, or -ENOMEM, with a line in the log.
 */
int __init epk_room_keep(unsigned int phys_bits, const struct epk_layout *layout)
{
	struct epk_space space = { .end = space_end(phys_bits) };
	struct survey survey;
	int ret;

	if (!epk_layout_ok(layout, space.end)) {
		pr_err("the host's EPK makes no sense: windows of %u EPTs, of %u GiB each, at %#llx, identity page at %#llx, %u address bits\n",
		       layout->epts, layout->slots, layout->base, layout->identity, phys_bits);
		return -ENODEV;
	}
	if (reserve(layout)) {
		ret = survey_make(&survey) ?: -EBUSY;
		space.taken = survey.taken;
		space.nr_taken = min(survey.count, survey.room);
		pr_err("no room for the windows and the identity page that EPK was enabled with before (%d)\n",
		       ret);
		say_in_the_way(&space, &windows);
		say_in_the_way(&space, &identity);
		kvfree(survey.taken);
		return ret;
	}
	if ((ask.epts != EPK_ASK_ANY && ask.epts != layout->epts) ||
	    (ask.slots != EPK_ASK_ANY && ask.slots != layout->slots) ||
	    (ask.base != EPK_ASK_ANY && ask.base != layout->base))
		pr_warn("EPK was enabled before, with epts=%u slots=%u base=%#llx, and stays so until the VM starts anew\n",
			layout->epts, layout->slots, layout->base);
	return 0;
}

/**
 * epk_room_release() - give back what epk_room_find() or epk_room_keep() reserved
 */
void epk_room_release(void)
{
	release_resource(&identity);
	release_resource(&windows);
}
