// SPDX-License-Identifier: MIT
/*
 * One domain an EPT and no keys, for comparison: domain_begin() enters the EPT,
 * domain_end() goes back to EPT 0.  One key is open in all threads and none tells
 * two domains apart; a signal handler has it closed.
 *
 * A thread can reach one domain at a time, the one that it began last.
 */
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend.h"
#include "pkru.h"

static int vmfunc_settle(struct epk_thread *t)
{
	int slot, pkey = __builtin_ctz(epk_now.pkeys), prot = PROT_READ | PROT_WRITE;
	struct epk_entry entry;
	uint32_t ept = 0;

	for (slot = (int)epk_held_nr(t) - 1; slot >= 0; slot--)
		if (epk_entry_find(t->held[slot].id, &entry)) {
			ept = entry.ept;
			prot = t->held[slot].prot;
			break;
		}
	if (epk_current_ept() != ept) {
		epk_ept_enter(ept);
		t->switches++;
	}
	/* The key's write-disable bit, for who may only read. */
	epk_pkru_set(pkru_open(rdpkru(), pkey, prot));
	return epk_current_ept() == ept ? 0 : -EIO;
}

/* EPT 0 is where nobody holds anything: it gets a domain that nobody uses. */
static int occupy_ept_0(struct epk_state *state)
{
	int id = 0;
	struct epk_domains arg = { .num = 1, .ids = (uintptr_t)&id };

	if (ioctl(state->fd, EPK_IOC_ALLOC, &arg))
		return -errno;
	return state->table[EPK_ID_INDEX(id)].ept ? -ENODEV : 0;
}

static int vmfunc_init(struct epk_state *state)
{
	uint32_t pkeys = 1;
	int err;

	err = epk_module_open(state, &pkeys);
	if (err)
		return err;
	err = occupy_ept_0(state);
	if (err) {
		epk_module_close(state, pkeys);
		return err;
	}
	state->pkeys = pkeys;
	return 0;
}

static int vmfunc_alloc(int num, int *ids, int beside)
{
	(void)beside;
	return epk_module_alloc(num, ids, 0);
}

static int vmfunc_gather(int num, const int *ids)
{
	(void)ids;
	return num > 1 ? epk_because(EPK_CAUSE_GATHER) : 0;
}

static int vmfunc_thread_start(struct epk_thread *t)
{
	int pkey = __builtin_ctz(epk_now.pkeys);

	(void)t;
	epk_pkru_set(pkru_open(rdpkru(), pkey, PROT_READ | PROT_WRITE));
	return epk_module_enrol();
}

static void vmfunc_thread_stop(struct epk_thread *t)
{
	t->nr = 0;
	vmfunc_settle(t);
}

static int vmfunc_end(struct epk_thread *t, unsigned int slot)
{
	epk_held_remove(t, slot);
	return 0;
}

const struct epk_backend epk_backend_vmfunc = {
	.name = "vmfunc",
	.init = vmfunc_init,
	.alloc = vmfunc_alloc,
	.free = epk_module_free,
	.gather = vmfunc_gather,
	.mmap = epk_module_mmap,
	.munmap = epk_module_munmap,
	.reserve = epk_module_reserve,
	.fill = epk_module_fill,
	.protect = epk_module_protect,
	.note = epk_module_note,
	.thread_start = vmfunc_thread_start,
	.thread_stop = vmfunc_thread_stop,
	.end = vmfunc_end,
	.settle = vmfunc_settle,
	.counts = epk_module_counts,
	.forget = epk_module_forget,
};
