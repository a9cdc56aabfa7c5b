// SPDX-License-Identifier: MIT
/*
 * Where the module would put its windows, by its own source in a module that needs no host: what
 * /proc/iomem shows of it, what is refused and in what words, and that nothing stays.
 */
#include "epk_test.h"

#include <stdarg.h>
#include <sys/syscall.h>

#define MODULE		"/epk/epk_room.ko"
#define GiB		(1ull << KVM_EPK_BLOCK_SHIFT)

/* What the module said since the last call. */
static char said[4096];
static int kmsg;

static void listen(bool keep)
{
	char record[2048];
	ssize_t len;

	said[0] = 0;
	while ((len = read(kmsg, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		char *text;

		if (len < 0)
			continue;
		record[len] = 0;
		text = strstr(record, "epk_room: ");
		if (keep && text && !strstr(text, "taint") && strlen(said) + strlen(text) < sizeof(said))
			strcat(said, text);
	}
}

static int load(const char *parameters)
{
	int module = open(MODULE, O_RDONLY), ret;

	REQUIRE(module >= 0);
	listen(false);
	ret = syscall(SYS_finit_module, module, parameters, 0) ? errno : 0;
	listen(true);
	close(module);
	return ret;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "epk_room", O_NONBLOCK) ? errno : 0;
}

/* The line of /proc/iomem that ends in @name. */
static bool resource(const char *name, uint64_t *start, uint64_t *last)
{
	FILE *file = fopen("/proc/iomem", "r");
	bool found = false;
	char line[200];

	REQUIRE(file);
	while (!found && fgets(line, sizeof(line), file)) {
		unsigned long long from, to;

		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%llx-%llx :", &from, &to) != 2 ||
		    strcmp(strstr(line, " : ") + 3, name))
			continue;
		/* Within nothing else. */
		CHECK(line[0] != ' ');
		*start = from;
		*last = to;
		found = true;
	}
	fclose(file);
	return found;
}

static bool nothing_there(void)
{
	uint64_t start, last;

	return !resource("EPK windows", &start, &last) && !resource("EPK identity page", &start, &last);
}

static void is_at(const char *parameters, uint64_t base, uint64_t epts, uint64_t slots, uint64_t identity,
		  const char *words)
{
	uint64_t start = 0, last = 0;

	printf("%s\n", parameters);
	CHECK_EQ(load(parameters), 0);
	CHECK(resource("EPK windows", &start, &last));
	CHECK_EQ(start, base);
	CHECK_EQ(last, base + epts * slots * GiB - 1);
	CHECK(resource("EPK identity page", &start, &last));
	CHECK_EQ(start, identity);
	CHECK_EQ(last, identity + GiB - 1);
	if (!CHECK(strstr(said, words)))
		puts(said);
	/* Where there is nothing to complain of, there is the one line. */
	if (!words[0])
		CHECK(strchr(said, '\n') && !strstr(strchr(said, '\n'), "epk_room"));
	CHECK_EQ(unload(), 0);
	CHECK(nothing_there());
}

static void refused(const char *parameters, int error, const char *words)
{
	int got;

	printf("%s\n", parameters);
	got = load(parameters);
	CHECK_EQ(got, error);
	if (!got)
		unload();
	if (!CHECK(strstr(said, words)))
		puts(said);
	CHECK(nothing_there());
}

/*
 * The hole that is to be used, in GiB: between what lies above 4 GiB and the end of 40 bits, or
 * what some kernels show there, which is a resource to be named.
 */
static void look(uint64_t *bottom, uint64_t *top)
{
	FILE *file = fopen("/proc/iomem", "r");
	unsigned long long from, to;
	char line[200];

	REQUIRE(file);
	*bottom = 4;
	*top = 1024;
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == ' ' || sscanf(line, "%llx-%llx :", &from, &to) != 2 || to < 4 * GiB)
			continue;
		if (to == (1ull << 40) - 1)
			*top = from / GiB;
		else
			*bottom = to / GiB + 1;
	}
	fclose(file);
	REQUIRE(*bottom < 100 && *top > 1000 && *top <= 1024 && !(*top % 4));
}

static char *text(const char *format, ...)
{
	static char texts[4][300];
	static int next;
	char *at = texts[next++ % 4];
	va_list args;

	va_start(args, format);
	vsnprintf(at, sizeof(texts[0]), format, args);
	va_end(args);
	return at;
}

/* A GiB of RAM, below 4 GiB. */
static void choose(uint64_t bottom, uint64_t top)
{
	uint64_t aligned = top / 8 * 8;

	is_at("bits=40", (top - 512) * GiB, 512, 1, (top - 513) * GiB, "");
	is_at("bits=40 max_epts=256", (top - 512) * GiB, 256, 2, (top - 513) * GiB, "");
	is_at("bits=40 epts=100", (top - 200) * GiB, 100, 2, (top - 201) * GiB, "");
	is_at("bits=40 epts=100 slots=8", (aligned - 800) * GiB, 100, 8,
	      (aligned < top ? top - 1 : aligned - 801) * GiB, "");
	is_at("bits=40 epts=3 slots=1 base=0x2000000000", 128 * GiB, 3, 1, (top - 1) * GiB, "");
	is_at("bits=39", (bottom + 1) * GiB, 511 - bottom, 1, bottom * GiB,
	      text("windows of 1 GiB for %d EPTs, not of 1 GiB for 512 as RAM and host would have it: "
		   "the largest hole is %#llx-0x7fffffffff (%d GiB), between ", (int)(511 - bottom),
		   bottom * GiB, (int)(512 - bottom)));
	/* The kernel's own width, not what the host says. */
	is_at("bits=52", (top - 512) * GiB, 512, 1, (top - 513) * GiB, "");

	refused("bits=40 epts=0", EINVAL, "epts=0: the host gives this VM 1 to 512");
	refused("bits=40 epts=513", EINVAL, "epts=513: the host gives this VM 1 to 512");
	refused("bits=40 epts=-2", EINVAL, "epts=-2: the host gives this VM 1 to 512");
	refused("bits=40 slots=0", EINVAL, "slots=0: it has to be a power of two from 1 to 512");
	refused("bits=40 slots=6", EINVAL, "slots=6: it has to be a power of two from 1 to 512");
	refused("bits=40 slots=x", EINVAL, "");
	refused("bits=40 base=0", EINVAL, "base=0x0: it has to be a multiple of 0x40000000");
	refused("bits=40 base=0x40000000", EINVAL, "from 0x100000000 on");
	refused("bits=40 base=0x2000001000", EINVAL,
		"base=0x2000001000: it has to be a multiple of 0x40000000");
	refused("bits=40 base=0x2040000000 slots=4", EINVAL, "it has to be a multiple of 0x100000000");
	refused("bits=40 base=0x10000000000", EINVAL, "below 0x10000000000, where the address width ends");
	refused(text("bits=40 base=%#llx epts=5", (top - 4) * GiB), EBUSY,
		top < 1024 ? text("but Reserved lies at %#llx-0xffffffffff", top * GiB) :
		"would take 5 GiB from there, but the address width ends at 0x10000000000");
	refused("bits=39 base=0x7f00000000 epts=5", EBUSY, "but the address width ends at 0x8000000000");
	refused("bits=40 epts=512 slots=2", EBUSY, "no room for the windows of 512 EPTs, of 2 GiB each");
	refused("bits=40 epts=512 slots=2", EBUSY, top < 1024 ? "and Reserved; ask for fewer EPTs (epts=)" :
		"and the end of the address width; ask for fewer EPTs (epts=)");
	refused("bits=32", EBUSY, "a VM with a larger address width");
}

/* Where the host says that EPK is enabled already. */
static void keep(uint64_t top)
{
	is_at("bits=40 kept_base=0x2000000000 kept_epts=3 kept_slots=4 kept_identity=0x1000001000",
	      128 * GiB, 3, 4, 64 * GiB, "");
	is_at("bits=40 kept_base=0x2000000000 kept_epts=3 kept_slots=4 kept_identity=0x1000001000 epts=5",
	      128 * GiB, 3, 4, 64 * GiB,
	      "EPK was enabled before, with epts=3 slots=4 base=0x2000000000, and stays so");
	is_at("bits=40 kept_base=0x2000000000 kept_epts=3 kept_slots=4 kept_identity=0x1000001000 base=0x2000000000",
	      128 * GiB, 3, 4, 64 * GiB, "");
	refused("bits=40 kept_base=0x2000000000 kept_epts=3 kept_slots=3 kept_identity=0x1000001000", ENODEV,
		"makes no sense");
	refused("bits=40 kept_base=0x2000000000 kept_epts=3 kept_slots=4 kept_identity=0x2000001000", ENODEV,
		"makes no sense");
	refused("bits=40 kept_base=0xff00000000 kept_epts=5 kept_slots=1 kept_identity=0x1000001000", ENODEV,
		"makes no sense");
	if (top == 1024)
		return;
	refused(text("bits=40 kept_base=%#llx kept_epts=5 kept_slots=1 kept_identity=0x1000001000",
		     (top - 4) * GiB), EBUSY, "where Reserved lies at ");
	refused(text("bits=40 kept_base=0x2000000000 kept_epts=5 kept_slots=1 kept_identity=%#llx",
		     top * GiB), EBUSY, "with EPK identity page at ");
}

int main(void)
{
	uint64_t bottom, top;

	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	REQUIRE(kmsg >= 0);
	look(&bottom, &top);
	choose(bottom, top);
	keep(top);
	return epk_test_result();
}
