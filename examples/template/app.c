// SPDX-License-Identifier: MIT
/*
 * app: a token comes from a file into a domain, and is used there alone.
 *
 * app FILE         reads its first line, and prints a sum over it
 * app FILE --leak  reads it, and looks at it without holding the domain: that ends the program
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#define TOKEN	256

static int domain;
static char *token;

static int failed(int err)
{
	fprintf(stderr, "app: %s\n", epk_strerror(err));
	return 1;
}

/* What the kernel says is none of the library's errors: epk_strerror() has other words for them. */
static int unread(const char *path, const char *why)
{
	fprintf(stderr, "app: %s: %s\n", path, why);
	return 1;
}

/* Straight from the kernel: no copy of it is in ordinary memory. */
static int take(const char *path)
{
	int err, error = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = 0;

	if (fd < 0)
		return unread(path, strerror(errno));
	EPK_WITH_ERROR(err, domain, PROT_READ | PROT_WRITE) {
		got = read(fd, token, TOKEN - 1);
		error = errno;
	}
	close(fd);
	if (err)
		return failed(err);
	if (got < 0)
		return unread(path, strerror(error));
	return got ? 0 : unread(path, "empty");
}

/* Has the domain, and no other that its caller may hold. */
static long sum(void *arg)
{
	const unsigned char *byte = arg;
	long result = 0;

	for (; *byte && *byte != '\n'; byte++)
		result = result * 31 + *byte;
	return result & 0xffff;
}

int main(int argc, char **argv)
{
	long result = 0;
	int err;

	if (argc < 2) {
		fprintf(stderr, "usage: app FILE [--leak]\n");
		return 2;
	}
	err = alloc_domains(1, &domain);
	if (err)
		return failed(err);
	token = epk_calloc(domain, 1, TOKEN);
	if (!token)
		return failed(errno);
	if (take(argv[1]))
		return 1;
	if (argc > 2 && !strcmp(argv[2], "--leak"))
		printf("leaked: %s", token);
	err = epk_call(domain, sum, token, &result);
	if (!err)
		err = free_domains(1, &domain);
	if (err)
		return failed(err);
	printf("%s: %ld\n", epk_backend(), result);
	return 0;
}
