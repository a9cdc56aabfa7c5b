// SPDX-License-Identifier: MIT
/*
 * Samples that perf takes while a thread's stack or frame pointer lies in a domain: copies of the
 * stack and call chains go into a ring that is ordinary memory.  And build IDs, which the kernel reads
 * from files that are mapped.  And what uprobes fetch, where the kernel has them.  The same on ordinary
 * memory first, where they are found.
 */
#include "file_test.h"
#include "procmap.h"

#include <elf.h>

#include <sys/syscall.h>
#include <time.h>

#include <linux/perf_event.h>

#define SECRET		0x5ec0ffee00c0ffeeull
#define STACK_BYTES	(16 * 4096)
#define RING_PAGES	16
/* A loaded machine may let a sampler sleep through many a spin. */
#define SPINS_MOST	300

/* What spin_on() runs while the stack is another. */
extern const char spin_start[], spin_end[];

static struct epk_device dev;

static int sampler_open(uint64_t what)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = 50000, .sample_type = what | PERF_SAMPLE_IP, .sample_stack_user = 512,
		.exclude_kernel = 1, .exclude_hv = 1, .exclude_callchain_kernel = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

/* Run on @stack, with a frame there whose return address is the secret. */
static __attribute__((noinline)) void spin_on(uint64_t *stack)
{
	uint64_t *frame = stack + STACK_BYTES / 8 - 64;
	unsigned long rounds = 3000000;
	int i;

	for (i = 0; i < 32; i++)
		frame[-i - 8] = SECRET;
	frame[0] = (uintptr_t)(frame + 8);
	frame[1] = SECRET;
	frame[8] = 0;
	frame[9] = SECRET;
	asm volatile("movq %%rsp, %%r12\n\tmovq %%rbp, %%r13\n\t"
		     "movq %1, %%rsp\n\tmovq %2, %%rbp\n"
		     ".globl spin_start, spin_end\n"
		     "spin_start:\n1:\tdecq %0\n\tjnz 1b\nspin_end:\n\t"
		     "movq %%r12, %%rsp\n\tmovq %%r13, %%rbp"
		     : "+r"(rounds) : "r"(frame - 39), "r"(frame) : "r12", "r13", "memory", "cc");
}

/* Was a sample taken while the thread was on the other stack? */
static bool is_sampled(struct perf_event_mmap_page *ring)
{
	const char *data = (const char *)ring + 4096;
	uint64_t at = 0, ip;

	while (at < ring->data_head) {
		const struct perf_event_header *head = (const void *)(data + at);

		REQUIRE(head->size >= sizeof(*head) && at + head->size <= RING_PAGES * 4096);
		ip = *(const uint64_t *)(head + 1);
		if (head->type == PERF_RECORD_SAMPLE && ip >= (uintptr_t)spin_start &&
		    ip < (uintptr_t)spin_end)
			return true;
		at += head->size;
	}
	return false;
}

/* How often the secret is in the samples, and whether there were any. */
static unsigned int look(uint64_t what, uint64_t *stack, int id, bool *sampled)
{
	struct perf_event_mmap_page *ring;
	int fd = sampler_open(what), i;
	unsigned int found = 0;
	uint64_t *word;

	REQUIRE(fd >= 0);
	ring = mmap(NULL, (1 + RING_PAGES) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(ring != MAP_FAILED);
	*sampled = false;
	for (i = 0; i < SPINS_MOST && !*sampled; i++) {
		epk_device_enter(&dev, id);
		spin_on(stack);
		epk_device_enter(&dev, 0);
		*sampled = is_sampled(ring);
	}
	for (word = (uint64_t *)((char *)ring + 4096);
	     word < (uint64_t *)((char *)ring + (1 + RING_PAGES) * 4096); word++)
		found += *word == SECRET;
	munmap(ring, (1 + RING_PAGES) * 4096);
	close(fd);
	return found;
}

static void both(uint64_t what, const char *name, int id, uint64_t *domain)
{
	uint64_t *plain = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int found;
	bool sampled;

	REQUIRE(plain != MAP_FAILED);
	memset(plain, 0, STACK_BYTES);
	found = look(what, plain, 0, &sampled);
	epk_check(sampled && found, __FILE__, __LINE__, name, ": on ordinary memory");
	found = look(what, domain, id, &sampled);
	epk_check(sampled && !found, __FILE__, __LINE__, name, ": on a domain");
	munmap(plain, STACK_BYTES);
}

/* A file that has the secret where programs have their build ID. */
static int elf_file(void)
{
	static const struct {
		Elf64_Ehdr file;
		Elf64_Phdr part;
		Elf64_Nhdr note;
		char name[4];
		uint64_t id[2];
	} elf = {
		.file = {
			.e_ident = ELFMAG "\2", .e_type = ET_DYN, .e_phoff = sizeof(Elf64_Ehdr),
			.e_phnum = 1,
		},
		.part = { .p_type = PT_NOTE, .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
			  .p_filesz = 36 },
		.note = { .n_namesz = 4, .n_descsz = 16, .n_type = 3 },
		.name = "GNU",
		.id = { SECRET, SECRET },
	};
	int fd = memfd_create("elf", 0);

	REQUIRE(fd >= 0 && ftruncate(fd, 4096) == 0);
	CHECK_EQ(write(fd, &elf, sizeof(elf)), sizeof(elf));
	return fd;
}

/* In what perf has noted by now. */
static unsigned int count_secrets(const struct perf_event_mmap_page *ring)
{
	const char *data = (const char *)ring + 4096;
	unsigned int at, found = 0;

	for (at = 0; at + 8 <= ring->data_head && at < RING_PAGES * 4096 - 8; at++)
		found += !memcmp(data + at, &(uint64_t){ SECRET }, 8);
	return found;
}

/* Does the answer have the secret; -1 if there is none. */
static int query_build_id(const char *at)
{
	uint64_t build_id[4] = { 0 };
	struct procmap query = {
		.addr = (uintptr_t)at, .build_id = (uintptr_t)build_id, .build_id_size = 20,
	};

	return procmap_query(&query) ? -1 : query.build_id_size && build_id[0] == SECRET;
}

/* Who maps a file is noted by perf, and who changes its rights; with what the file says of itself. */
static void build_ids(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY,
		.mmap = 1, .mmap_data = 1, .mmap2 = 1, .build_id = 1, .exclude_kernel = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0), file = elf_file(), id;
	struct perf_event_mmap_page *ring;
	char *plain, *domain;
	unsigned int found;

	REQUIRE(fd >= 0);
	ring = mmap(NULL, (1 + RING_PAGES) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(ring != MAP_FAILED);
	plain = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
	REQUIRE(plain != MAP_FAILED);
	found = count_secrets(ring);
	CHECK(found);
	CHECK(query_build_id(plain));

	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	domain = file_map_at(&dev, id, NULL, 4096, PROT_READ | PROT_WRITE, 0, file, 0);
	REQUIRE(domain != MAP_FAILED);
	epk_device_enter(&dev, id);
	CHECK_EQ(*(Elf64_Half *)(domain + offsetof(Elf64_Ehdr, e_type)), ET_DYN);
	epk_device_enter(&dev, 0);
	CHECK_EQ(mprotect(domain, 4096, PROT_READ), 0);
	CHECK_EQ(count_secrets(ring), found);
	CHECK(query_build_id(domain) <= 0);
	munmap(ring, (1 + RING_PAGES) * 4096);
	close(fd);
	CHECK_EQ(epk_device_unmap(&dev, domain, 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

#define TRACING	"/sys/kernel/debug/tracing/"

/* Where the probe is: an instruction that the kernel does itself, on the stack that the thread has. */
asm(
"	.text\n"
"probed:\n"
"	push	%rdi\n"
"	pop	%rax\n"
"	ret\n"
);
extern uint64_t probed(const volatile uint64_t *at);

static uint64_t probed_on(char *stack, const volatile uint64_t *at)
{
	register char *sp asm("r12") = stack;
	uint64_t ret;

	asm volatile("xchg %%rsp, %%r12\n\tcall probed\n\tmov %%r12, %%rsp"
		     : "=a"(ret), "+r"(sp), "+D"(at) : : "rcx", "rdx", "memory");
	return ret;
}

static unsigned long offset_of(const void *code)
{
	unsigned long start, end, offset;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];

	REQUIRE(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 &&
		    (uintptr_t)code >= start && (uintptr_t)code < end)
			break;
	}
	fclose(maps);
	return (uintptr_t)code - start + offset;
}

/* A key alone keeps them from finding it. */
#define NONE_BY_KEY	(kernel_has_keys ? 0 : ANY)
#define ANY		~0u

static bool kernel_has_keys;

/* How many probes have been reached since the last look, and how many have found the secret. */
static void fetched(unsigned int reached, unsigned int found, int line)
{
	unsigned int reached_now = 0, found_now = 0;
	FILE *trace = fopen(TRACING "trace", "r");
	char text[512];

	REQUIRE(trace);
	while (fgets(text, sizeof(text), trace)) {
		reached_now += !!strstr(text, " word=");
		found_now += strstr(text, "5ec0ffee00c0ffee") || strstr(text, "\"secret\"");
	}
	fclose(trace);
	close(open(TRACING "trace", O_WRONLY | O_TRUNC));
	epk_check(reached_now == reached && (found_now == found || found == ANY), __FILE__, line, "fetched", "");
}

/* Its first word is the secret, its second a string. */
static void probe(volatile uint64_t *at, unsigned int found, int line)
{
	CHECK_EQ(probed(at), (uintptr_t)at);
	fetched(2, found, line);
	CHECK_EQ(probed(at + 1), (uintptr_t)(at + 1));
	fetched(2, found, line);
}

static void uprobes(void)
{
	static uint64_t plain[2] = { SECRET };
	char *domain, command[200];
	struct epk_move gone = { .ept = EPK_EPT_NONE };
	struct epk_moves moves = { .num = 1, .moves = (uintptr_t)&gone };
	uint64_t *words;
	int id;

	if (access(TRACING "uprobe_events", W_OK)) {
		puts("this kernel has no uprobes");
		return;
	}
	snprintf(command, sizeof(command), "p:epk/first /proc/self/exe:0x%lx word=+0(%%di):x64 text=+0(%%di):string",
		 offset_of(probed));
	REQUIRE(put(TRACING "uprobe_events", command));
	snprintf(command, sizeof(command), "r:epk/last /proc/self/exe:0x%lx word=+0(%%di):x64 text=+0(%%di):string",
		 offset_of(probed));
	REQUIRE(put(TRACING "uprobe_events", command));
	REQUIRE(put(TRACING "events/epk/enable", "1"));

	memcpy(plain + 1, "secret", 7);
	REQUIRE(epk_device_alloc(&dev, 1, &id) == 0);
	gone.id = id;
	domain = epk_device_map(&dev, id, 4096);
	REQUIRE(domain != MAP_FAILED);
	words = (uint64_t *)domain;
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS | EPK_THREAD_FOLLOWS) == 0);
	REQUIRE(ioctl(dev.fd, EPK_IOC_BEGIN, EPK_BEGIN(id, PROT_READ | PROT_WRITE)) == 0);
	memcpy(domain, plain, sizeof(plain));

	probe(plain, 2, __LINE__);
	probe(words, NONE_BY_KEY, __LINE__);
	/* It goes on as it was, with what the kernel has pushed. */
	CHECK_EQ(words[0], SECRET);
	CHECK_EQ(probed_on(domain + 4096, words), (uintptr_t)words);
	fetched(2, NONE_BY_KEY, __LINE__);
	/* Nor does the kernel bring in what is held. */
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_MOVE, &moves), 0);
	probe(words, 0, __LINE__);
	CHECK_EQ(epk_device_entry(&dev, id).pkey, 0);
	CHECK_EQ(words[0], SECRET);
	CHECK_EQ(ioctl(dev.fd, EPK_IOC_END, (long)id), 0);
	probe(words, NONE_BY_KEY, __LINE__);

	CHECK(put(TRACING "events/epk/enable", "0"));
	CHECK(put(TRACING "uprobe_events", "-:epk/first"));
	CHECK(put(TRACING "uprobe_events", "-:epk/last"));
	CHECK_EQ(epk_device_unmap(&dev, domain, 4096), 0);
	CHECK_EQ(epk_device_free(&dev, 1, &id), 0);
}

int main(void)
{
	uint64_t *domain;
	int ids[30], num, i;

	kernel_has_keys = epk_kernel_has_keys();
	epk_device_open(&dev);
	REQUIRE(ioctl(dev.fd, EPK_IOC_THREAD, EPK_THREAD_SIGNALS) == 0);
	build_ids();
	num = epk_device_fill(&dev, ids);
	for (i = 0; i < num; i += num / 2) {
		domain = epk_device_map(&dev, ids[i], STACK_BYTES);
		REQUIRE(domain != MAP_FAILED);
		epk_device_enter(&dev, ids[i]);
		memset(domain, 0, STACK_BYTES);
		epk_device_enter(&dev, 0);
		both(PERF_SAMPLE_STACK_USER, "stack", ids[i], domain);
		both(PERF_SAMPLE_CALLCHAIN, "call chain", ids[i], domain);
		/* What was held meanwhile is held still. */
		epk_device_enter(&dev, ids[i]);
		CHECK_EQ(EPK_TRY((void)*domain), 0);
		epk_device_enter(&dev, 0);
	}
	for (i = 0; i < num; i++)
		CHECK_EQ(epk_device_free(&dev, 1, ids + i), 0);
	uprobes();
	return epk_test_result();
}
