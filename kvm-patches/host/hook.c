// SPDX-License-Identifier: MIT
/*
 * What libvirt asks before a domain starts here, is restored, or comes from another host: may it?
 * One that does not say that its guest uses EPK may.  For one that does this host has to give what
 * the guest has; libvirt takes another answer than 0 for a refusal, of which it tells what is said
 * on standard error.  A source that hears of it has not been stopped, and nothing has been sent.
 *
 * The script that libvirt runs (libvirt-hook) takes "yes" on standard output, and 0, for leave: a file that is empty or is
 * something else exits with 0, too.  It hands nothing on, as libvirt would take that for other XML.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

static bool is_asked(const char *operation, const char *part)
{
	return !strcmp(part, "begin") &&
	       (!strcmp(operation, "migrate") || !strcmp(operation, "restore") || !strcmp(operation, "prepare"));
}

/* A guest keeps the windows that it has put where its own address width had room, here as there. */
static int compare_bits(const char *name, const struct domain *domain, unsigned int here)
{
	unsigned int bits = domain->has.bits, shown;

	if (bits && domain->fixed_bits && bits != domain->fixed_bits)
		return fail(LACKING, "%s: its metadata say %u address bits, maxphysaddr says %u", name, bits, domain->fixed_bits);
	bits = domain->fixed_bits ? domain->fixed_bits : bits;
	if (bits > here)
		return fail(LACKING, "%s: its guest has %u address bits, this host has %u", name, bits, here);
	if (!bits || domain->fixed_bits || !domain->host_cpu)
		return DONE;
	shown = domain->most_bits && domain->most_bits < here ? domain->most_bits : here;
	if (bits != shown)
		return fail(LACKING, "%s: its guest has %u address bits and would have %u here; <maxphysaddr mode='emulate' bits='%u'/> "
			    "gives it as many everywhere", name, bits, shown, bits);
	return DONE;
}

/* @name in a shell's quotes; @to has room for 4 bytes of each of its own, and 3. */
static void quote(char *to, const char *name)
{
	*to++ = '\'';
	for (; *name; name++) {
		if (*name == '\'')
			to = stpcpy(to, "'\\''");
		else
			*to++ = *name;
	}
	strcpy(to, "'");
}

static int judge(char **argv)
{
	const char *name, *wrong;
	struct geometry here;
	struct domain domain;

	name = argv[1];
	if (!is_asked(argv[2], argv[3]))
		return DONE;
	wrong = domain_read(0, &domain);
	if (!domain.uses_epk)
		return DONE;
	if (wrong)
		return fail(LACKING, "%s: what its XML says of EPK cannot be used: %s", name, wrong);
	facts_quiet = true;
	here = host_facts();
	if (facts_missing)
		return fail(LACKING, "%s: its guest uses EPK, which this host does not give", name);
	if (domain.has.epts > here.epts)
		return fail(LACKING, "%s: its guest has %u EPTs, this host gives %u", name, domain.has.epts, here.epts);
	if (!strcmp(argv[2], "migrate") && (!domain.has.epts || !(domain.has.bits || domain.fixed_bits))) {
		char quoted[4 * strlen(name) + 3];

		quote(quoted, name);
		return fail(LACKING, "%s: its metadata do not say how many EPTs and address bits its guest has; at the source: "
			    "virsh metadata --domain %s " DOMAIN_NAMESPACE " --key epk --live --config --set "
			    "\"<guest epts='...' address-bits='...'/>\", as epk-host check says there", name, quoted);
	}
	return compare_bits(name, &domain, here.bits);
}

int host_hook(int argc, char **argv)
{
	int ret;

	if (argc < 4)
		return fail(WRONG, "hook wants what libvirt says: NAME OPERATION SUBOPERATION, and XML on standard input");
	ret = judge(argv);
	if (ret == DONE && (puts("yes") < 0 || fflush(stdout)))
		return fail(WRONG, "standard output: %s", strerror(errno));
	return ret;
}
