/* SPDX-License-Identifier: MIT */
/* Places that a domain of kmod_rights_test has left, and keys that are opened there by hand. */
#ifndef RIGHTS_PLACES_H
#define RIGHTS_PLACES_H

#include "rights_test.h"

/* Take a domain to an EPT, where another makes room if it has to. */
static void take_to(int x, unsigned int ept)
{
	int i, ret = epk_device_move(&dev, ids[x], ept);

	for (i = 0; ret == -ENOSPC && i < NR_DOMAINS; i++) {
		struct epk_entry other = epk_device_entry(&dev, ids[i]);

		if (i == x || !other.pkey || other.ept != ept)
			continue;
		CHECK_EQ(epk_device_move(&dev, ids[i], EPK_EPT_NONE), 0);
		ret = epk_device_move(&dev, ids[x], ept);
	}
	REQUIRE(ret == 0 && epk_device_entry(&dev, ids[x]).ept == epk_device_ept(&dev, ept));
}

/* Its place is empty: by the key of that, opened by hand, nothing is held. */
static void holds_no_place(struct epk_entry place)
{
	holds_nothing(__LINE__);
	epk_device_goto(&dev, place.ept);
	epk_wrpkru(EPK_PKRU_ALLOW(place.pkey));
	list(0, 0, 0, 0);
}

/*
 * A key that is opened by hand where a domain was is no right to that domain, in whichever EPT and
 * whatever has the same key in others.
 */
static void vacated(unsigned int ept)
{
	struct epk_domains arg = { .num = 1, .flags = EPK_ALLOC_SPILL };
	struct epk_entry place;
	int x = 0, id;

	take_to(x, ept);
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(end(ids[x]), 0);
	place = epk_device_entry(&dev, ids[x]);
	CHECK_EQ(place.ept, epk_device_ept(&dev, ept));
	CHECK_EQ(epk_device_move(&dev, ids[x], EPK_EPT_NONE), 0);
	holds_no_place(place);
	CHECK_EQ(touch(pages[x], 0), SIGSEGV);
	holds_nothing(__LINE__);
	CHECK_EQ(begin(ids[x]), 0);
	CHECK_EQ(end(ids[x]), 0);

	/* The same of one that was freed. */
	arg.ids = (uintptr_t)&id;
	REQUIRE(ioctl(dev.fd, EPK_IOC_ALLOC, &arg) == 0);
	CHECK_EQ(begin(id), 0);
	CHECK_EQ(end(id), 0);
	place = epk_device_entry(&dev, id);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
	holds_no_place(place);
	epk_device_enter(&dev, 0);
}

#endif /* RIGHTS_PLACES_H */
