// SPDX-License-Identifier: MIT
#include <string.h>
#include <sys/ioctl.h>

#include "aside.h"

/* Ends all that the thread holds.  Not 0: under "mprotect" something could not be closed. */
int epk_let_go(void)
{
	struct epk_held list[2 * EPK_MAX_HELD];
	const struct epk_backend *ops = epk_ops();
	int i, nr = ops && ops->held ? ops->held(list, 2 * EPK_MAX_HELD) : 0, err = 0, failed;
	unsigned int slot;

	for (i = 0; i < nr && i < 2 * EPK_MAX_HELD; i++)
		domain_end(list[i].id);
	for (slot = epk_self ? epk_held_nr(epk_self) : 0; slot--;) {
		failed = domain_end(epk_self->held[slot].id);
		err = failed ? failed : err;
	}
	return epk_self && epk_held_nr(epk_self) ? err : 0;
}

int epk_list_aside(struct epk_aside *aside, int id)
{
	struct epk_thread *t = epk_self;
	int err;

	aside->nr = t ? epk_held_nr(t) : 0;
	if (aside->nr)
		memcpy(aside->held, t->held, aside->nr * sizeof(aside->held[0]));
	err = epk_let_go();
	if (!err && id)
		err = domain_begin(id, PROT_READ | PROT_WRITE);
	return err && epk_list_back(aside) ? -EIO : err;
}

/* All of it, or nothing. */
int epk_list_back(struct epk_aside *aside)
{
	int err = 0, failed = epk_let_go();
	unsigned int i;

	for (i = 0; i < aside->nr && !err; i++) {
		err = domain_begin(aside->held[i].id, aside->held[i].prot);
		if (failed && err == -EALREADY)
			err = 0;
	}
	if (!err && epk_self && epk_held_nr(epk_self) > aside->nr)
		err = -EIO;
	if (err)
		epk_let_go();
	return err;
}

/* Nobody will take it back, nor what was put aside since then: that frame is left, too. */
void epk_forget_aside(struct epk_aside *aside)
{
	const struct epk_backend *ops = epk_ops();

	if (!aside->aside || !ops)
		return;
	aside->aside = false;
	if (!ops->in_module && ops->forget_aside)
		ops->forget_aside();
	/* Whatever the frame says. */
	if (ops->in_module && ioctl(epk_now.fd, EPK_IOC_RETURN, aside->sp))
		ioctl(epk_now.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING);
}

/* epk_thread_start() of a thread that may hold something all the same, by the gates alone. */
int epk_thread_ready(void)
{
	struct epk_aside aside = { .aside = false };
	int err = 0;

	/* Elsewhere only a thread that has started can hold anything, and put it aside. */
	if (epk_ops()->in_module)
		err = epk_hold_nothing(&aside);
	if (!err)
		err = epk_thread_start();
	epk_take_back(&aside);
	return err;
}
