// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/epk: one context for each open, one initialised context for each
 * address space.  Every call must come from the opener's address space; a
 * forked child, which inherits the file, gets -EPERM and opens its own.
 *
 * The device keeps the default mode of 0600; a udev rule may hand it to a
 * group.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "epk.h"

/* Initialised contexts by mm, so that one mm never has two. */
static DEFINE_HASHTABLE(contexts, 6);
static DEFINE_SPINLOCK(contexts_lock);
static atomic_t nr_contexts = ATOMIC_INIT(0);

static struct epk_context *context_find(const struct mm_struct *mm)
{
	struct epk_context *ctx;

	hash_for_each_possible_rcu(contexts, ctx, node, (unsigned long)mm,
				   lockdep_is_held(&contexts_lock)) {
		if (ctx->mm == mm)
			return ctx;
	}
	return NULL;
}

/**
 * epk_context_exists() - has an address space a context that is, or comes, into use
 * @mm: the address space
 *
 * Context: any.
 */
bool epk_context_exists(const struct mm_struct *mm)
{
	bool exists;

	if (!atomic_read(&nr_contexts))
		return false;
	rcu_read_lock();
	exists = context_find(mm);
	rcu_read_unlock();
	return exists;
}

/**
 * epk_context_pkru_deny() - what a thread must not have that is not registered
 * @mm: the thread's address space, or NULL
 *
 * Context: any.
 * Return: the access-disable bits of all keys that carry domains in @mm.
 */
u32 epk_context_pkru_deny(const struct mm_struct *mm)
{
	struct epk_context *ctx;
	u32 deny = 0;

	if (!atomic_read(&nr_contexts))
		return 0;

	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx)
		deny = READ_ONCE(ctx->pkru_deny);
	rcu_read_unlock();
	return deny;
}

/**
 * epk_context_pkeys() - which keys an address space may not free
 * @mm: the address space
 *
 * Context: any.
 * Return: the keys that its context was given, as a bitmap.
 */
u32 epk_context_pkeys(const struct mm_struct *mm)
{
	struct epk_context *ctx;
	u32 pkeys = 0;

	rcu_read_lock();
	ctx = context_find(mm);
	if (ctx)
		pkeys = READ_ONCE(ctx->pkeys);
	rcu_read_unlock();
	return pkeys;
}

/**
 * epk_contexts_show() - a line for each process that has domains
 * @m: where to
 */
void epk_contexts_show(struct seq_file *m)
{
	struct epk_context *ctx;
	int bucket;

	seq_puts(m, "pid comm domains evicted epts pages mapped moves faults revocations\n");
	rcu_read_lock();
	hash_for_each_rcu(contexts, bucket, ctx, node) {
		unsigned int domains = READ_ONCE(ctx->nr_domains);

		/* Published, but not ready yet. */
		if (!smp_load_acquire(&ctx->pkeys))
			continue;
		seq_printf(m, "%d %s %u %u %u %ld %ld %ld %ld %ld\n", ctx->pid, ctx->comm, domains,
			   domains - min(domains, READ_ONCE(ctx->nr_placed)),
			   READ_ONCE(ctx->nr_epts), atomic_long_read(&ctx->pages),
			   atomic_long_read(&ctx->mapped), atomic_long_read(&ctx->moves),
			   atomic_long_read(&ctx->page_faults),
			   atomic_long_read(&ctx->revocations));
	}
	rcu_read_unlock();
}

/* Reserve the place of @ctx as its mm's only initialised context. */
static int context_publish(struct epk_context *ctx)
{
	int ret = 0;

	spin_lock(&contexts_lock);
	if (context_find(ctx->mm)) {
		ret = -EBUSY;
	} else {
		hash_add_rcu(contexts, &ctx->node, (unsigned long)ctx->mm);
		atomic_inc(&nr_contexts);
	}
	spin_unlock(&contexts_lock);
	return ret;
}

static void context_withdraw(struct epk_context *ctx)
{
	spin_lock(&contexts_lock);
	if (hash_hashed(&ctx->node)) {
		hash_del_rcu(&ctx->node);
		atomic_dec(&nr_contexts);
	}
	spin_unlock(&contexts_lock);
}

static int epk_open(struct inode *inode, struct file *file)
{
	struct epk_context *ctx;

	if (!current->mm)
		return -EINVAL;
	ctx = kvzalloc(sizeof(*ctx), GFP_KERNEL_ACCOUNT);
	if (!ctx)
		return -ENOMEM;

	mutex_init(&ctx->lock);
	ctx->mm = current->mm;
	mmgrab(ctx->mm);
	ctx->pid = task_tgid_nr(current);
	get_task_comm(ctx->comm, current);
	file->private_data = ctx;
	atomic_long_inc(&epk_counters.contexts);
	return nonseekable_open(inode, file);
}

/* VMAs and thread records hold the file: none is left. */
static int epk_release(struct inode *inode, struct file *file)
{
	struct epk_context *ctx = file->private_data;

	context_withdraw(ctx);
	if (ctx->pkeys)
		epk_guards_put();
	epk_domains_exit(ctx);
	mmdrop(ctx->mm);
	atomic_long_dec(&epk_counters.contexts);
	kvfree_rcu(ctx, rcu);
	return 0;
}

static bool pkeys_allocated(struct mm_struct *mm, u32 pkeys)
{
	unsigned int pkey;
	bool ret = true;

	mmap_read_lock(mm);
	for (pkey = 1; pkey < EPK_NR_PKEYS; pkey++) {
		if (pkeys & BIT(pkey) && !mm_pkey_is_allocated(mm, pkey))
			ret = false;
	}
	mmap_read_unlock(mm);
	return ret;
}

static long epk_ioc_init(struct epk_context *ctx, struct epk_init __user *arg)
{
	struct epk_init init;
	long ret;

	if (copy_from_user(&init, arg, sizeof(init)))
		return -EFAULT;
	if (init.version != EPK_ABI_VERSION || init.generation > EPK_GENERATION_MAX)
		return -EINVAL;
	if (!init.pkeys || init.pkeys & ~EPK_PKEYS || !pkeys_allocated(ctx->mm, init.pkeys))
		return -EINVAL;

	/* Nothing can fail after the context is ready but this: do it first. */
	init.max_domains = EPK_TABLE_ENTRIES;
	init.nr_epts = epk_host.nr_epts;
	init.table_bytes = EPK_TABLE_BYTES;
	if (copy_to_user(arg, &init, sizeof(init)))
		return -EFAULT;

	ret = context_publish(ctx);
	if (ret)
		return ret;
	/* Before there can be a domain, and without the lock: it stops all CPUs. */
	epk_mark_all(ctx->mm);
	mutex_lock(&ctx->lock);
	ret = epk_domains_init(ctx, init.pkeys, init.generation);
	mutex_unlock(&ctx->lock);
	if (ret)
		context_withdraw(ctx);
	else
		epk_guards_get();
	return ret;
}

static int domains_get(struct epk_domains *req, void __user *arg)
{
	if (copy_from_user(req, arg, sizeof(*req)))
		return -EFAULT;
	return req->num ? 0 : -EINVAL;
}

static long epk_ioc_alloc(struct epk_context *ctx, void __user *arg)
{
	struct epk_domains req;
	int *ids;
	long ret;

	ret = domains_get(&req, arg);
	if (ret)
		return ret;
	if (req.num >= EPK_TABLE_ENTRIES)
		return -ENOSPC;

	ids = kvmalloc_array(req.num, sizeof(*ids), GFP_KERNEL_ACCOUNT);
	if (!ids)
		return -ENOMEM;
	ret = epk_domains_alloc(ctx, req.num, req.flags, ids);
	if (ret)
		goto out;
	if (copy_to_user(u64_to_user_ptr(req.ids), ids, req.num * sizeof(*ids))) {
		/* Another thread may have guessed and freed one: then none but it. */
		epk_domains_free(ctx, req.num, ids);
		ret = -EFAULT;
	}
out:
	kvfree(ids);
	return ret;
}

static long epk_ioc_free(struct epk_context *ctx, void __user *arg)
{
	struct epk_domains req;
	int *ids;
	long ret;

	ret = domains_get(&req, arg);
	if (ret)
		return ret;
	if (req.flags || req.num >= EPK_TABLE_ENTRIES)
		return -EINVAL;

	ids = kvmalloc_array(req.num, sizeof(*ids), GFP_KERNEL_ACCOUNT);
	if (!ids)
		return -ENOMEM;
	if (copy_from_user(ids, u64_to_user_ptr(req.ids), req.num * sizeof(*ids)))
		ret = -EFAULT;
	else
		ret = epk_domains_free(ctx, req.num, ids);
	kvfree(ids);
	return ret;
}

static long epk_ioc_move(struct epk_context *ctx, void __user *arg)
{
	struct epk_move *moves;
	struct epk_moves req;
	void __user *list;
	size_t size;
	long ret;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (!req.num || req.num > EPK_MOVES_MAX || req.flags)
		return -EINVAL;

	list = u64_to_user_ptr(req.moves);
	size = req.num * sizeof(*moves);
	moves = kvmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!moves)
		return -ENOMEM;
	/* Copied back first, so that an array that cannot be written changes nothing. */
	if (copy_from_user(moves, list, size) || copy_to_user(list, moves, size)) {
		ret = -EFAULT;
		goto out;
	}
	ret = epk_domains_move(ctx, req.num, moves);
	if (!ret && copy_to_user(list, moves, size))
		ret = -EFAULT;
out:
	kvfree(moves);
	return ret;
}

static long epk_ioc_populate(struct epk_context *ctx, void __user *arg)
{
	struct epk_range range;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	return epk_populate(ctx->mm, range.addr, range.len);
}

static long epk_ioc_file(struct file *dev, void __user *arg)
{
	struct epk_file req;
	long ret;

	/* Copied back first: a mapping that nobody is told of would stay. */
	if (copy_from_user(&req, arg, sizeof(req)) || copy_to_user(arg, &req, sizeof(req)))
		return -EFAULT;
	ret = epk_file_map(dev, &req);
	if (!ret && copy_to_user(arg, &req, sizeof(req)))
		ret = -EFAULT;
	return ret;
}

static long epk_ioc_resume(void __user *arg)
{
	struct epk_resume resume;

	if (copy_from_user(&resume, arg, sizeof(resume)))
		return -EFAULT;
	return epk_signal_resume(&resume);
}

/* What the host does not count reads as 0. */
static u64 host_count(enum kvm_epk_query what)
{
	return max(epk_hc_query(what), 0L);
}

static long epk_ioc_stats(struct epk_context *ctx, void __user *arg)
{
	struct epk_stats stats = {
		.pages = atomic_long_read(&ctx->pages),
		.vm_domains = atomic_long_read(&epk_counters.domains),
		.vm_epts = host_count(KVM_EPK_QUERY_EPTS),
		.vm_pages = atomic_long_read(&epk_counters.pages),
		.vm_exits = host_count(KVM_EPK_QUERY_STAT_EXITS),
		.vm_faults = host_count(KVM_EPK_QUERY_STAT_FAULTS),
		.rescues = epk_thread_rescues(),
		.moves = atomic_long_read(&ctx->moves),
		.page_faults = atomic_long_read(&ctx->page_faults),
		.revocations = atomic_long_read(&ctx->revocations),
		.huge_faults = atomic_long_read(&ctx->huge_faults),
	};

	mutex_lock(&ctx->lock);
	stats.domains = ctx->nr_domains;
	stats.evicted = ctx->nr_domains - ctx->nr_placed;
	stats.epts = ctx->nr_epts;
	mutex_unlock(&ctx->lock);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static long epk_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct epk_context *ctx = file->private_data;
	void __user *uarg = (void __user *)arg;

	if (current->mm != ctx->mm)
		return -EPERM;

	switch (cmd) {
	case EPK_IOC_INIT:
		return epk_ioc_init(ctx, uarg);
	case EPK_IOC_ALLOC:
		return epk_ioc_alloc(ctx, uarg);
	case EPK_IOC_FREE:
		return epk_ioc_free(ctx, uarg);
	case EPK_IOC_THREAD:
		return arg & ~EPK_THREAD_SIGNALS ? -EINVAL : epk_thread_register(file, arg);
	case EPK_IOC_STATS:
		return epk_ioc_stats(ctx, uarg);
	case EPK_IOC_MOVE:
		return epk_ioc_move(ctx, uarg);
	case EPK_IOC_RESUME:
		return epk_ioc_resume(uarg);
	case EPK_IOC_POPULATE:
		return epk_ioc_populate(ctx, uarg);
	case EPK_IOC_FILE:
		return epk_ioc_file(file, uarg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations epk_fops = {
	.owner = THIS_MODULE,
	.open = epk_open,
	.release = epk_release,
	.unlocked_ioctl = epk_ioctl,
	.mmap = epk_mmap,
	/* So that the memory of a domain that is large enough can come by 2 MiB. */
	.get_unmapped_area = thp_get_unmapped_area,
};

static struct miscdevice epk_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "epk",
	.fops = &epk_fops,
};

/**
 * epk_contexts_init() - make /dev/epk; everything else is ready
 *
 * Return: 0, or what misc_register() says.
 */
int epk_contexts_init(void)
{
	return misc_register(&epk_misc);
}

/**
 * epk_contexts_exit() - remove /dev/epk; no file is open
 */
void epk_contexts_exit(void)
{
	misc_deregister(&epk_misc);
}
