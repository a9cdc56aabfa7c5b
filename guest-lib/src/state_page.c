// SPDX-License-Identifier: MIT
/*
 * The page of what the library knows once it is initialised; and what the gates go on with before
 * that, and in a forked child: there is no domain.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "state_page.h"

/* Whatever a gate asks for, there is no such domain.  What lies before a table it finds here, too. */
static const struct {
	char before[EPK_GATE_BEFORE];
	struct epk_entry table[1];
} no_gates __attribute__((aligned(16))) = {
	.table = { { .id = (int)(1u << 31), .ept = EPK_EPT_NONE } },
};

/* Not by the table: another thread may be initialising, and nothing is opened here. */
static int refuse(int id)
{
	epk_cause_last = id <= 0 ? EPK_CAUSE_ID : 0;
	if (id <= 0)
		return -EINVAL;
	return epk_id_inherited(id) ? -EPERM : -ENOENT;
}

static int begin_none(int id, int prot)
{
	if (prot && !(prot & ~(PROT_READ | PROT_WRITE)))
		return refuse(id);
	epk_cause_last = EPK_CAUSE_PROT;
	return -EINVAL;
}

static int end_none(int id)
{
	return refuse(id);
}

static int call_none(int id, unsigned int entry, void *arg, long *result)
{
	(void)entry;
	(void)arg;
	(void)result;
	return refuse(id);
}

static void release_none(void)
{
}

int epk_close_unknown(void)
{
	return -1;
}

#define STATE_NONE {								\
	.gate_table = no_gates.table, .begin = begin_none, .end = end_none,	\
	.begin_slow = begin_none, .end_slow = end_none, .call_slow = call_none,	\
	.release = release_none, .close = epk_close_unknown,			\
	.pin_table = epk_no_table, .table = epk_no_table, .fd = -1,		\
}

union epk_state_page epk_state_page __attribute__((aligned(EPK_PAGE_SIZE))) = {
	.state = STATE_NONE,
};

union epk_print_page epk_print_page __attribute__((aligned(EPK_PAGE_SIZE)));

__thread unsigned char epk_cause_pending, epk_cause_last;

static int protect(int prot)
{
	return mprotect(&epk_state_page, sizeof(epk_state_page), prot) ? -ENOMEM : 0;
}

/*
 * The page is read-only but for these few lines: if it cannot be, nothing is safe any
 * more.  @ops is stored last, since epk_ops() of other threads looks at it without
 * the lock.
 */
void epk_state_page_write(const struct epk_state *new_state)
{
	if (protect(PROT_READ | PROT_WRITE))
		abort();
	/* No index is beyond the end of what the gates look at. */
	if (!new_state->index_mask)
		__atomic_store_n(&epk_now.index_mask, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&epk_now.gate_table,
			 new_state->index_mask ? new_state->table : no_gates.table, __ATOMIC_SEQ_CST);
	__atomic_store_n(&epk_now.index_mask, new_state->index_mask, __ATOMIC_SEQ_CST);
	epk_now.begin = new_state->begin;
	epk_now.end = new_state->end;
	epk_now.close = new_state->close;
	epk_now.begin_slow = new_state->begin_slow;
	epk_now.end_slow = new_state->end_slow;
	epk_now.call_slow = new_state->call_slow;
	epk_now.release = new_state->release;
	epk_now.pin_table = new_state->gates ? new_state->table : epk_no_table;
	epk_now.table = new_state->table;
	epk_now.access = new_state->access;
	epk_now.closed = new_state->closed;
	epk_now.held_bits = new_state->held_bits;
	epk_now.nothing = new_state->nothing;
	epk_now.xfeatures = new_state->xfeatures;
	epk_now.tls_below = new_state->tls_below;
	epk_now.pkeys = new_state->pkeys;
	epk_now.gates = new_state->gates;
	epk_now.debug = new_state->debug;
	epk_now.strict = new_state->strict;
	epk_now.code = new_state->code;
	epk_now.fd = new_state->fd;
	epk_now.pid = new_state->pid;
	epk_now.soft = new_state->soft;
	epk_now.table_pkey = new_state->table_pkey;
	__atomic_store_n(&epk_now.ops, new_state->ops, __ATOMIC_RELEASE);
	if (protect(PROT_READ))
		abort();
}

/* The library is not initialised. */
void epk_state_page_clear(void)
{
	struct epk_state none = STATE_NONE;

	none.debug = epk_now.debug;
	epk_state_page_write(&none);
}

static int print_protect(int prot)
{
	return mprotect(&epk_print_page, sizeof(epk_print_page), prot) ? -ENOMEM : 0;
}

/* -ENOMEM: nothing has changed.  A page that cannot be closed again is as bad as above. */
int epk_print_write(epk_print_fn print)
{
	int err = print_protect(PROT_READ | PROT_WRITE);

	if (err)
		return err;
	__atomic_store_n(&epk_print_page.print, print, __ATOMIC_RELEASE);
	if (print_protect(PROT_READ))
		abort();
	return 0;
}

/* Nothing has been written to the page yet.  -ENOMEM: a mapping more is one too many. */
int epk_state_page_seal(void)
{
	int err = protect(PROT_READ);

	return err ? err : print_protect(PROT_READ);
}
