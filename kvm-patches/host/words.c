// SPDX-License-Identifier: MIT
/* What all commands say, and how they say it to QEMU. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

int fail(int status, const char *format, ...)
{
	char *message;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&message, format, args);
	va_end(args);
	fflush(stdout);
	fputs("epk-host: ", stderr);
	/* File names, and what other programs say, can have anything in them. */
	put_text(stderr, length < 0 ? strerror(ENOMEM) : message);
	fputc('\n', stderr);
	if (length >= 0)
		free(message);
	return status;
}

char *doubled(const char *value)
{
	char *made = malloc(2 * strlen(value) + 1), *to = made;

	if (!made)
		exit(fail(WRONG, "%s", strerror(ENOMEM)));
	for (; *value; *to++ = *value++) {
		if (*value == ',')
			*to++ = ',';
	}
	*to = 0;
	return made;
}
