/* SPDX-License-Identifier: MIT */
/*
 * What tests on cmocka say of what they look at, in the words of all other tests.
 *
 * Each ends the test.  In a child or in another thread, from which cmocka would go on with the rest of the
 * tests, it ends that process.
 */
#ifndef EPK_CHECK_H
#define EPK_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static long check_thread;

__attribute__((constructor)) static void check_start(void)
{
	check_thread = syscall(SYS_gettid);
}

__attribute__((noinline, noreturn, format(printf, 3, 4), unused))
static void check_failed(const char *file, int line, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (syscall(SYS_gettid) != check_thread) {
		fprintf(stderr, "%s:%d: %s\n", file, line, text);
		_exit(1);
	}
	print_error("%s\n", text);
	_fail(file, line);
	abort();
}

/* What calls have changed is read anew, though headers say of them that they call nothing here. */
#define CHECK_ANEW()	__asm__ volatile("" : : : "memory")

#define FAIL(...)	check_failed(__FILE__, __LINE__, __VA_ARGS__)

#define REQUIRE(condition)								\
	do {										\
		CHECK_ANEW();								\
		if (!(condition))							\
			FAIL("%s", #condition);						\
	} while (0)

/* Of numbers or pointers. */
#define REQUIRE_EQ(a, b)								\
	do {										\
		CHECK_ANEW();								\
		uintmax_t a_ = (uintmax_t)(a), b_ = (uintmax_t)(b);			\
											\
		if (a_ != b_)								\
			FAIL("%s == %s: %#jx, %#jx", #a, #b, a_, b_);			\
	} while (0)

#define REQUIRE_NE(a, b)								\
	do {										\
		CHECK_ANEW();								\
		uintmax_t a_ = (uintmax_t)(a), b_ = (uintmax_t)(b);			\
											\
		if (a_ == b_)								\
			FAIL("%s != %s: %#jx", #a, #b, a_);				\
	} while (0)

#define REQUIRE_IN(a, low, high)							\
	do {										\
		CHECK_ANEW();								\
		uintmax_t a_ = (uintmax_t)(a), low_ = (low), high_ = (high);		\
											\
		if (a_ < low_ || a_ > high_)						\
			FAIL("%s from %s to %s: %#jx", #a, #low, #high, a_);		\
	} while (0)

#define REQUIRE_STR_EQ(a, b)								\
	do {										\
		CHECK_ANEW();								\
		const char *a_ = (a), *b_ = (b);					\
											\
		if (strcmp(a_, b_))							\
			FAIL("%s == %s: \"%s\", \"%s\"", #a, #b, a_, b_);		\
	} while (0)

#define REQUIRE_STR_NE(a, b)		REQUIRE(strcmp(a, b))
#define REQUIRE_MEM_EQ(a, b, size)	REQUIRE(!memcmp(a, b, size))
#define REQUIRE_MEM_NE(a, b, size)	REQUIRE(memcmp(a, b, size))

#endif
