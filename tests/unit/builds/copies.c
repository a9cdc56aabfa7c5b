// SPDX-License-Identifier: MIT
/*
 * copies FIRST SECOND [new]: two copies of the library in a process; "-" is the one that is linked to
 * the program.  The second is in a namespace of its own if so asked.
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <epk.h>

#include "need.h"

struct copy {
	int (*init)(const struct epk_options *options);
	const char *(*backend)(void);
	int (*alloc)(int num, int dom_ids[]);
};

static struct copy load(const char *path, Lmid_t where)
{
	struct copy copy = { epk_init, epk_backend, alloc_domains };
	void *handle;

	if (!strcmp(path, "-"))
		return copy;
	handle = dlmopen(where, path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	*(void **)&copy.init = dlsym(handle, "epk_init");
	*(void **)&copy.backend = dlsym(handle, "epk_backend");
	*(void **)&copy.alloc = dlsym(handle, "alloc_domains");
	return copy;
}

/* A child has no copy at work until it begins. */
static void try_in_child(struct copy first, struct copy second)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		REQUIRE(!second.init(NULL) && first.init(NULL) == -EBUSY);
		_exit(0);
	}
	REQUIRE_CHILD(pid);
}

int main(int argc, char **argv)
{
	struct copy first, second;
	int id;

	REQUIRE(argc > 2);
	first = load(argv[1], LM_ID_BASE);
	second = load(argv[2], argc > 3 ? LM_ID_NEWLM : LM_ID_BASE);
	REQUIRE(first.init != second.init);
	REQUIRE(!first.init(NULL));
	REQUIRE(second.init(NULL) == -EBUSY && !second.backend());
	REQUIRE(second.alloc(1, &id) == -EBUSY && !second.backend());
	REQUIRE(!first.alloc(1, &id) && first.init(NULL) == -EALREADY);
	if (argc == 3)
		try_in_child(first, second);
	return 0;
}
