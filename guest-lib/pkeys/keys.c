// SPDX-License-Identifier: MIT
/* The C library's calls: pkey_alloc(), pkey_free(), pkey_mprotect(), pkey_set(), pkey_get(). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "pkeys.h"

#define EXPORT	__attribute__((visibility("default")))

/* What a program may not get from calls that know no other errors. */
static int fail(int error)
{
	errno = error;
	return -1;
}

/* Is there protection, or does somebody want none? */
static bool have_backend(void)
{
	const struct epk_options options = { .size = sizeof(options), .flags = EPK_NO_SIGNAL_HANDLER };
	const char *wanted = secure_getenv("EPK_BACKEND");
	int err = epk_init(&options);

	if (err && err != -EALREADY)
		return false;
	if (!strcmp(epk_backend(), "none"))
		return wanted && !strcmp(wanted, "none");
	return strcmp(epk_backend(), "vmfunc");
}

/* Keys that could not go, since another thread had them open. */
static void sweep(void)
{
	unsigned int slot;

	for (slot = 1; slot < SLOTS; slot++)
		pkeys_key_release(slot);
}

/* For programs that have arrays by keys. */
static bool wants_small(void)
{
	const char *numbers = secure_getenv("EPK_PKEYS_NUMBERS");

	return numbers && !strcmp(numbers, "small");
}

/* A value whose slot is free, or 0. */
static int value_new(void)
{
	unsigned int value;

	if (wants_small()) {
		for (value = 1; value < SLOTS; value++)
			if (!pkeys_books->keys[value].id)
				return value;
		return 0;
	}
	do {
		if (pkeys_raw(SYS_getrandom, (long)&value, sizeof(value), 0, 0, 0, 0) != sizeof(value))
			return 0;
		value &= 0x7fffffff;
	} while (value < 2 * SLOTS || value % SLOTS == NO_SLOT || pkeys_books->keys[value % SLOTS].id);
	return value;
}

/* Under the lock of changes: the value, and the domain in @id; or 0. */
static int key_new(int *id)
{
	int value;

	if (pkeys_books->nr_slots >= KEYS_MOST)
		sweep();
	if (pkeys_books->nr_slots >= KEYS_MOST || !have_backend())
		return 0;
	value = value_new();
	if (!value || alloc_domains(1, id))
		return 0;
	pkeys_books->slot_of[(unsigned int)*id % INDICES] = value % SLOTS;
	pkeys_key_write(value % SLOTS, value, *id);
	pkeys_books->nr_slots++;
	return value;
}

static int prot_of(unsigned int rights)
{
	if (rights & DISABLE_ACCESS)
		return PROT_NONE;
	return rights & DISABLE_WRITE ? PROT_READ : RW;
}

EXPORT int pkey_alloc(unsigned int flags, unsigned int rights)
{
	int saved_errno = errno, value, id;
	struct pkeys_locked locked;

	if (flags || rights & ~DISABLE)
		return fail(EINVAL);
	pkeys_lock(&locked);
	value = key_new(&id);
	pkeys_unlock(&locked);
	if (!value)
		return fail(ENOSPC);
	/* Who has as many open as a thread can have has this one closed. */
	pkeys_rights_set(id, prot_of(rights));
	errno = saved_errno;
	return value;
}

EXPORT int pkey_free(int pkey)
{
	int saved_errno = errno;
	struct pkeys_locked locked;
	union key key;

	pkeys_lock(&locked);
	key = pkeys_key_find(pkey);
	if (key.value) {
		pkeys_key_write((unsigned int)pkey % SLOTS, 0, key.id);
		pkeys_key_release((unsigned int)pkey % SLOTS);
	}
	pkeys_unlock(&locked);
	errno = saved_errno;
	return key.value ? 0 : fail(EINVAL);
}

EXPORT int pkey_set(int pkey, unsigned int rights)
{
	union key key = pkeys_key_find(pkey);
	int saved_errno = errno, err;

	if (rights & ~DISABLE || (!key.value && (pkey || rights)))
		return fail(EINVAL);
	if (!key.value)
		return 0;
	err = pkeys_rights_set(key.id, prot_of(rights));
	errno = saved_errno;
	if (err)
		return fail(err == -ENOENT || err == -EPERM ? EINVAL : ENOSPC);
	return 0;
}

EXPORT int pkey_get(int pkey)
{
	union key key = pkeys_key_find(pkey);
	int prot;

	if (!key.value)
		return pkey ? fail(EINVAL) : 0;
	prot = epk_held_prot(key.id);
	if (prot < 0)
		return fail(EINVAL);
	if (!prot)
		return DISABLE_ACCESS;
	return prot & PROT_WRITE ? 0 : DISABLE_WRITE;
}

/* What the kernel says of a range; -1: there is nothing to do. */
static int check_range(uintptr_t start, size_t len)
{
	if (start % PAGE)
		return EINVAL;
	if (!len)
		return -1;
	return page_up(len) < len || start + page_up(len) < start ? ENOMEM : 0;
}

EXPORT int pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	int saved_errno = errno, wrong = check_range((uintptr_t)addr, len), err;
	struct pkeys_locked locked;
	union key key;

	if (pkey == -1)
		return mprotect(addr, len, prot);
	if (wrong)
		return wrong < 0 ? 0 : fail(wrong);
	if (prot & (PROT_GROWSDOWN | PROT_GROWSUP))
		return fail(EINVAL);
	if (pkey && prot & PROT_EXEC)
		return fail(pkeys_key_find(pkey).value ? EACCES : EINVAL);
	pkeys_lock(&locked);
	key = pkeys_key_find(pkey);
	err = -EINVAL;
	if (key.value || !pkey)
		err = pkeys_memory_key((uintptr_t)addr, (uintptr_t)addr + page_up(len),
				       pkey && prot & PROT_WRITE ? RW : prot & (RW | PROT_EXEC),
				       key.value ? (unsigned int)pkey % SLOTS : NO_SLOT);
	pkeys_unlock(&locked);
	errno = saved_errno;
	if (!err)
		return 0;
	return fail(err == -EINVAL || err == -EACCES ? -err : ENOMEM);
}
