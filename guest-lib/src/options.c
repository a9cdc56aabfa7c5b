// SPDX-License-Identifier: MIT
#include <string.h>

#include "state_page.h"

/*
 * What this version knows of a caller's structure of @size bytes, that is @known_size large here;
 * what it does not know must be zero.
 */
int epk_options_copy(void *known, size_t known_size, const void *options, size_t size)
{
	const char *bytes = options;
	size_t i;

	if (size > EPK_SIZE_MAX)
		return -E2BIG;
	for (i = known_size; i < size; i++)
		if (bytes[i])
			return -E2BIG;
	memset(known, 0, known_size);
	memcpy(known, options, size < known_size ? size : known_size);
	return 0;
}
