// SPDX-License-Identifier: MIT
/* Groups of pages by each means: the library's domains, libmpk's groups, ordinary memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <epk.h>

#include "libmpk_like.h"
#include "peers.h"

const char *peers_how = "keys";
bool peers_bare, peers_libmpk;

struct peers_group peers_groups[MOST_GROUPS];
int peers_nr;

void peers_choose(const char *how)
{
	peers_how = how;
	peers_bare = !strcmp(how, "no protection");
	peers_libmpk = !strcmp(how, "libmpk");
}

void peers_need(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "peers_bench: %s: %s: %s\n", peers_how, what, strerror(errno));
	exit(1);
}

static bool give(struct peers_group *group, bool everywhere)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (peers_bare || peers_libmpk) {
		group->id = peers_nr + 1;
		group->mem = mmap(NULL, group->len, RW, flags, -1, 0);
	} else {
		if (everywhere ? epk_alloc_everywhere(1, &group->id) : alloc_domains(1, &group->id))
			return false;
		group->mem = domain_mmap(group->id, NULL, group->len, RW, 0);
	}
	peers_need(group->mem != MAP_FAILED, "mmap");
	madvise(group->mem, group->len, MADV_NOHUGEPAGE);
	return !peers_libmpk || !libmpk_add(group->id, group->mem, group->len);
}

static bool make(size_t len, bool everywhere)
{
	struct peers_group *group = &peers_groups[peers_nr];

	peers_need(peers_nr < MOST_GROUPS, "groups");
	group->len = len;
	if (!give(group, everywhere))
		return false;
	peers_open(peers_nr++, RW);
	memset(group->mem, 1, len);
	return true;
}

bool peers_make(size_t len)
{
	return make(len, false);
}

bool peers_make_everywhere(size_t len)
{
	return make(len, true);
}

void peers_open(int group, int prot)
{
	if (peers_bare)
		return;
	if (peers_libmpk ? libmpk_begin(peers_groups[group].id, prot) :
		     domain_begin(peers_groups[group].id, prot))
		abort();
}

void peers_close(int group)
{
	if (peers_bare)
		return;
	if (peers_libmpk ? libmpk_end(peers_groups[group].id) : domain_end(peers_groups[group].id))
		abort();
}
