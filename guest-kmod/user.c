// SPDX-License-Identifier: GPL-2.0
/*
 * What the processes of one user have between them, and its bounds.
 *
 * A user is who may be told apart from outside: in a user namespace that an ordinary
 * user has made, all users are that one.  Else each could be as many as it has
 * subordinate IDs.
 */
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "module.h"

/* Computed from the guest's RAM when the module is loaded. */
#define HALF_OF_RAM		(~0ul)

static unsigned int max_user_contexts = 1024;
module_param(max_user_contexts, uint, 0644);
MODULE_PARM_DESC(max_user_contexts,
		 "most open files of " EPK_DEVICE " of one user (0: no limit; none for CAP_SYS_RESOURCE either)");

static unsigned int max_user_domains = 2 * EPK_TABLE_ENTRIES;
module_param(max_user_domains, uint, 0644);
MODULE_PARM_DESC(max_user_domains, "most domains of one user, likewise");

static unsigned long max_user_pages = HALF_OF_RAM;
module_param(max_user_pages, ulong, 0644);
MODULE_PARM_DESC(max_user_pages,
		 "most domain memory of one user, in pages of 4 KiB, likewise (default: half of the RAM)");

static unsigned int max_user_epts;
module_param(max_user_epts, uint, 0644);
MODULE_PARM_DESC(max_user_epts, "most EPTs that one user's domains are in, likewise");

static unsigned int reserved_epts = 16;
module_param(reserved_epts, uint, 0644);
MODULE_PARM_DESC(reserved_epts,
		 "EPTs, the last ones, that only CAP_SYS_RESOURCE has when it opens " EPK_DEVICE " (at most a quarter)");

static unsigned int user_epts_per_second = 100;
module_param(user_epts_per_second, uint, 0644);
MODULE_PARM_DESC(user_epts_per_second,
		 "EPTs that are made for one user, after those of ten seconds at once, likewise");

/* What a user may have made at once, in seconds of making them steadily. */
#define EPTS_BURST		10

static DEFINE_HASHTABLE(users, 6);
static DEFINE_SPINLOCK(users_lock);

static kuid_t user_id(void)
{
	struct user_namespace *ns = current_user_ns();
	kuid_t uid = current_uid();

	/* The owner of the outermost one that is not root's. */
	for (; ns != &init_user_ns; ns = ns->parent) {
		if (!uid_eq(ns->owner, GLOBAL_ROOT_UID))
			uid = ns->owner;
	}
	return uid;
}

static struct epk_user *user_find(kuid_t uid)
{
	struct epk_user *user;

	hash_for_each_possible(users, user, node, __kuid_val(uid)) {
		if (uid_eq(user->uid, uid))
			return user;
	}
	return NULL;
}

static bool is_over(unsigned long count, unsigned long limit)
{
	return limit && count > limit && !capable(CAP_SYS_RESOURCE);
}

/* One that has no context any more is remembered until its EPTs are paid for. */
static void users_forget(bool all)
{
	struct epk_user *user;
	struct hlist_node *next;
	u64 now = ktime_get_ns();
	int bucket;

	hash_for_each_safe(users, bucket, next, user, node) {
		if (user->nr_contexts || (!all && user->epts_paid > now))
			continue;
		hash_del(&user->node);
		kfree(user);
	}
}

/**
 * epk_user_open() - one more context of current's user
 *
 * Return: the user, -EDQUOT, -ENOMEM.
 */
struct epk_user *epk_user_open(void)
{
	struct epk_user *fresh = kzalloc(sizeof(*fresh), GFP_KERNEL_ACCOUNT), *user;

	if (!fresh)
		return ERR_PTR(-ENOMEM);
	fresh->uid = user_id();

	spin_lock(&users_lock);
	users_forget(false);
	user = user_find(fresh->uid);
	if (!user) {
		user = fresh;
		fresh = NULL;
		hash_add(users, &user->node, __kuid_val(user->uid));
	}
	user->nr_contexts++;
	spin_unlock(&users_lock);
	kfree(fresh);

	if (is_over(READ_ONCE(user->nr_contexts), READ_ONCE(max_user_contexts))) {
		epk_user_close(user);
		return ERR_PTR(-EDQUOT);
	}
	return user;
}

/**
 * epk_user_close() - undo epk_user_open()
 * @user: the user
 */
void epk_user_close(struct epk_user *user)
{
	spin_lock(&users_lock);
	user->nr_contexts--;
	spin_unlock(&users_lock);
}

/**
 * epk_user_add_domains() - a user gets domains
 * @user: the user, current's
 * @num: how many
 *
 * Return: 0, -EDQUOT.
 */
int epk_user_add_domains(struct epk_user *user, unsigned int num)
{
	if (!is_over(atomic_long_add_return(num, &user->domains), READ_ONCE(max_user_domains)))
		return 0;
	epk_user_sub_domains(user, num);
	return -EDQUOT;
}

void epk_user_sub_domains(struct epk_user *user, unsigned int num)
{
	atomic_long_sub(num, &user->domains);
}

/**
 * epk_user_add_pages() - a user's domains get address space
 * @user: the user, current's
 * @pages: how much of it
 * @going: how much of what they have is about to go
 *
 * Return: false if that is too much.
 */
bool epk_user_add_pages(struct epk_user *user, unsigned long pages, unsigned long going)
{
	if (!is_over(atomic_long_add_return(pages, &user->mapped) - going,
		     READ_ONCE(max_user_pages)))
		return true;
	epk_user_sub_pages(user, pages);
	return false;
}

void epk_user_sub_pages(struct epk_user *user, unsigned long pages)
{
	atomic_long_sub(pages, &user->mapped);
}

/**
 * epk_user_may_hold() - may a context of a user come into an EPT
 * @user: the user, current's; under the EPT mutex
 * @ept: the EPT
 */
bool epk_user_may_hold(const struct epk_user *user, unsigned int ept)
{
	return user->holds[ept] || !is_over(user->nr_epts + 1, READ_ONCE(max_user_epts));
}

/**
 * epk_user_epts() - how many of the EPTs, from the first on, current may have
 * @host: how many there are
 */
unsigned int epk_user_epts(unsigned int host)
{
	if (ns_capable_noaudit(&init_user_ns, CAP_SYS_RESOURCE))
		return host;
	return host - min(READ_ONCE(reserved_epts), host / 4);
}

/**
 * epk_user_made_ept() - an EPT had to be made for a user
 * @user: the user, current's; under the EPT mutex
 *
 * And is to be destroyed one day, which stops all virtual CPUs, whoever they work for.  Who would not
 * wait is not charged: others of the same user would wait in its place.
 */
void epk_user_made_ept(struct epk_user *user)
{
	unsigned int rate = READ_ONCE(user_epts_per_second);

	if (rate && !ns_capable_noaudit(&init_user_ns, CAP_SYS_RESOURCE))
		WRITE_ONCE(user->epts_paid, max(user->epts_paid, ktime_get_ns()) +
			   NSEC_PER_SEC / rate);
}

/**
 * epk_user_wait() - wait until a user may have more EPTs made
 * @user: the user, current's; no lock is held
 *
 * Return: 0, -EINTR.
 */
int epk_user_wait(const struct epk_user *user)
{
	u64 paid = READ_ONCE(user->epts_paid);
	s64 wait;

	if (likely(!paid))
		return 0;
	wait = paid - ktime_get_ns() - EPTS_BURST * NSEC_PER_SEC;
	if (wait <= 0 || !READ_ONCE(user_epts_per_second) || capable(CAP_SYS_RESOURCE))
		return 0;
	schedule_timeout_killable(nsecs_to_jiffies(wait) + 1);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/**
 * epk_users_init() - bounds that follow from the guest
 */
void __init epk_users_init(void)
{
	if (max_user_pages == HALF_OF_RAM)
		max_user_pages = totalram_pages() / 2;
}

/**
 * epk_users_exit() - forget all users; none has a context
 */
void epk_users_exit(void)
{
	spin_lock(&users_lock);
	users_forget(true);
	spin_unlock(&users_lock);
}
