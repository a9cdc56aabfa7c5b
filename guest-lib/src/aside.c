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

/* What was put aside here was left by a jump that nobody tells: its frame is being written over. */
static void forget_left(struct epk_thread *t, uintptr_t sp)
{
	unsigned int i, nr = 0;

	for (i = 0; i < t->asides; i++)
		if (t->aside_sps[i] != sp)
			t->aside_sps[nr++] = t->aside_sps[i];
	t->asides = nr;
}

/* So often as the module allows, if that is to be tried; which is not asked where nothing is held. */
static int more(struct epk_aside *aside)
{
	struct epk_thread *t = epk_self;

	aside->before = 0;
	if (!t || !epk_now.strict)
		return 0;
	aside->before = t->asides;
	if (!epk_ops()->put_aside && !epk_held_nr(t))
		return 0;
	forget_left(t, aside->sp);
	aside->before = t->asides;
	if (t->asides >= EPK_CALLS_MAX)
		return -EMFILE;
	t->aside_sps[t->asides++] = aside->sp;
	return 0;
}

/* Whatever was put aside since then, and not taken back. */
static void less(const struct epk_aside *aside)
{
	if (epk_self && epk_self->asides > aside->before)
		epk_self->asides = aside->before;
}

static int list_back(struct epk_aside *aside);

static int list_aside(struct epk_aside *aside, int id)
{
	struct epk_thread *t = epk_self;
	int err;

	aside->nr = t ? epk_held_nr(t) : 0;
	if (aside->nr)
		memcpy(aside->held, t->held, aside->nr * sizeof(aside->held[0]));
	err = epk_let_go();
	if (!err && id)
		err = domain_begin(id, PROT_READ | PROT_WRITE);
	return err && list_back(aside) ? -EIO : err;
}

/* All of it, or nothing. */
static int list_back(struct epk_aside *aside)
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

/* Under the stack pointer in @aside, if it is not a list. */
int epk_soft_aside(struct epk_aside *aside, int id)
{
	const struct epk_backend *ops = epk_ops();
	int err = more(aside);

	if (err)
		return err;
	err = ops->put_aside ? ops->put_aside(id, aside->sp) : list_aside(aside, id);
	if (err)
		less(aside);
	return err;
}

int epk_soft_back(struct epk_aside *aside, uintptr_t sp)
{
	const struct epk_backend *ops = epk_ops();

	less(aside);
	return ops->take_back ? ops->take_back(sp) : list_back(aside);
}

/* Nobody will take it back, nor what was put aside since then: that frame is left, too. */
void epk_forget_aside(struct epk_aside *aside)
{
	const struct epk_backend *ops = epk_ops();

	if (!aside->aside || !ops)
		return;
	aside->aside = false;
	if (!ops->in_module)
		less(aside);
	if (!ops->in_module && ops->forget_aside)
		ops->forget_aside();
	/* Whatever the frame says. */
	if (ops->in_module && ioctl(epk_now.fd, EPK_IOC_RETURN, aside->sp))
		ioctl(epk_now.fd, EPK_IOC_RETURN, EPK_RETURN_NOTHING);
}

/* The module notes each thread that begins. */
static int strict_thread(void)
{
	int err;

	if (!epk_now.strict)
		return 0;
	err = -pthread_mutex_lock(&epk_lock);
	if (err)
		return err;
	err = epk_strict();
	pthread_mutex_unlock(&epk_lock);
	return err;
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
		err = strict_thread();
	if (!err)
		err = epk_thread_start();
	epk_take_back(&aside);
	return err;
}
