/* SPDX-License-Identifier: MIT */
/* The parts of epk-host, and the machine that they look at. */
#ifndef EPK_HOST_H
#define EPK_HOST_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "facts.h"

/* What the other packages of the project bring. */
#define LIBEXEC		"/usr/lib/epk"
#define QEMU		"qemu-system-x86_64"

/* Exit statuses. */
enum { DONE, LACKING, WRONG };

/* What a guest has, or a host gives; 0 for what is not said. */
struct geometry {
	unsigned int epts, bits;
};

/* check.c.  All facts, and whether they do for a guest of that geometry. */
int host_check(const struct geometry *guest);
/* Those that a guest's EPTs hang on; what there is for it if none is missing. */
struct geometry host_facts(void);
int host_status(void);
int host_run(int argc, char **argv);
int host_hook(int argc, char **argv);

/* domain.c.  What a domain's XML says. */
#define DOMAIN_NAMESPACE	"urn:epk-on-kvm:guest:1"

struct domain {
	bool uses_epk;			/* it says so, or cannot be read and speaks of it */
	struct geometry has;
	bool host_cpu;			/* the guest sees the host's address bits, and ... */
	unsigned int most_bits;		/* ... not more than these; 0: all */
	unsigned int fixed_bits;	/* it has these on each host; 0: it does not */
};

/* What is wrong with it, or NULL. */
const char *domain_read(int fd, struct domain *domain);

/* words.c.  To standard error; returns @status. */
int __attribute__((format(printf, 2, 3))) fail(int status, const char *format, ...);
/* As a value among QEMU's options, where two commas stand for one; the caller's to free. */
char *doubled(const char *value);

/*
 * machine.c.  A made-up machine, for tests, is a folder with /proc, /sys, /run ... as far as there
 * are any.  In place of devices it has text: see epk-host(8).
 */
extern const char *machine_root;	/* "" for this one */

/* A path on the machine.  Good until the fourth call from here. */
const char *on_machine(const char *path);

struct registers {
	uint32_t eax, ebx, ecx, edx;
};

/* Zeros where the CPU has no such leaf. */
struct registers cpuid(uint32_t leaf, uint32_t subleaf);

/* The bits that are set on all CPUs; false where they cannot be read. */
bool msr(uint32_t number, uint64_t *value);

struct kvm {
	int error;		/* of opening the device, or 0 */
	int api, epts;
};

struct kvm kvm_ask(void);

/* A module's parameter; false if there is none. */
bool parameter(const char *module, const char *name, char *value, size_t size);
bool module_loaded(const char *name);

/* The first line that a program writes; false if there is no such program, or it fails. */
bool program_says(char *const argv[], char *line, size_t size);

/* With @bits address bits: how many EPTs a guest has room for, and the GiB of the window of each. */
#define MAX_BITS	48
unsigned int epts_of(unsigned int bits, unsigned int *gib);
unsigned int address_bits(void);

/* image.c */
enum kind { DISK, BZIMAGE, ELF };

struct image {
	const char *path;
	enum kind kind;
	const char *format;	/* of a disk, as QEMU calls it; set: as the user says */
	bool backing;		/* the user trusts what it says of other files */
};

/* What is it, and is it whole?  0, or the status to exit with, and it has said why. */
int image_judge(struct image *image);
/* Which of QEMU's drivers reads it. */
const char *driver_of(const char *path);
/* A file that is only handed on. */
int file_judge(const char *path, const char *what);

#endif
