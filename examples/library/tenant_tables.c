// SPDX-License-Identifier: MIT
/*
 * A table for each tenant, each in a domain of its own: thousands of them in one
 * process.  A query holds the tables that it needs and no other; a copy between two
 * tenants holds two, wherever they lie.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <epk.h>

#include "stray.h"

#define TENANTS	300
#define ROWS	64

struct row {
	int tenant;
	int value;
};

static int domains[TENANTS];
static struct row *tables[TENANTS];

static int create(void)
{
	int i, err;

	/* One call: tenants that are made together lie together. */
	err = alloc_domains(TENANTS, domains);
	for (i = 0; i < TENANTS && !err; i++) {
		tables[i] = domain_mmap(domains[i], NULL, ROWS * sizeof(struct row),
					PROT_READ | PROT_WRITE, 0);
		if (tables[i] == MAP_FAILED)
			err = -errno;
	}
	return err;
}

static int insert(int tenant, int row, int value)
{
	int err;

	EPK_WITH_ERROR(err, domains[tenant], PROT_READ | PROT_WRITE)
		tables[tenant][row] = (struct row){ tenant, value };
	return err;
}

static int sum(int tenant, long *result)
{
	int err, row;

	*result = 0;
	EPK_WITH_ERROR(err, domains[tenant], PROT_READ)
		for (row = 0; row < ROWS; row++)
			*result += tables[tenant][row].value;
	return err;
}

static int copy(int from, int to)
{
	int err, inner = 0, row;

	EPK_WITH_ERROR(err, domains[from], PROT_READ)
		EPK_WITH_ERROR(inner, domains[to], PROT_READ | PROT_WRITE)
			for (row = 0; row < ROWS; row++)
				tables[to][row].value = tables[from][row].value;
	return err ? err : inner;
}

/* A query of one tenant that looks at the table of another. */
static int look_across(int from, int at, bool *got)
{
	int err = domain_begin(domains[from], PROT_READ);

	if (err)
		return err;
	*got = stray_read(tables[at]);
	/* A fault has taken the right, but not each backend has seen that. */
	domain_end(domains[from]);
	return 0;
}

int main(void)
{
	int err, tenant, row, wrong = 0;
	bool stray = false;
	long got;

	err = create();
	for (tenant = 0; tenant < TENANTS && !err; tenant++)
		for (row = 0; row < ROWS && !err; row++)
			err = insert(tenant, row, tenant + row);
	if (!err)
		err = copy(3, TENANTS - 1);
	for (tenant = 0; tenant < TENANTS && !err; tenant++) {
		int like = tenant == TENANTS - 1 ? 3 : tenant;

		err = sum(tenant, &got);
		wrong += got != (long)ROWS * like + ROWS * (ROWS - 1) / 2;
	}
	if (!err)
		err = look_across(0, TENANTS / 2, &stray);
	if (err) {
		fprintf(stderr, "tenant_tables: %s\n", epk_strerror(err));
		return 1;
	}
	printf("backend %s: %d tenants, %d wrong sums; a stray read of another's table %s\n", epk_backend(), TENANTS,
	       wrong, stray_says(stray));
	return wrong || !stray_is_as_it_should_be(stray) || free_domains(TENANTS, domains);
}
