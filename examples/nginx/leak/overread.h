/* SPDX-License-Identifier: MIT */
#ifndef OVERREAD_H
#define OVERREAD_H

#include <stddef.h>

/**
 * struct overread_faults - faults that overread() has met
 * @pkey: refused by protection key or EPT (SEGV_PKUERR)
 * @other: any other reason, so not what is being tested
 */
struct overread_faults {
	unsigned long pkey;
	unsigned long other;
};

extern struct overread_faults overread_faults;

/*
 * Copies up to @len bytes from @from, as a program would that trusts a length
 * from the network, and returns how many came before the first fault.  Only
 * between overread_start() and overread_stop(), which own SIGSEGV.
 */
size_t overread(void *to, const void *from, size_t len);

int overread_start(void);
int overread_stop(void);

#endif /* OVERREAD_H */
