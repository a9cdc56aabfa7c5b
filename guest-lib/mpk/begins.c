// SPDX-License-Identifier: MIT
/* What a thread has begun and not ended, so that each end goes back to what was held before. */
#include <errno.h>

#include <epk.h>

#include "groups.h"
#include "libmpk.h"

/**
 * struct begun - a begin that has not ended
 * @id: the domain
 * @before: what the thread held of it before
 *
 * No right rests on these: what is written there can have an end come too early, or not at all, as a
 * program that leaves it out.
 */
struct begun {
	int id;
	int before;
};

static __thread struct begun begun[MPK_BEGINS_MAX];
static __thread unsigned int nr_begun;
/* The list is being changed: a signal's handler adds and takes at its end, and moves nothing. */
static __thread bool changing;

/* What the compiler does in another order is seen by a signal's handler. */
static void in_order(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static bool change_start(void)
{
	bool was = changing;

	changing = true;
	in_order();
	return was;
}

static void change_end(bool was)
{
	in_order();
	changing = was;
}

void mpk_begins_forget(void)
{
	nr_begun = 0;
	changing = false;
}

/* Others may have unmapped what the thread had begun, which then has no end. */
static void drop_gone(void)
{
	unsigned int i, n = 0;

	if (change_start())
		return;
	for (i = 0; i < MPK_BEGINS_MAX; i++)
		if (epk_held_prot(begun[i].id) >= 0)
			begun[n++] = begun[i];
	in_order();
	nr_begun = n;
	change_end(false);
}

bool mpk_begins_have_room(void)
{
	if (nr_begun >= MPK_BEGINS_MAX)
		drop_gone();
	return nr_begun < MPK_BEGINS_MAX;
}

void mpk_begins_add(int id, int before)
{
	bool was = change_start();

	/* A handler that comes between the two writes behind it. */
	nr_begun++;
	in_order();
	begun[nr_begun - 1] = (struct begun) { .id = id, .before = before };
	change_end(was);
}

static unsigned int how_many(void)
{
	return nr_begun < MPK_BEGINS_MAX ? nr_begun : MPK_BEGINS_MAX;
}

/* Where the last begin of the domain is, or MPK_BEGINS_MAX. */
static unsigned int last_begin(int id)
{
	unsigned int i;

	for (i = how_many(); i--;)
		if (begun[i].id == id)
			return i;
	return MPK_BEGINS_MAX;
}

static void drop_begin(unsigned int i)
{
	unsigned int n = how_many() - 1;

	for (; i < n; i++)
		begun[i] = begun[i + 1];
	in_order();
	nr_begun = n;
}

static int end(int id)
{
	unsigned int at = last_begin(id);
	int before, err;

	if (at == MPK_BEGINS_MAX)
		return -EACCES;
	before = begun[at].before;
	/* What was held outside stays, no more of it. */
	if (before && epk_held_prot(id) == before) {
		drop_begin(at);
		return 0;
	}
	err = domain_end(id);
	/* What is held still can be ended still. */
	if (err && epk_held_prot(id) > 0)
		return err;
	drop_begin(at);
	return err || !before ? err : domain_begin(id, before);
}

int mpk_begins_end(int id)
{
	bool was = change_start();
	int err = end(id);

	change_end(was);
	return err;
}
