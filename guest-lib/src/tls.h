/* SPDX-License-Identifier: MIT */
/* Where a thread's thread-local variables lie. */
#ifndef EPK_TLS_H
#define EPK_TLS_H

#include <stdint.h>

static inline uintptr_t epk_fs_base(void)
{
	uintptr_t base;

	/* Its first word is its own address. */
	asm("mov %%fs:0, %0" : "=r"(base));
	return base;
}

/* So many bytes are below the FS base. */
uint32_t epk_tls_below(void);

#endif /* EPK_TLS_H */
