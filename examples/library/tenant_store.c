// SPDX-License-Identifier: MIT
/*
 * A store of 1,000 tenants.  Each has a table of lists in the heap of a domain of its own, which lies in a
 * file: what the store writes is there for the next process, and a query reaches the tenant that it is for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <epk.h>

#include "stray.h"

#define TENANTS		1000
#define FEWER_TENANTS	400	/* "vmfunc" has a domain an EPT: fewer than 512 */
#define LISTS		8
#define KEYS		10
/* Of each tenant's file. */
#define BYTES		8192

struct item {
	struct item *next;
	long key, value;
};

struct table {
	struct item *lists[LISTS];
};

struct tenant {
	int domain, fd;
	void **root;
};

static struct tenant tenants[TENANTS];
static int nr_tenants = TENANTS;

static struct item *find(const struct table *table, long key)
{
	struct item *item;

	for (item = table->lists[key % LISTS]; item && item->key != key; item = item->next)
		;
	return item;
}

/* An item is whole before the list has it: so it is after a kill, too. */
static int add(int domain, struct table *table, long key, long value)
{
	struct item **list = &table->lists[key % LISTS], *item = epk_malloc(domain, sizeof(*item));

	if (!item)
		return -errno;
	*item = (struct item){ *list, key, value };
	__atomic_store_n(list, item, __ATOMIC_RELEASE);
	return 0;
}

static int put(const struct tenant *tenant, long key, long value)
{
	int err, added = 0;

	EPK_WITH_ERROR(err, tenant->domain, PROT_READ | PROT_WRITE) {
		struct item *item = find(*tenant->root, key);

		if (item)
			item->value = value;
		else
			added = add(tenant->domain, *tenant->root, key, value);
	}
	return err ? err : added;
}

static int get(const struct tenant *tenant, long key, long *value)
{
	int err, found = -ENOENT;

	EPK_WITH_ERROR(err, tenant->domain, PROT_READ) {
		const struct item *item = find(*tenant->root, key);

		if (item) {
			*value = item->value;
			found = 0;
		}
	}
	return err ? err : found;
}

static int open_tenant(struct tenant *tenant)
{
	int made = epk_heap_open(tenant->domain, tenant->fd, BYTES, &tenant->root), err, lacks = 0;

	if (made < 0)
		return made;
	/* It is new, or who made it was killed before he came here. */
	EPK_WITH_ERROR(err, tenant->domain, PROT_READ | PROT_WRITE)
		if (!*tenant->root && !(*tenant->root = epk_calloc(tenant->domain, 1, sizeof(struct table))))
			lacks = -errno;
	return err ? err : lacks;
}

/* As a process does that starts. */
static int open_all(int ids[])
{
	int i, err = alloc_domains(nr_tenants, ids);

	for (i = 0; i < nr_tenants && !err; i++) {
		tenants[i].domain = ids[i];
		err = open_tenant(&tenants[i]);
	}
	return err;
}

/* A query of one tenant that goes astray to another. */
static int look_across(const struct tenant *from, const struct tenant *at, bool *got)
{
	int err = domain_begin(from->domain, PROT_READ);

	if (err)
		return err;
	*got = stray_read(at->root);
	/* A fault has taken the right, but not each backend has seen that. */
	domain_end(from->domain);
	return 0;
}

int main(void)
{
	int ids[TENANTS], i, key, err = 0, wrong = 0;
	struct rlimit files;
	bool stray = false;
	long got = -1;

	/* Each tenant has a descriptor. */
	if (getrlimit(RLIMIT_NOFILE, &files))
		return 1;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	err = epk_init(NULL);
	if (!err && !strcmp(epk_backend(), "vmfunc"))
		nr_tenants = FEWER_TENANTS;
	for (i = 0; i < nr_tenants && !err; i++) {
		/* A path, in a store that is to outlive the machine. */
		tenants[i].fd = memfd_create("tenant", MFD_CLOEXEC);
		err = tenants[i].fd < 0 ? -errno : 0;
	}
	err = err ?: open_all(ids);
	for (key = 0; key < KEYS && !err; key++)
		for (i = 0; i < nr_tenants && !err; i++)
			err = put(&tenants[i], key, i * KEYS + key);
	err = err ?: free_domains(nr_tenants, ids);
	/* The next one finds it all. */
	err = err ?: open_all(ids);
	for (i = 0; i < nr_tenants && !err; i++)
		for (key = 0; key < KEYS && !err; key++) {
			err = get(&tenants[i], key, &got);
			wrong += got != i * KEYS + key;
		}
	err = err ?: look_across(&tenants[0], &tenants[nr_tenants / 2], &stray);
	if (err) {
		fprintf(stderr, "tenant_store: %s\n", epk_strerror(err));
		return 1;
	}
	printf("backend %s: %d tenants, %d wrong values; a stray read of another tenant %s\n", epk_backend(),
	       nr_tenants, wrong, stray_says(stray));
	return wrong || !stray_is_as_it_should_be(stray) || free_domains(nr_tenants, ids);
}
