/* SPDX-License-Identifier: MIT */
/* For programs of plain C, with no library but the one that is tried. */
#ifndef NEED_H
#define NEED_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define REQUIRE(condition)							\
	do {									\
		if (!(condition)) {						\
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);	\
			exit(1);						\
		}								\
	} while (0)

/* A child's end. */
#define REQUIRE_CHILD(pid)							\
	do {									\
		int child_status;						\
										\
		REQUIRE(waitpid(pid, &child_status, 0) == (pid) && !child_status);	\
	} while (0)

#endif
