/* SPDX-License-Identifier: MIT */
/* Private domains: making, entering and freeing them. */
#ifndef PRIVATE_TEST_H
#define PRIVATE_TEST_H

#include "call_test.h"
#include "private_gate.h"

static const volatile uint64_t *notes;

static inline int note_flags(int id, const volatile void *addr, uint32_t flags)
{
	struct epk_note arg = { .id = id, .flags = flags, .addr = (uintptr_t)addr };

	return ioctl(dev.fd, EPK_IOC_NOTE, &arg) ? -errno : 0;
}

static inline int make_private(int id, const volatile void *addr)
{
	return note_flags(id, addr, EPK_NOTE_PRIVATE);
}

static inline uint64_t note_of(int id)
{
	return notes[EPK_ID_INDEX(id)];
}

/* Below this, signals have their frames where the stack lies in a private domain. */
static __thread char *private_outside;

/* Domains, one gate, and where to go on after a fault. */
static inline void private_init(uintptr_t fault)
{
	struct epk_gate gate = {
		(uintptr_t)private_gate, (uintptr_t)private_gate_end, (uintptr_t)private_gate,
	};
	struct epk_gates arg = { .num = 1, .gates = (uintptr_t)&gate, .fault = fault };
	char *fs_base;

	asm("mov %%fs:0, %0" : "=r" (fs_base));
	arg.stack = (char *)&private_outside - fs_base;
	make_domains();
	private_alone = epk_device_is_alone(&dev);
	notes = mmap(NULL, dev.init.table_bytes, PROT_READ, MAP_SHARED, dev.fd, EPK_MMAP_NOTES);
	REQUIRE(notes != MAP_FAILED);
	REQUIRE(ioctl(dev.fd, EPK_IOC_GATES, &arg) == 0);
	REQUIRE(follow() == 0);
}

/* Where it is then, and the answer. */
static inline int admit(int id, struct epk_move *move)
{
	struct epk_moves arg = {
		.num = 1, .flags = EPK_MOVES_ADMIT, .moves = (uintptr_t)move,
	};

	move->id = id;
	return ioctl(dev.fd, EPK_IOC_MOVE, &arg) ? -errno : 0;
}

/* Hold a private domain, wherever it is; nothing is held elsewhere. */
static inline void enter(int id)
{
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		struct epk_move move = { .ept = EPK_EPT_ANY };

		if (private_gate(&notes[EPK_ID_INDEX(id)]))
			return;
		REQUIRE(admit(id, &move) == 0);
	}
	REQUIRE(!"it has no place");
}

/* A new domain with so many pages, evicted if there is no room. */
static inline int new_domain(char **mem, size_t pages_of_it)
{
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	int id;

	arg.ids = (uintptr_t)&id;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	*mem = epk_device_map(&dev, id, pages_of_it * PAGE);
	REQUIRE(*mem != MAP_FAILED);
	return id;
}

static inline int new_private(char **mem, size_t pages_of_it)
{
	int id = new_domain(mem, pages_of_it);

	REQUIRE(make_private(id, *mem) == 0);
	return id;
}

/* Its memory and all. */
static inline void done_with(int id, char *mem, size_t pages_of_it)
{
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	CHECK_EQ(epk_device_unmap(&dev, mem, pages_of_it * PAGE), 0);
}

#endif /* PRIVATE_TEST_H */
