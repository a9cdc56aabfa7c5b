// SPDX-License-Identifier: MIT
#include <fcntl.h>

#include "host.h"

const char *const host_op_names[NR_HOST_OPS] = {
	"forget", "forget-huge", "log", "read-log", "remove", "add",
	"save", "spoil", "set-EPT", "move",
};

int max_epts(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r;

	REQUIRE(fd >= 0);
	r = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_EPK);
	close(fd);
	return r > 0 ? r : 0;
}

static void set_ram(struct machine *machine, struct model *model, unsigned int i, uint32_t flags)
{
	int r = machine_set_ram(machine, i, flags);

	if (r)
		die("memslot %u, flags %#x: %s", i, flags, strerror(-r));
	model_set_ram(model, i, flags);
}

static void forget_page(struct model *model, unsigned int i, unsigned int word)
{
	REQUIRE(!madvise(ram[i] + word_offset(word) / PAGE * PAGE, PAGE, MADV_DONTNEED));
	model_forget(model, i, word & ~1u);
	model_forget(model, i, word | 1);
}

/* The second 2 MiB of RAM: the first holds the code that OP_CALL calls. */
static void forget_huge(struct model *model, unsigned int i)
{
	unsigned int w;

	REQUIRE(!madvise(ram[i] + 2 * MiB, 2 * MiB, MADV_DONTNEED));
	for (w = 0; w < NR_WORDS; w++) {
		if (word_offset(w) >= 2 * MiB)
			model_forget(model, i, w);
	}
}

static void read_log(struct machine *machine, struct model *model, unsigned int i)
{
	static uint64_t bitmap[RAM_BYTES / PAGE / 64];
	struct kvm_dirty_log log = { .slot = i, .dirty_bitmap = bitmap };
	unsigned int w;

	if (model->flags[i] == NO_RAM || !(model->flags[i] & KVM_MEM_LOG_DIRTY_PAGES))
		return;
	REQUIRE(!ioctl(machine->vm->fd, KVM_GET_DIRTY_LOG, &log));
	for (w = 0; w < NR_WORDS; w += 2) {
		uint32_t page = word_offset(w) / PAGE;
		bool logged = bitmap[page / 64] >> page % 64 & 1;

		/* Reading a page may have it logged, too: it is mapped for writing then. */
		if (!logged && model->dirty[i] >> w / 2 & 1)
			die("page %#x of block %u is not logged as dirty", page, ram_block[i]);
	}
	model->dirty[i] = 0;
}

enum host_op host_op(struct dice *dice, struct machine *machine, struct model *model)
{
	enum host_op op = dice_below(dice, NR_HOST_OPS);
	unsigned int i = dice_below(dice, NR_RAM);
	uint32_t flags = model->flags[i];

	/* While two vCPUs run, there is nothing to compare with. */
	if (op >= HOST_SAVE && machine->nr_cpus > 1)
		op -= HOST_SAVE;
	if (op == HOST_MOVE && dice_below(dice, 8))
		op = HOST_SAVE;
	/* The module of a real guest is not without memory most of the time. */
	if (op == HOST_REMOVE && dice_below(dice, 3))
		op = HOST_ADD;
	switch (op) {
	case HOST_FORGET:
		forget_page(model, i, dice_below(dice, NR_WORDS));
		break;
	case HOST_FORGET_HUGE:
		forget_huge(model, i);
		break;
	case HOST_LOG:
		if (flags == NO_RAM || flags & KVM_MEM_READONLY)
			break;
		if (flags)
			read_log(machine, model, i);
		set_ram(machine, model, i, flags ^ KVM_MEM_LOG_DIRTY_PAGES);
		break;
	case HOST_READ_LOG:
		read_log(machine, model, i);
		break;
	case HOST_REMOVE:
		if (flags != NO_RAM)
			set_ram(machine, model, i, NO_RAM);
		break;
	case HOST_SAVE:
		state_check(machine, model);
		break;
	case HOST_SPOIL:
		state_spoil(dice, machine, model);
		break;
	case HOST_SET_EPT:
		state_set_ept(dice, machine, model);
		break;
	case HOST_MOVE:
		state_move(machine, model);
		break;
	default:
		for (i = 0; i < NR_RAM && model->flags[i] != NO_RAM; i++)
			;
		if (i == NR_RAM)
			break;
		if (model->enabled && !model_ordinary_blocks(model, ram_block[i], 1)) {
			if (machine_set_ram(machine, i, 0) != -EINVAL)
				die("block %u is a window's and got a memslot", ram_block[i]);
		} else {
			set_ram(machine, model, i, dice_one_in(dice, 4) ? KVM_MEM_READONLY : 0);
		}
	}
	return op;
}
