// SPDX-License-Identifier: MIT
/*
 * The module's chooser against an oracle that tries every layout, on memory maps at random and at
 * the limits; and what it says to bad input.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "choose.h"

#define BLOCK		(1ull << KVM_EPK_BLOCK_SHIFT)
#define MAX_TAKEN	12
/* Of the oracle's map. */
#define MAX_BLOCKS	4096

static unsigned long failures, refused, fewer_epts, fewer_slots, spare, aligned;

#define CHECK(condition, ...)							\
	do {									\
		if (!(condition)) {						\
			printf("%s:%d: " #condition ": ", __FILE__, __LINE__);	\
			printf(__VA_ARGS__);					\
			putchar('\n');						\
			failures++;						\
		}								\
	} while (0)

static uint64_t state;

static uint32_t draw(uint32_t below)
{
	state = state * 6364136223846793005 + 1442695040888963407;
	return (state >> 33) % below;
}

/* Whether a block is free, and whether it is or can be RAM. */
struct map {
	bool used[MAX_BLOCKS];
	bool ram[MAX_BLOCKS];
	unsigned int blocks;
	unsigned int free;
	bool plug;
};

static void map_make(struct map *map, const struct epk_space *space)
{
	unsigned int i, block;

	memset(map, 0, sizeof(*map));
	map->blocks = space->end / BLOCK;
	for (block = 0; block < 4; block++)
		map->used[block] = true;
	for (i = 0; i < space->nr_taken; i++) {
		const struct epk_taken *taken = &space->taken[i];

		map->plug |= taken->by == EPK_TAKEN_PLUG;
		for (block = 0; block < MAX_BLOCKS; block++) {
			if (taken->start > (block + 1) * BLOCK - 1 || taken->last < block * BLOCK)
				continue;
			map->used[block] = true;
			map->ram[block] |= taken->by != EPK_TAKEN_DEVICE;
		}
	}
	for (block = 0; block < map->blocks; block++)
		map->free += !map->used[block];
}

static bool map_fits(const struct map *map, uint64_t first, uint64_t count)
{
	uint64_t block;

	if (first + count > map->blocks)
		return false;
	for (block = first; block < first + count; block++)
		if (map->used[block])
			return false;
	return map->free > count;
}

/* The highest layout of so many windows, or 0. */
static uint64_t try(const struct map *map, const struct epk_ask *ask, uint64_t epts, uint64_t slots)
{
	uint64_t first;

	if (ask->base != EPK_ASK_ANY)
		return !(ask->base / BLOCK % slots) && map_fits(map, ask->base / BLOCK, epts * slots) ?
		       ask->base / BLOCK : 0;
	for (first = map->blocks / slots * slots; first; first -= slots)
		if (map_fits(map, first, epts * slots))
			return first;
	return 0;
}

/* What there is to be, by trying: 0 and the layout, or -EBUSY. */
static int oracle(const struct epk_space *space, const struct epk_ask *ask,
		  struct epk_layout *layout, bool *less)
{
	static struct map map;
	uint64_t want_epts = ask->epts == EPK_ASK_ANY ? space->max_epts : (unsigned int)ask->epts;
	uint64_t want_slots = 1, needed = 0, epts, slots, block, first = 0, twice;
	unsigned int i;

	map_make(&map, space);
	for (i = 0; i < map.blocks; i++)
		needed += map.ram[i];
	while (want_slots < needed && want_slots < KVM_EPK_MAX_SLOTS)
		want_slots *= 2;
	if (ask->slots != EPK_ASK_ANY)
		want_slots = ask->slots;

	for (slots = want_slots; slots; slots /= 2) {
		first = try(&map, ask, want_epts, slots);
		if (first || ask->slots != EPK_ASK_ANY)
			break;
	}
	epts = want_epts;
	if (!first) {
		slots = ask->slots == EPK_ASK_ANY ? 1 : ask->slots;
		if (ask->epts == EPK_ASK_ANY)
			while (--epts && !(first = try(&map, ask, epts, slots)))
				;
		if (!first)
			return -EBUSY;
	}
	*less = epts < want_epts || slots < want_slots;
	fewer_epts += epts < want_epts;
	fewer_slots += slots < want_slots;
	/* Spare slots cost no better layout: only in the same hole. */
	if (!*less && ask->slots == EPK_ASK_ANY && !map.plug && slots < KVM_EPK_MAX_SLOTS &&
	    (twice = try(&map, ask, epts, 2 * slots))) {
		uint64_t low = twice < first ? twice : first, high = twice < first ? first : twice;

		for (block = low; block < high && !map.used[block]; block++)
			;
		if (block == high) {
			slots *= 2;
			first = twice;
			spare++;
		}
	}
	layout->base = first * BLOCK;
	layout->epts = epts;
	layout->slots = slots;
	for (block = map.blocks - 1; map.used[block] ||
	     (block >= first && block < first + epts * slots); block--)
		;
	layout->identity = (block + 1) * BLOCK - 4096;
	return 0;
}

static void show(const struct epk_space *space, const struct epk_ask *ask)
{
	unsigned int i;

	printf("  end %#llx, %u EPTs at most, asked epts=%d slots=%d base=%#lx\n", space->end,
	       space->max_epts, ask->epts, ask->slots, ask->base);
	for (i = 0; i < space->nr_taken; i++)
		printf("  %#llx-%#llx %d %s\n", space->taken[i].start, space->taken[i].last,
		       space->taken[i].by, space->taken[i].name);
}

static void compare(struct epk_space *space, const struct epk_ask *ask)
{
	struct epk_layout got = { 0 }, wanted = { 0 };
	char why[EPK_WHY_BYTES + 8];
	unsigned long before = failures;
	bool less = false;
	int ret, should;

	memset(why, 0x5a, sizeof(why));
	ret = epk_choose(space, ask, &got, why);
	should = oracle(space, ask, &wanted, &less);
	CHECK(ret == should, "%d, not %d: %s", ret, should, why);
	CHECK(memchr(why, 0, EPK_WHY_BYTES), "no end");
	CHECK(why[EPK_WHY_BYTES] == 0x5a, "beyond the end");
	CHECK(strlen(why) < EPK_WHY_BYTES - 40, "the line is cut off: %s", why);
	if (!ret && !should) {
		CHECK(got.base == wanted.base && got.epts == wanted.epts && got.slots == wanted.slots &&
		      got.identity == wanted.identity, "%u of %u at %#llx, %#llx; not %u of %u at %#llx, %#llx",
		      got.epts, got.slots, got.base, got.identity,
		      wanted.epts, wanted.slots, wanted.base, wanted.identity);
		CHECK(epk_layout_ok(&got, space->end), "no layout");
		CHECK(!why[0] == !less, "%s", why);
		aligned += got.slots > 1 && got.epts > 1;
	}
	refused += ret != 0;
	if (failures != before)
		show(space, ask);
}

static void at_random(void)
{
	struct epk_taken taken[MAX_TAKEN];
	struct epk_space space = { .taken = taken };
	struct epk_ask ask = { EPK_ASK_ANY, EPK_ASK_ANY, EPK_ASK_ANY };
	uint64_t blocks = 5 + draw(draw(4) ? 200 : MAX_BLOCKS - 5), at = 0;
	unsigned int i;

	space.end = blocks * BLOCK;
	space.nr_taken = draw(MAX_TAKEN + 1);
	space.max_epts = 1 + draw(draw(2) ? 16 : KVM_EPK_MAX_EPTS);
	for (i = 0; i < space.nr_taken; i++) {
		uint64_t bytes = 1 + (draw(3) ? draw(1 << 20) : (blocks * BLOCK >> draw(12)));

		/* Some side by side, some anywhere, overlapping, some beyond the end. */
		taken[i].start = draw(3) ? (uint64_t)draw(blocks + 2) * BLOCK + draw(2) * draw(BLOCK) : at;
		taken[i].last = taken[i].start + (draw(2) ? bytes : (1 + draw(5)) * BLOCK) - 1;
		at = taken[i].last + 1;
		taken[i].by = draw(3);
		snprintf(taken[i].name, sizeof(taken[i].name), "a very long name, number %u", i);
	}
	if (!draw(4))
		ask.epts = 1 + draw(space.max_epts);
	if (!draw(4))
		ask.slots = 1 << draw(draw(2) ? 4 : 10);
	if (!draw(4)) {
		uint64_t step = ask.slots == EPK_ASK_ANY ? 1 : ask.slots;

		ask.base = (1 + draw(blocks)) / step * step * BLOCK;
		if (ask.base < 4 * (long)BLOCK || (uint64_t)ask.base >= space.end)
			ask.base = EPK_ASK_ANY;
	}
	compare(&space, &ask);
}

static void expect(const struct epk_space *space, struct epk_ask ask, int should, const char *said)
{
	struct epk_layout layout = { 1, 2, 3, 4 };
	char why[EPK_WHY_BYTES] = "";
	int ret = epk_choose(space, &ask, &layout, why);

	CHECK(ret == should, "%d, not %d: %s", ret, should, why);
	CHECK(strstr(why, said), "not \"%s\": %s", said, why);
	CHECK(ret == 0 || (layout.base == 1 && layout.identity == 2 && layout.epts == 3 && layout.slots == 4),
	      "something changed");
}

static void bad_input(void)
{
	static const struct epk_taken taken[] = {
		{ 0, 6 * BLOCK - 1, EPK_TAKEN_RAM, "System RAM" },
		{ 100 * BLOCK, 100 * BLOCK + 4095, EPK_TAKEN_DEVICE, "PCI Bus 0000:00" },
	};
	const struct epk_space space = { 512 * BLOCK, taken, 2, 512 }, full = { 6 * BLOCK, taken, 1, 512 };
	const long any = EPK_ASK_ANY;

	expect(&space, (struct epk_ask){ 0, any, any }, -EINVAL, "epts=0: the host gives this VM 1 to 512");
	expect(&space, (struct epk_ask){ 513, any, any }, -EINVAL, "epts=513:");
	expect(&space, (struct epk_ask){ -2, any, any }, -EINVAL, "epts=-2:");
	expect(&space, (struct epk_ask){ INT32_MIN, any, any }, -EINVAL, "epts=-2147483648:");
	expect(&space, (struct epk_ask){ any, 0, any }, -EINVAL, "slots=0: it has to be a power of two");
	expect(&space, (struct epk_ask){ any, 3, any }, -EINVAL, "slots=3: it has to be a power of two");
	expect(&space, (struct epk_ask){ any, 1024, any }, -EINVAL, "slots=1024:");
	expect(&space, (struct epk_ask){ any, -4, any }, -EINVAL, "slots=-4:");
	expect(&space, (struct epk_ask){ any, INT32_MIN, any }, -EINVAL, "slots=-2147483648:");
	expect(&space, (struct epk_ask){ any, any, 0 }, -EINVAL, "base=0: it has to be a multiple of 0x40000000");
	expect(&space, (struct epk_ask){ any, any, -2 }, -EINVAL, "base=");
	expect(&space, (struct epk_ask){ any, any, INT64_MIN }, -EINVAL, "base=0x8000000000000000");
	expect(&space, (struct epk_ask){ any, any, INT64_MAX }, -EINVAL, "below 0x8000000000");
	expect(&space, (struct epk_ask){ any, any, 200 * BLOCK + 4096 }, -EINVAL, "a multiple of 0x40000000");
	expect(&space, (struct epk_ask){ any, 8, 201 * BLOCK }, -EINVAL, "a multiple of 0x200000000");
	expect(&space, (struct epk_ask){ any, any, 512 * BLOCK }, -EINVAL, "below 0x8000000000");
	expect(&space, (struct epk_ask){ any, any, 5 * BLOCK }, -EBUSY, "System RAM lies at 0-0x17fffffff");
	expect(&space, (struct epk_ask){ 101, 1, 6 * BLOCK }, -EBUSY, "PCI Bus 0000:00 lies at 0x1900000000-0x1900000fff");
	expect(&space, (struct epk_ask){ 412, 1, 101 * BLOCK }, -EBUSY, "the address width ends at 0x8000000000");
	expect(&space, (struct epk_ask){ 412, 1, any }, -EBUSY, "which are 412 GiB side by side");
	expect(&space, (struct epk_ask){ 412, 1, any }, -EBUSY,
	       "the largest hole is 0x1940000000-0x7fffffffff (411 GiB), between PCI Bus 0000:00 and the end");
	expect(&space, (struct epk_ask){ 412, 1, any }, -EBUSY, "phys-bits=");
	expect(&space, (struct epk_ask){ any, any, any }, 0,
	       "windows of 1 GiB for 411 EPTs, not of 8 GiB for 512 as RAM and host would have it");
	expect(&space, (struct epk_ask){ 20, any, any }, 0, "");
	expect(&full, (struct epk_ask){ any, any, any }, -EBUSY, "no GiB from 0x100000000 to 0x180000000 is free");
	expect(&full, (struct epk_ask){ any, any, 4 * BLOCK }, -EBUSY, "System RAM lies");
	expect(&full, (struct epk_ask){ any, any, 3 * BLOCK }, -EINVAL, "from 0x100000000 on");
}

/* Sums that could overflow; the oracle's map ends long before. */
static void at_the_limits(void)
{
	struct epk_taken taken[] = {
		{ 0, 6 * BLOCK - 1, EPK_TAKEN_RAM, "System RAM" },
		{ 0, ~0ull, EPK_TAKEN_DEVICE, "everything" },
		{ ~0ull, ~0ull, EPK_TAKEN_RAM, "the last byte" },
		{ 1ull << 51, ~0ull - 1, EPK_TAKEN_PLUG, "half" },
	};
	struct epk_space space = { 1ull << 52, taken, 1, 512 };
	struct epk_ask ask = { EPK_ASK_ANY, EPK_ASK_ANY, EPK_ASK_ANY };
	struct epk_layout layout;
	char why[EPK_WHY_BYTES];
	int bits;

	for (bits = 43; bits <= 52; bits++) {
		space.end = 1ull << bits;
		CHECK(!epk_choose(&space, &ask, &layout, why) && layout.epts == 512 && layout.slots >= 8 &&
		      layout.base + 512 * layout.slots * BLOCK == space.end &&
		      layout.identity == layout.base - 4096, "%d bits: %#llx %#llx", bits, layout.base, layout.identity);
	}
	ask.slots = 512;
	CHECK(!epk_choose(&space, &ask, &layout, why) && layout.base == space.end - (1ull << 48), "%#llx", layout.base);
	space.end = 1ull << 48;
	CHECK(!epk_choose(&space, &ask, &layout, why) && layout.epts == 511 && layout.base == 1ull << 39, "%s", why);
	ask.slots = EPK_ASK_ANY;
	space.end = 1ull << 52;
	space.nr_taken = 2;
	CHECK(epk_choose(&space, &ask, &layout, why) == -EBUSY, "%#llx", layout.base);
	taken[1] = taken[3];
	CHECK(!epk_choose(&space, &ask, &layout, why) && layout.slots == 512 &&
	      layout.base == (1ull << 51) - (1ull << 48), "%u at %#llx", layout.slots, layout.base);
	taken[1] = taken[2];
	CHECK(!epk_choose(&space, &ask, &layout, why) && layout.slots == 16, "%u", layout.slots);
	/* What has as many slots as a window can have gets no spare ones. */
	taken[0].last = 300 * BLOCK - 1;
	CHECK(!epk_choose(&space, &ask, &layout, why) && layout.epts == 512 && layout.slots == 512, "%u", layout.slots);
	/* A byte takes its block, the last one, too. */
	space.end = 1ull << 40;
	taken[0].last = taken[0].start = 1000 * BLOCK - 1;
	ask.epts = 2;
	ask.base = 998 * BLOCK;
	CHECK(epk_choose(&space, &ask, &layout, why) == -EBUSY, "%#llx", layout.base);
}

static void layouts(void)
{
	const struct epk_layout good = { 8 * BLOCK, 8 * BLOCK - 4096, 3, 4 };
	const uint64_t end = 20 * BLOCK;
	struct epk_layout layout = { 9 * BLOCK, 8 * BLOCK - 4096, 3, 4 };

	CHECK(!epk_layout_ok(&layout, 2 * end), "not aligned");
	layout = (struct epk_layout){ 3 * BLOCK, 8 * BLOCK, 1, 1 };
	CHECK(!epk_layout_ok(&layout, end), "below 4 GiB");
	layout = (struct epk_layout){ 1024 * BLOCK, 8 * BLOCK, 1, 1024 };
	CHECK(!epk_layout_ok(&layout, 4096 * BLOCK), "too many slots");
	layout = (struct epk_layout){ 1024 * BLOCK, 8 * BLOCK, 513, 1 };
	CHECK(!epk_layout_ok(&layout, 4096 * BLOCK), "too many EPTs");

	CHECK(epk_layout_ok(&good, end), "good");
	CHECK(!epk_layout_ok(&good, end - BLOCK), "beyond the end");
#define WRONG(member, value)							\
	do {									\
		layout = good;							\
		layout.member = value;						\
		CHECK(!epk_layout_ok(&layout, end), #member " = " #value);	\
	} while (0)
	WRONG(base, 0);
	WRONG(base, 8 * BLOCK + 4096);
	WRONG(base, 7 * BLOCK);
	WRONG(base, 20 * BLOCK);
	WRONG(base, ~0ull << 32);
	WRONG(epts, 0);
	WRONG(epts, 4);
	WRONG(epts, 513);
	WRONG(epts, ~0u);
	WRONG(slots, 0);
	WRONG(slots, 3);
	WRONG(slots, 1024);
	WRONG(slots, 1u << 31);
	WRONG(identity, 0);
	WRONG(identity, 4096);
	WRONG(identity, 4 * BLOCK - 4096);
	WRONG(base, 0xc0000000);
	WRONG(identity, 8 * BLOCK);
	WRONG(identity, 20 * BLOCK - 4096);
	WRONG(identity, 20 * BLOCK);
	WRONG(identity, 7 * BLOCK + 8);
	WRONG(identity, ~0xfffull);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000, i;
	uint64_t seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;

	bad_input();
	at_the_limits();
	layouts();
	for (i = 0; i < rounds && failures < 20; i++) {
		state = seed + i;
		draw(2);
		at_random();
	}
	printf("%lu layouts from seed %lu: %lu refused, %lu with fewer EPTs, %lu with fewer slots, %lu with spare ones, %lu aligned\n",
	       i, (unsigned long)seed, refused, fewer_epts, fewer_slots, spare, aligned);
	if (rounds >= 10000 && (!refused || !fewer_epts || !fewer_slots || !spare || !aligned)) {
		puts("some never happened");
		return 1;
	}
	return failures != 0;
}
