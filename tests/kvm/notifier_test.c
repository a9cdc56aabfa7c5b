// SPDX-License-Identifier: MIT
/*
 * What the host does to the memory behind a guest: each of its EPTs sees it, at
 * its window and at the ordinary address.
 */
#include <fcntl.h>
#include <sys/swap.h>
#include <sys/wait.h>

#include "vmm.h"

#define SLOT		1
#define SLOT_GPA	(64 * MiB)
#define SLOT_SIZE	(8 * MiB)
#define WORDS		(PAGE / 8)
#define LAST		511

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* The page the guest looks at, and what it is to find and to leave there. */
static volatile uint64_t page, expected, left;

static void guest_look(void)
{
	uint64_t stage;
	uint32_t ept;

	epk_set_up(LAST);
	for (stage = 0; ; stage++) {
		guest_sync(stage);
		for (ept = 0; ept <= LAST; ept++) {
			uint64_t gpa = SLOT_GPA + page * PAGE;

			vmfunc(ept);
			GUEST_EQ(read64(alias(ept, gpa)), expected);
			GUEST_EQ(read64(at(gpa)), expected);
			/* Each second EPT writes: both kinds of mapping are warm. */
			if (ept & 1) {
				write64(alias(ept, gpa + 8), left + ept);
				GUEST_EQ(read64(at(gpa + 8)), left + ept);
			}
		}
	}
}

static struct vm *vm;
static struct vcpu *vcpu;
static uint64_t *memory, stage;

static void start(void (*guest)(void))
{
	vm = vm_create();
	vcpu = vcpu_add(vm, guest);
	vm_ram(vm, 0, 0, 0, 16 * MiB);
	memory = vm_ram(vm, SLOT, 0, SLOT_GPA, SLOT_SIZE);
	vcpu_run_sync(vcpu, 0);
	stage = 0;
}

/* Every EPT finds @value in page @n, and the host what the last of them wrote. */
static void look(uint64_t n, uint64_t value)
{
	page = n;
	expected = value;
	left += 1000;
	vcpu_run_sync(vcpu, ++stage);
	CHECK_EQ(memory[n * WORDS + 1], left + LAST);
}

/* The guest can't go on: the page is not there for it. */
static void look_in_vain(uint64_t n)
{
	page = n;
	REQUIRE(ioctl(vcpu->fd, KVM_RUN, 0) == -1);
	CHECK_EQ(errno, EFAULT);
}

/* It tries again, and goes on. */
static void look_after_all(uint64_t n, uint64_t value)
{
	page = n;
	expected = value;
	vcpu_run_sync(vcpu, ++stage);
}

static void *page_at(uint64_t n)
{
	return memory + n * WORDS;
}

static void dontneed(void)
{
	start(guest_look);
	memory[5 * WORDS] = 50;
	look(5, 50);
	REQUIRE(!madvise(page_at(5), PAGE, MADV_DONTNEED));
	look(5, 0);
	/* The rest of a huge page as well. */
	memory[700 * WORDS] = 70;
	look(700, 70);
	REQUIRE(!madvise(page_at(512), 2 * MiB, MADV_DONTNEED));
	look(700, 0);
	vm_destroy(vm);
}

/* Other memory at the same place. */
static void remap(void)
{
	void *new;

	start(guest_look);
	memory[6 * WORDS] = 60;
	look(6, 60);
	new = mmap(page_at(6), PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	REQUIRE(new == page_at(6));
	look(6, 0);

	REQUIRE(!munmap(page_at(6), PAGE));
	expected = 0;
	look_in_vain(6);
	new = mmap(page_at(6), PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memory[6 * WORDS] = 61;
	look_after_all(6, 61);
	vm_destroy(vm);
}

/* Pages change places. */
static void move(void)
{
	void *elsewhere = huge_aligned_memory(2 * MiB);

	start(guest_look);
	memory[7 * WORDS] = 70;
	memory[8 * WORDS] = 80;
	look(7, 70);
	look(8, 80);
	REQUIRE(mremap(page_at(7), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) ==
		elsewhere);
	REQUIRE(mremap(page_at(8), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(7)) ==
		page_at(7));
	look(7, 80);
	REQUIRE(mremap(elsewhere, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(8)) ==
		page_at(8));
	look(8, 70);
	look(7, 80);
	vm_destroy(vm);
}

static void guest_protected(void)
{
	uint32_t ept;

	epk_set_up(LAST);
	for (ept = 0; ept <= LAST; ept++) {
		vmfunc(ept);
		write64(alias(ept, SLOT_GPA), ept);
	}
	guest_sync(0);
	/* Read-only: readable in each, but not writable in the last. */
	for (ept = 0; ept <= LAST; ept++) {
		vmfunc(ept);
		GUEST_EQ(read64(alias(ept, SLOT_GPA)), LAST);
	}
	write64(alias(LAST, SLOT_GPA), 1000);
	guest_sync(1);
	GUEST_EQ(read64(alias(LAST, SLOT_GPA)), 1000);
	guest_sync(2);
}

static void protect(void)
{
	start(guest_protected);
	REQUIRE(!mprotect(memory, PAGE, PROT_READ));
	look_in_vain(0);
	CHECK_EQ(memory[0], LAST);
	REQUIRE(!mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
	vcpu_run_sync(vcpu, 1);
	CHECK_EQ(memory[0], 1000);
	REQUIRE(!mprotect(memory, PAGE, PROT_NONE));
	look_in_vain(0);
	REQUIRE(!mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
	vcpu_run_sync(vcpu, 2);
	vm_destroy(vm);
}

/* A child keeps what was there at the fork, whatever the guest writes then. */
static void copy_on_write(void)
{
	int go[2], status;
	pid_t child;

	start(guest_look);
	memory[9 * WORDS] = 90;
	look(9, 90);
	REQUIRE(!pipe(go));
	child = fork();
	REQUIRE(child >= 0);
	if (!child) {
		uint64_t before = memory[9 * WORDS + 1];
		char c;

		close(go[1]);
		_exit(read(go[0], &c, 1) != 0 || memory[9 * WORDS + 1] != before);
	}
	close(go[0]);
	look(9, 90);
	close(go[1]);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	look(9, 90);
	vm_destroy(vm);
}

static uint64_t huge_pages(void)
{
	return vm_stat(vm, "pages_2m");
}

/* Transparent huge pages that come and go. */
static void huge(void)
{
	uint64_t i, before;

	start(guest_look);
	REQUIRE(!madvise(memory, SLOT_SIZE, MADV_NOHUGEPAGE));
	for (i = 0; i < 1024; i++)
		memory[i * WORDS] = i;
	look(3, 3);
	before = huge_pages();
	REQUIRE(!madvise(memory, SLOT_SIZE, MADV_HUGEPAGE));
	REQUIRE(!madvise(memory, 4 * MiB, MADV_COLLAPSE));
	look(3, 3);
	look(515, 515);
	CHECK_EQ(huge_pages() - before, 2);
	/* Split by taking one page out of it. */
	REQUIRE(!madvise(page_at(4), PAGE, MADV_DONTNEED));
	look(3, 3);
	look(4, 0);
	CHECK_EQ(huge_pages() - before, 1);
	REQUIRE(!madvise(memory, 2 * MiB, MADV_COLLAPSE));
	look(4, 0);
	look(511, 511);
	CHECK_EQ(huge_pages() - before, 2);
	vm_destroy(vm);
}

struct swap_header {
	uint8_t boot[1024];
	uint32_t version, last_page, bad_pages;
	uint8_t pad[PAGE - 1024 - 12 - 10];
	char magic[10];
} __attribute__((packed));

#define SWAP	"/dev/ram0"

static void swap_on(void)
{
	static struct swap_header header = { .version = 1, .last_page = 1023 };
	int fd = open(SWAP, O_RDWR);

	memcpy(header.magic, "SWAPSPACE2", 10);
	REQUIRE(fd >= 0);
	REQUIRE(write(fd, &header, sizeof(header)) == sizeof(header));
	close(fd);
	REQUIRE(!swapon(SWAP, 0));
}

/* From /proc/self/pagemap: is there no page but a place in the swap file? */
static bool is_swapped(uint64_t n)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	REQUIRE(fd >= 0);
	REQUIRE(pread(fd, &entry, 8, (uint64_t)page_at(n) / PAGE * 8) == 8);
	close(fd);
	return entry >> 62 & 1;
}

static void swapped(void)
{
	uint64_t i, round;

	start(guest_look);
	swap_on();
	REQUIRE(!madvise(memory, SLOT_SIZE, MADV_NOHUGEPAGE));
	for (i = 0; i < 64; i++)
		memory[i * WORDS] = 1000 + i;
	for (round = 0; round < 3; round++) {
		look(10 + round, 1010 + round);
		/* At first the guest has used it lately. */
		for (i = 0; i < 4 && !is_swapped(10 + round); i++)
			REQUIRE(!madvise(memory, 64 * PAGE, MADV_PAGEOUT));
		CHECK(is_swapped(10 + round));
		look(10 + round, 1010 + round);
		look(11 + round, 1011 + round);
	}
	vm_destroy(vm);
	REQUIRE(!swapoff(SWAP));
}

static long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	REQUIRE(fd >= 0 && read(fd, text, 31) > 0);
	close(fd);
	return atol(text);
}

#define KSM	"/sys/kernel/mm/ksm/"

/* Equal pages become one, until the guest writes to one of them. */
static void merged(void)
{
	int i;

	start(guest_look);
	REQUIRE(!madvise(memory, SLOT_SIZE, MADV_NOHUGEPAGE));
	memory[20 * WORDS] = 7;
	memory[21 * WORDS] = 7;
	look(20, 7);
	look(21, 7);
	memory[20 * WORDS + 1] = 0;
	memory[21 * WORDS + 1] = 0;
	REQUIRE(!madvise(page_at(20), 2 * PAGE, MADV_MERGEABLE));
	write_file(KSM "sleep_millisecs", "1");
	write_file(KSM "run", "1");
	for (i = 0; i < 500 && read_number(KSM "pages_sharing") < 1; i++)
		usleep(1000);
	CHECK(read_number(KSM "pages_sharing") >= 1);
	write_file(KSM "run", "0");
	look(20, 7);
	CHECK_EQ(memory[21 * WORDS + 1], 0);
	look(21, 7);
	write_file(KSM "run", "2");
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct test_case cases[] = {
		{ "dontneed", dontneed },
		{ "remap", remap },
		{ "move", move },
		{ "protect", protect },
		{ "copy-on-write", copy_on_write },
		{ "huge", huge },
		{ "swapped", swapped },
		{ "merged", merged },
	};

	return RUN_CASES(cases, argc, argv);
}
