// SPDX-License-Identifier: MIT
/* Each error number of the interface has words of its own, and no other. */
#define _GNU_SOURCE
#include "unit.h"

static const int known[] = {
	0, EINVAL, ENOENT, EPERM, EBUSY, EALREADY, EACCES, EMFILE, ENFILE, EAGAIN, EDEADLK,
	ENOSPC, ENOMEM, ENODEV, EOVERFLOW, EEXIST, E2BIG, EIO, EBADF, EOPNOTSUPP, EDQUOT,
};

#define NR_KNOWN	(sizeof(known) / sizeof(known[0]))

static bool is_known(int error)
{
	size_t i;

	for (i = 0; i < NR_KNOWN && known[i] != error; i++)
		;
	return i < NR_KNOWN;
}

static void strerror_known(void **state)
{
	size_t i, j;

	(void)state;
	for (i = 0; i < NR_KNOWN; i++) {
		assert_string_not_equal(epk_strerror(-known[i]), "unknown error");
		assert_ptr_equal(epk_strerror(known[i]), epk_strerror(-known[i]));
		for (j = 0; j < i; j++)
			assert_string_not_equal(epk_strerror(known[i]), epk_strerror(known[j]));
	}
}

static void strerror_unknown(void **state)
{
	int error;

	(void)state;
	for (error = 0; error < 4096; error++)
		assert_int_equal(!strcmp(epk_strerror(-error), "unknown error"),
				 !is_known(error));
	assert_string_equal(epk_strerror(123456), "unknown error");
	assert_string_equal(epk_strerror(INT32_MIN), "unknown error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strerror_known),
		cmocka_unit_test(strerror_unknown),
	};

	need_backend();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
