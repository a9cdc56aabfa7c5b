/* SPDX-License-Identifier: MIT */
/*
 * A stack to which a test goes with swapcontext(), so that it knows all of it, as one of which the
 * provider is told where it ends.
 */
#ifndef PROVIDER_KNOWN_STACK_H
#define PROVIDER_KNOWN_STACK_H

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>

static uint8_t *known_stack;
static size_t known_stack_len;

/* In place of libc's, for the provider. */
__attribute__((visibility("default"))) int pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
	static __typeof__(&pthread_getattr_np) real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "pthread_getattr_np");
	if ((uintptr_t)__builtin_frame_address(0) - (uintptr_t)known_stack >= known_stack_len)
		return real(thread, attr);
	return pthread_attr_init(attr) ?: pthread_attr_setstack(attr, known_stack, known_stack_len);
}

#endif /* PROVIDER_KNOWN_STACK_H */
