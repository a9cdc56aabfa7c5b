// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/epk: which call may come when, and from whom.  Every call must come from the
 * opener's address space; a forked child, a program that was executed, or who was sent the file
 * gets -EPERM, and opens its own.
 *
 * The device keeps the default mode of 0600; a udev rule may hand it to a
 * group.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "module.h"
#include "guard.h"
#include "mapping.h"

static int epk_open(struct inode *inode, struct file *file)
{
	struct epk_context *ctx;

	if (!current->mm)
		return -EINVAL;
	ctx = epk_context_create();
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	file->private_data = ctx;
	return nonseekable_open(inode, file);
}

static int epk_release(struct inode *inode, struct file *file)
{
	epk_context_destroy(file->private_data);
	return 0;
}

static long ioc_init(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_init init, answer;
	int ret;

	if (copy_from_user(&init, arg, sizeof(init)))
		return -EFAULT;
	if (init.version != EPK_ABI_VERSION || init.generation > EPK_GENERATION_MAX)
		return -EINVAL;
	if (!init.pkeys || init.pkeys & ~EPK_PKEYS)
		return -EINVAL;

	answer = init;
	answer.max_domains = EPK_TABLE_ENTRIES;
	answer.nr_epts = ctx->epts;
	answer.table_bytes = EPK_TABLE_BYTES;
	/* Nothing fails once the context is ready: it is told first, and taken back. */
	if (copy_to_user(arg, &init, sizeof(init)) || copy_to_user(arg, &answer, sizeof(answer)))
		return -EFAULT;
	ret = epk_context_start(ctx, init.pkeys, init.generation);
	if (ret && copy_to_user(arg, &init, sizeof(init)))
		return -EFAULT;
	return ret;
}

static long ioc_thread(struct file *file, void __user *arg)
{
	unsigned long flags = (unsigned long)arg;

	if (flags & ~(EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) || flags == EPK_THREAD_FOLLOWS)
		return -EINVAL;
	return epk_thread_register(file, flags);
}

/* What is to have an answer is read, and written back: if that fails, nothing has changed. */
static bool is_unwritable(void *copy, void __user *from, size_t size)
{
	return copy_from_user(copy, from, size) || copy_to_user(from, copy, size);
}

static int domains_get(struct epk_domains *req, void __user *arg)
{
	if (copy_from_user(req, arg, sizeof(*req)))
		return -EFAULT;
	return req->num ? 0 : -EINVAL;
}

static long ioc_alloc(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_domains req;
	void __user *list;
	unsigned int i;
	size_t size;
	int *ids;
	long ret;

	ret = domains_get(&req, arg);
	if (ret)
		return ret;
	if (req.num >= EPK_TABLE_ENTRIES)
		return -ENOSPC;

	list = u64_to_user_ptr(req.ids);
	size = req.num * sizeof(*ids);
	ids = kvmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!ids)
		return -ENOMEM;
	if (is_unwritable(ids, list, size)) {
		ret = -EFAULT;
		goto out;
	}
	ret = req.flags == EPK_ALLOC_EVERYWHERE ?
		      epk_domains_alloc_everywhere(ctx, req.num, ids) :
		      epk_domains_alloc(ctx, req.num, req.flags, ids);
	if (ret)
		goto out;
	if (copy_to_user(list, ids, size)) {
		/* One by one: another thread may have guessed and freed some. */
		for (i = 0; i < req.num; i++)
			epk_domains_free(ctx, 1, ids + i);
		ret = -EFAULT;
	}
out:
	kvfree(ids);
	return ret;
}

static long ioc_free(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
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

/* One domain, wherever it can be or in an EPT, whoever has to make room. */
static int move_admit(struct epk_context *ctx, struct epk_move *move)
{
	struct epk_entry entry;
	int ret;

	if (move->ept == EPK_EPT_NONE || move->pkey || move->rsvd)
		return -EINVAL;
	ret = epk_admit(ctx, move->id, move->ept);
	if (ret)
		return ret;
	entry = epk_table_read(ctx, EPK_ID_INDEX(move->id));
	move->ept = entry.ept;
	move->pkey = entry.pkey;
	return 0;
}

static long ioc_move(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_move few[EPK_MOVES_FEW], *moves = few;
	struct epk_moves req;
	void __user *list;
	size_t size;
	long ret;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (!req.num || req.num > EPK_MOVES_MAX || req.flags & ~EPK_MOVES_ADMIT)
		return -EINVAL;
	if (req.flags && req.num > 1)
		return -EINVAL;

	list = u64_to_user_ptr(req.moves);
	size = req.num * sizeof(*moves);
	if (req.num > EPK_MOVES_FEW)
		moves = kvmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!moves)
		return -ENOMEM;
	if (is_unwritable(moves, list, size)) {
		ret = -EFAULT;
		goto out;
	}
	ret = req.flags ? move_admit(ctx, moves) : epk_domains_move(ctx, req.num, moves);
	/* They have moved, and the table says where, if the list has been taken away meanwhile. */
	if (!ret && copy_to_user(list, moves, size))
		goto out;
out:
	if (moves != few)
		kvfree(moves);
	return ret;
}

static long ioc_populate(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_range range;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	return epk_populate(ctx->mm, range.addr, range.len);
}

static long unmap(struct file *file, void __user *arg, bool keep)
{
	struct epk_context *ctx = file->private_data;
	struct epk_range range;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	return epk_unmap(ctx->mm, range.addr, range.len, keep);
}

static long ioc_unmap(struct file *file, void __user *arg)
{
	return unmap(file, arg, false);
}

static long ioc_reserve(struct file *file, void __user *arg)
{
	return unmap(file, arg, true);
}

/* Rounds in which others can take the domain's place away again. */
#define FILL_TRIES	64

static int fill_page(struct epk_context *ctx, unsigned long addr, const void *from)
{
	int ret, tries, id;

	for (tries = 0; tries < FILL_TRIES; tries++) {
		if (mmap_read_lock_killable(ctx->mm))
			return -EINTR;
		ret = epk_fill(ctx->mm, addr, from, &id);
		mmap_read_unlock(ctx->mm);
		if (ret != -EAGAIN)
			return ret;
		ret = epk_admit(ctx, id, EPK_EPT_ANY);
		if (ret)
			return ret;
	}
	return -ENOSPC;
}

static long ioc_fill(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_fill req;
	void *page;
	u64 done;
	long ret = 0;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (!req.len || offset_in_page(req.addr | req.len) || req.addr + req.len < req.addr ||
	    req.addr + req.len > TASK_SIZE)
		return -EINVAL;
	page = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!page)
		return -ENOMEM;
	for (done = 0; !ret && done < req.len; done += PAGE_SIZE) {
		/* As the caller reads it: it may be a domain's, too. */
		if (copy_from_user(page, u64_to_user_ptr(req.from + done), PAGE_SIZE))
			ret = -EFAULT;
		else
			ret = fill_page(ctx, req.addr + done, page);
		if (fatal_signal_pending(current))
			ret = -EINTR;
		cond_resched();
	}
	/* It may have been a secret. */
	memzero_explicit(page, PAGE_SIZE);
	free_page((unsigned long)page);
	return ret;
}

static long ioc_file(struct file *file, void __user *arg)
{
	struct epk_file req;
	u64 addr;
	long ret;

	if (is_unwritable(&req, arg, sizeof(req)))
		return -EFAULT;
	addr = req.addr;
	ret = epk_file_map(file, &req);
	/* Where nothing has been replaced, there is a place to tell of. */
	if (!ret && req.addr != addr && copy_to_user(arg, &req, sizeof(req)))
		ret = epk_unmap(current->mm, req.addr, PAGE_ALIGN(req.len), false) ?: -EFAULT;
	return ret;
}

static long ioc_gates(struct file *file, void __user *arg)
{
	struct epk_gate gates[EPK_GATES_MAX];
	struct epk_gates req;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (!req.num || req.num > EPK_GATES_MAX || req.rsvd)
		return -EINVAL;
	if (copy_from_user(gates, u64_to_user_ptr(req.gates), req.num * sizeof(*gates)))
		return -EFAULT;
	return epk_gates_set(file->private_data, &req, gates);
}

static long ioc_begin(struct file *file, void __user *arg)
{
	unsigned long word = (unsigned long)arg;

	return epk_rights_begin(file, (int)word, word >> 32, false);
}

static long ioc_call(struct file *file, void __user *arg)
{
	unsigned long word = (unsigned long)arg;

	if (!word)
		return epk_rights_call_nothing(file->private_data);
	return epk_rights_begin(file, (int)word, word >> 32, true);
}

static long ioc_catch(struct file *file, void __user *arg)
{
	struct epk_catch req;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	return epk_rights_call_caught(file, &req);
}

static long ioc_return(struct file *file, void __user *arg)
{
	unsigned long how = (unsigned long)arg;

	return how ? epk_rights_forget_call(file->private_data,
					    how == EPK_RETURN_NOTHING ? 0 : how) :
		     epk_rights_return(file->private_data);
}

static long ioc_end(struct file *file, void __user *arg)
{
	unsigned long word = (unsigned long)arg;

	return word == (int)word ? epk_rights_end(file->private_data, word) : -EINVAL;
}

static long ioc_protect(struct file *file, void __user *arg)
{
	unsigned long word = (unsigned long)arg;

	return epk_common_set(file->private_data, (int)word, word >> 32);
}

static long ioc_held(struct file *file, void __user *arg)
{
	struct epk_grant *list;
	struct epk_grants req;
	unsigned int nr;
	long ret = 0;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (req.flags & ~EPK_HELD_INTERRUPTED)
		return -EINVAL;
	list = kcalloc(EPK_RIGHTS + EPK_NR_PKEYS, sizeof(*list), GFP_KERNEL_ACCOUNT);
	if (!list)
		return -ENOMEM;
	if (req.flags & EPK_HELD_INTERRUPTED)
		nr = epk_rights_list_interrupted(file->private_data, list, EPK_RIGHTS);
	else
		nr = epk_rights_list(file->private_data, list, EPK_RIGHTS + EPK_NR_PKEYS);
	if (copy_to_user(u64_to_user_ptr(req.list), list, min(nr, req.num) * sizeof(*list)))
		ret = -EFAULT;
	req.num = nr;
	if (!ret && copy_to_user(arg, &req, sizeof(req)))
		ret = -EFAULT;
	kfree(list);
	return ret;
}

static long ioc_note(struct file *file, void __user *arg)
{
	struct epk_note note;

	if (copy_from_user(&note, arg, sizeof(note)))
		return -EFAULT;
	if (note.flags & ~(EPK_NOTE_PRIVATE | EPK_NOTE_CONFINED) || note.flags == EPK_NOTE_CONFINED)
		return -EINVAL;
	return epk_note_set(file->private_data, note.id, note.addr, note.flags, epk_guard_confined_arm);
}

/* What the host does not count reads as 0. */
static u64 host_count(enum kvm_epk_query what)
{
	return max(epk_host_query(what), 0L);
}

/* What others do is root's to know. */
static void stats_of_all(struct epk_stats *stats)
{
	stats->vm_domains = atomic_long_read(&epk_counters.domains);
	stats->vm_epts = host_count(KVM_EPK_QUERY_EPTS);
	stats->vm_pages = atomic_long_read(&epk_counters.pages);
	stats->vm_exits = host_count(KVM_EPK_QUERY_STAT_EXITS);
	stats->vm_faults = host_count(KVM_EPK_QUERY_STAT_FAULTS);
	stats->rescues = epk_thread_rescues();
}

static long ioc_stats(struct file *file, void __user *arg)
{
	struct epk_context *ctx = file->private_data;
	struct epk_stats stats = {
		.pages = atomic_long_read(&ctx->pages),
		.moves = atomic_long_read(&ctx->moves),
		.page_faults = atomic_long_read(&ctx->page_faults),
		.revocations = atomic_long_read(&ctx->revocations),
		.huge_faults = atomic_long_read(&ctx->huge_faults),
	};

	if (ns_capable_noaudit(&init_user_ns, CAP_SYS_ADMIN))
		stats_of_all(&stats);
	mutex_lock(&ctx->lock);
	stats.domains = ctx->nr_domains;
	stats.evicted = ctx->nr_domains - ctx->nr_placed;
	stats.epts = ctx->nr_epts;
	mutex_unlock(&ctx->lock);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

/*
 * When a call may come: before EPK_IOC_INIT has succeeded, or after.  What has to be checked
 * besides, mmap() and faults, asks epk_context_is_ready(), or cannot come before.
 */
enum when { BEFORE = 1, AFTER = 2, ALWAYS = BEFORE | AFTER };

static const struct call {
	unsigned int cmd;
	enum when when;
	long (*run)(struct file *file, void __user *arg);
} calls[] = {
	/* What programs wait for comes first. */
	{ EPK_IOC_BEGIN, AFTER, ioc_begin },
	{ EPK_IOC_END, AFTER, ioc_end },
	{ EPK_IOC_INIT, BEFORE, ioc_init },
	{ EPK_IOC_STATS, ALWAYS, ioc_stats },
	{ EPK_IOC_ALLOC, AFTER, ioc_alloc },
	{ EPK_IOC_FREE, AFTER, ioc_free },
	{ EPK_IOC_THREAD, AFTER, ioc_thread },
	{ EPK_IOC_MOVE, AFTER, ioc_move },
	{ EPK_IOC_POPULATE, AFTER, ioc_populate },
	{ EPK_IOC_FILE, AFTER, ioc_file },
	{ EPK_IOC_UNMAP, AFTER, ioc_unmap },
	{ EPK_IOC_RESERVE, AFTER, ioc_reserve },
	{ EPK_IOC_FILL, AFTER, ioc_fill },
	{ EPK_IOC_GATES, AFTER, ioc_gates },
	{ EPK_IOC_HELD, AFTER, ioc_held },
	{ EPK_IOC_PROTECT, AFTER, ioc_protect },
	{ EPK_IOC_NOTE, AFTER, ioc_note },
	{ EPK_IOC_CALL, AFTER, ioc_call },
	{ EPK_IOC_RETURN, AFTER, ioc_return },
	{ EPK_IOC_CATCH, AFTER, ioc_catch },
};

static long epk_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct epk_context *ctx = file->private_data;
	enum when now = epk_context_is_ready(ctx) ? AFTER : BEFORE;
	const struct call *call;

	if (current->mm != ctx->mm)
		return -EPERM;
	for (call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		if (call->cmd != cmd)
			continue;
		if (!(call->when & now))
			return now == BEFORE ? -ENXIO : -EBUSY;
		return call->run(file, (void __user *)arg);
	}
	return -ENOTTY;
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
 * epk_device_init() - make /dev/epk; everything else is ready
 *
 * Return: 0, or what misc_register() says.
 */
int __init epk_device_init(void)
{
	return misc_register(&epk_misc);
}

/**
 * epk_device_exit() - remove /dev/epk; no file is open
 */
void epk_device_exit(void)
{
	misc_deregister(&epk_misc);
}
