// SPDX-License-Identifier: MIT
/*
 * A box: memory in a domain of its own.
 *
 * A box belongs to the process that made it.  Domain memory does not cross
 * fork(), and a child's library may give out the same domain IDs anew, so each
 * box remembers how often its process was forked before it was made.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include <epk.h>

#include "epk_provider.h"

static unsigned int fork_generation;
static unsigned int ready_generation = ~0u;
static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;

static void forked(void)
{
	fork_generation++;
}

int box_setup(void)
{
	static bool registered;
	int err = 0;

	pthread_mutex_lock(&setup_lock);
	if (!registered) {
		err = pthread_atfork(NULL, NULL, forked);
		registered = !err;
	}
	pthread_mutex_unlock(&setup_lock);
	return err;
}

/* Someone else in the process was first: fine, unless a name was asked for. */
static int init_library(const struct provider *prov)
{
	struct epk_options options = {
		.size = sizeof(options),
		.backend = prov->backend,
	};
	int err = epk_init(&options);

	if (err == -EALREADY && (!prov->backend || !strcmp(prov->backend, epk_backend())))
		err = 0;
	return err;
}

/*
 * Not when the provider is loaded: a server loads it in its master and works
 * in forked children, and each process needs the library for itself.
 */
static bool library_ready(struct provider *prov)
{
	int err = 0;

	pthread_mutex_lock(&setup_lock);
	if (ready_generation != fork_generation) {
		err = init_library(prov);
		if (!err)
			ready_generation = fork_generation;
	}
	pthread_mutex_unlock(&setup_lock);
	if (err)
		return raise(prov, EPK_R_NO_DOMAIN, "libepk with backend %s: %s",
			     prov->backend ? prov->backend : "auto", epk_strerror(err));
	return true;
}

static size_t page_align(size_t len)
{
	return (len + 4095) & ~(size_t)4095;
}

bool box_new(struct provider *prov, struct box *box, size_t len)
{
	int err;

	if (!library_ready(prov))
		return false;
	err = alloc_domains(1, &box->dom);
	if (err)
		return raise(prov, EPK_R_NO_DOMAIN, "alloc_domains: %s", epk_strerror(err));
	box->len = page_align(len);
	box->mem = domain_mmap(box->dom, NULL, box->len, PROT_READ | PROT_WRITE, 0);
	if (box->mem == MAP_FAILED) {
		raise(prov, EPK_R_NO_DOMAIN, "domain_mmap of %zu bytes: %s", box->len,
		      strerror(errno));
		free_domains(1, &box->dom);
		return false;
	}
	box->generation = fork_generation;
	return true;
}

bool box_open(struct provider *prov, const struct box *box)
{
	int err;

	if (box->generation != fork_generation)
		return raise(prov, EPK_R_FORKED, "made before fork()");
	err = domain_begin(box->dom, PROT_READ | PROT_WRITE);
	if (err)
		return raise(prov, EPK_R_DOMAIN_BEGIN, "domain %#x: %s", box->dom,
			     epk_strerror(err));
	return true;
}

bool box_close(struct provider *prov, const struct box *box)
{
	int err = domain_end(box->dom);

	if (err)
		return raise(prov, EPK_R_DOMAIN_END, "domain %#x: %s", box->dom,
			     epk_strerror(err));
	return true;
}

void box_free(struct provider *prov, struct box *box)
{
	int err;

	/* A forked child has neither the memory nor the domain. */
	if (box->generation != fork_generation)
		return;
	if (box_open(prov, box)) {
		explicit_bzero(box->mem, box->len);
		box_close(prov, box);
	}
	err = domain_munmap(box->mem, box->len);
	if (err)
		raise(prov, EPK_R_DOMAIN_FREE, "domain_munmap: %s", epk_strerror(err));
	err = free_domains(1, &box->dom);
	if (err)
		raise(prov, EPK_R_DOMAIN_FREE, "free_domains: %s", epk_strerror(err));
}

/*
 * Holds one domain at a time, so that it works wherever the two lie.  The
 * price is that a few bytes at a time pass over this thread's stack.
 */
bool box_copy(struct provider *prov, const struct box *to, const struct box *from)
{
	uint8_t bounce[64];
	size_t at;
	bool ok = true;

	for (at = 0; ok && at < from->len; at += sizeof(bounce)) {
		ok = box_open(prov, from);
		if (!ok)
			break;
		memcpy(bounce, (uint8_t *)from->mem + at, sizeof(bounce));
		ok = box_close(prov, from) && box_open(prov, to);
		if (!ok)
			break;
		memcpy((uint8_t *)to->mem + at, bounce, sizeof(bounce));
		ok = box_close(prov, to);
	}
	explicit_bzero(bounce, sizeof(bounce));
	return ok;
}
