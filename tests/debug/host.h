/* SPDX-License-Identifier: MIT */
/* What a VMM does to a VM while its guest runs. */
#ifndef EPK_DEBUG_HOST_H
#define EPK_DEBUG_HOST_H

#include "choose.h"

enum host_op {
	HOST_FORGET,		/* give a page of guest memory back to the host */
	HOST_FORGET_HUGE,	/* all pages of an area of 2 MiB */
	HOST_LOG,		/* dirty logging on or off */
	HOST_READ_LOG,		/* and compare it with what the guest wrote */
	HOST_REMOVE,		/* a memslot */
	HOST_ADD,		/* one that is not there; perhaps read-only */
	HOST_SAVE,		/* what the guest has set up, and compare */
	HOST_SPOIL,		/* try to restore nonsense */
	HOST_SET_EPT,		/* put the vCPU into an EPT */
	HOST_MOVE,		/* save, and go on in another VM */
	NR_HOST_OPS
};

extern const char *const host_op_names[NR_HOST_OPS];

/* Do one of them; what has no effect counts too. */
enum host_op host_op(struct dice *dice, struct machine *machine, struct model *model);

/* For a VM of one vCPU. */
void state_check(struct machine *machine, const struct model *model);
bool state_move(struct machine *machine, struct model *model);
void state_set_ept(struct dice *dice, struct machine *machine, struct model *model);
void state_spoil(struct dice *dice, struct machine *machine, struct model *model);

/* How many EPTs KVM_CAP_EPK offers, or 0. */
int max_epts(void);

#endif
