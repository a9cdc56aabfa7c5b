/* SPDX-License-Identifier: MIT */
/*
 * What is left of a PEM file in ordinary memory when somebody has read it.
 */
#ifndef LEFTOVERS_H
#define LEFTOVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Has what OpenSSL's BIOs of files read wiped; @why says what is not as it has to be. */
bool epkp_leftovers_start(const char **why);

/* How much is noted: mostly none, which who allocates and frees all of the process's memory asks first. */
extern unsigned int epkp_leftovers_noted __attribute__((visibility("hidden")));

static inline bool leftovers_none(void)
{
	return !__atomic_load_n(&epkp_leftovers_noted, __ATOMIC_RELAXED);
}

/* Memory that has to be wiped when it is freed.  False: there is no memory for that. */
bool epkp_leftover_note(const void *ptr, size_t size);
/* Its size, or 0 if it is none. */
size_t epkp_leftover_size(const void *ptr);
/* It is not one any more: before somebody else gets it. */
void epkp_leftover_forget(const void *ptr);

/* stdio has nothing of the file, and goes on reading where it would have. */
void epkp_forget_buffer(FILE *file);

#endif /* LEFTOVERS_H */
