// SPDX-License-Identifier: MIT
/*
 * Memory of domains that can be run.
 *
 * Each page of it has two addresses: one where it is the domain's, which is written and never run, and one in ordinary
 * memory, where it is run and never written.  No key stops the fetch of an instruction; and code that lay in an EPT's window
 * could touch nothing of another EPT's.
 *
 * All of it lies in one place, which the state tells: there, what is run is so far behind what is written, whatever
 * notes say that somebody may have forged.  Neither half ever becomes what the other one is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"
#include "code.h"
#include "sequence.h"

/* Whatever is called in it is near enough for a call with 32 bits. */
#define HALF		(1ul << 30)
/* With a page on either side, so that no domain's memory touches it. */
#define RESERVED	(2 * HALF + 2 * EPK_PAGE_SIZE)
#define PROT_RW		(PROT_READ | PROT_WRITE)
#define PROT_RX		(PROT_READ | PROT_EXEC)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL	8u
#endif

char *epk_code_reserve(void)
{
	char *got = mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (got == MAP_FAILED)
		return NULL;
	if (madvise(got, RESERVED, MADV_DONTFORK)) {
		munmap(got, RESERVED);
		return NULL;
	}
	return got + EPK_PAGE_SIZE;
}

void epk_code_release(char *code)
{
	munmap(code - EPK_PAGE_SIZE, RESERVED);
}

bool epk_code_at(uintptr_t addr)
{
	return epk_now.code && addr - (uintptr_t)epk_now.code < HALF;
}

/* Is the range code whole?  What is in part, no books have that nobody forged. */
static bool is_code(uintptr_t start, uintptr_t end)
{
	return epk_code_at(start) && end > start && epk_code_at(end - 1);
}

void *epk_code_run(uintptr_t addr)
{
	return (void *)(addr + HALF);
}

/* Nobody executes it as a program; where a kernel does not know that flag, nobody asks for it. */
int epk_code_file(size_t len)
{
	int fd = memfd_create("epk-code", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), err;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("epk-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, len))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

uintptr_t epk_code_room(size_t len)
{
	uintptr_t at = (uintptr_t)epk_now.code, end = at + HALF;
	struct epk_mapping there;

	while (at <= end && end - at >= len) {
		if (!epk_mapping_next(at, &there) || there.start >= at + len)
			return at;
		/* Forged: it would not end. */
		if (there.end <= at)
			return 0;
		at = there.end;
	}
	return 0;
}

static int set_run(uintptr_t start, size_t len, int prot)
{
	return mprotect(epk_code_run(start), len, prot) ? -errno : 0;
}

/* The domain's own mapping is there by now, and the last that may write: mprotect() does not make this one. */
int epk_code_show(uintptr_t start, size_t len, int fd, bool runs)
{
	void *run = epk_code_run(start);

	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	if (mmap(run, len, runs ? PROT_RX : PROT_NONE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return -errno;
	return madvise(run, len, MADV_DONTFORK) || madvise(run, len, MADV_DONTDUMP) ? -errno : 0;
}

void epk_code_fill(uintptr_t start, size_t len)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
	void *got = mmap((void *)start, len, PROT_NONE, flags, -1, 0);

	/* Kernels before 4.17 take the address as a hint. */
	if (got == (void *)start)
		madvise(got, len, MADV_DONTFORK);
	else if (got != MAP_FAILED)
		munmap(got, len);
}

/* It is run no more before it can be anything else; and its place stays. */
static int drop(uintptr_t start, size_t len)
{
	void *run = epk_code_run(start);
	int err = epk_anon_reserve(run, len);

	/* Where there can be no mappings more: whoever frees a domain of the module's is told of no error. */
	if (err)
		set_run(start, len, PROT_NONE);
	if (!err)
		err = epk_ops()->reserve((void *)start, len);
	if (!err) {
		madvise(run, len, MADV_DONTFORK);
		madvise((void *)start, len, MADV_DONTFORK);
	}
	return err;
}

int epk_code_munmap(void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;

	if (is_code(start, start + len))
		return drop(start, len);
	return epk_code_at(start) ? -EINVAL : epk_ops()->munmap(addr, len);
}

/* Asked of the kernel, by a call that otherwise fails for its first argument. */
static bool is_readable(const void *addr)
{
	int saved_errno = errno;
	bool readable = syscall(SYS_rt_sigprocmask, -1, addr, NULL, sizeof(uint64_t)) && errno != EFAULT;

	errno = saved_errno;
	return readable;
}

/* One that begins at @from or behind it and does not end before @start. */
static bool has_sequence(const uint8_t *from, const uint8_t *start, const uint8_t *end)
{
	for (; from < start; from++)
		if (epk_sequence_at(from, end - from) && !epk_sequence_at(from, start - from))
			return true;
	return epk_sequence_find(start, end, EPK_ESCAPE) || epk_sequence_find(start, end, EPK_REX2);
}

/* What comes behind it may change without this being looked at again. */
static bool could_begin_one(const uint8_t *end)
{
	size_t left;

	for (left = 1; left < EPK_SEQUENCE_BYTES; left++)
		if (epk_sequence_begun(end - left, left))
			return true;
	return false;
}

/* It can be read, and nobody can write to it.  What lies before it counts if it is code, too. */
static int inspect(const uint8_t *start, const uint8_t *end)
{
	bool first = start == epk_code_run((uintptr_t)epk_now.code);
	const uint8_t *from = start;

	if (!first && is_readable(start - sizeof(uint64_t)))
		from -= EPK_SEQUENCE_BYTES - 1;
	if (has_sequence(from, start, end))
		return epk_because(EPK_CAUSE_CODE);
	return could_begin_one(end) ? epk_because(EPK_CAUSE_CODE_END) : 0;
}

/* The domain's holders cannot write any more. */
static int inspect_and_run(uintptr_t start, uintptr_t end)
{
	int err = set_run(start, end - start, PROT_READ);

	if (err)
		return err;
	err = inspect(epk_code_run(start), epk_code_run(end));
	return err ? err : set_run(start, end - start, PROT_RX);
}

int epk_code_protect(uintptr_t start, uintptr_t end, int prot)
{
	bool both = prot & PROT_WRITE && prot & PROT_EXEC;
	int err;

	if (!is_code(start, end))
		return epk_because(EPK_CAUSE_MEMORY);
	/* What is to be written and run at once is not inspected, so that it need not stop. */
	err = both ? 0 : set_run(start, end - start, PROT_NONE);
	if (!err)
		err = epk_mapping_protect(start, end, prot & PROT_RW, epk_ops()->protect);
	if (!err && both)
		err = set_run(start, end - start, PROT_RX);
	else if (!err && prot & PROT_EXEC)
		err = inspect_and_run(start, end);
	/* Not what was to be written and run before, either. */
	if (err)
		set_run(start, end - start, PROT_NONE);
	return err;
}
