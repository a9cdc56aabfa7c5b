// SPDX-License-Identifier: MIT
/*
 * layout BITS: what the module would choose, by its own source, where the ranges are taken that
 * standard input names: "START LAST KIND NAME", in hexadecimal, KIND an enum epk_taken_by.
 */
#include <stdio.h>
#include <stdlib.h>

#include "choose.h"

int main(int argc, char **argv)
{
	static struct epk_taken taken[4096];
	struct epk_space space = { .taken = taken, .max_epts = KVM_EPK_MAX_EPTS };
	const struct epk_ask ask = { EPK_ASK_ANY, EPK_ASK_ANY, EPK_ASK_ANY };
	struct epk_layout layout;
	char why[EPK_WHY_BYTES];
	struct epk_taken *next = taken;
	unsigned int by;

	if (argc != 2)
		return 2;
	space.end = 1ull << atoi(argv[1]);
	while (next < taken + 4096 &&
	       scanf("%llx %llx %u %35[^\n]", &next->start, &next->last, &by, next->name) == 4) {
		next->by = by;
		next++;
	}
	if (!feof(stdin)) {
		fputs("layout: what is this?\n", stderr);
		return 2;
	}
	space.nr_taken = next - taken;
	if (epk_choose(&space, &ask, &layout, why)) {
		puts(why);
		return 1;
	}
	printf("room: %u EPTs, %u slots, %#llx, %#llx\n%s\n", layout.epts, layout.slots,
	       layout.base, layout.identity, why);
	return 0;
}
