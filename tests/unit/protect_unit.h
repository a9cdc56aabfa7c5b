// SPDX-License-Identifier: MIT
/* Two domains for tests of epk_protect(), and what a thread may do with them. */
#ifndef PROTECT_UNIT_H
#define PROTECT_UNIT_H

#include "may.h"

static int id, other;
static char *mem, *other_mem;

static int set_up(void **state)
{
	(void)state;
	REQUIRE_EQ(alloc_domains(1, &id), 0);
	REQUIRE_EQ(alloc_domains(1, &other), 0);
	mem = new_pages(id, 2);
	other_mem = new_pages(other, 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	REQUIRE_EQ(free_domains(1, &id), 0);
	return free_domains(1, &other);
}

static inline bool system_calls_count(void)
{
	/* The emulator that has EPTs has its kernel read what a key denies. */
	return backend_protects() && (!backend_is("epk") || backend_is_alone());
}

#define WITH_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif /* PROTECT_UNIT_H */
