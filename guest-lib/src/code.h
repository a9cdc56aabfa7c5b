/* SPDX-License-Identifier: MIT */
/* Memory of domains that can be run: where it is, and what may become of it.  All but the first two under epk_lock. */
#ifndef EPK_CODE_H
#define EPK_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Address space for all of the process's code, without which there is none; NULL: there is no room. */
char *epk_code_reserve(void);
void epk_code_release(char *code);

bool epk_code_at(uintptr_t addr);
void *epk_code_run(uintptr_t addr);
/* A memfd; or a negative error number. */
int epk_code_file(size_t len);
/* Where so much is free, or 0. */
uintptr_t epk_code_room(size_t len);
/* What has come to be @fd's is shown where it is run, and at once if @runs.  Nobody else can write to the file any more. */
int epk_code_show(uintptr_t start, size_t len, int fd, bool runs);
/* Nothing has come to lie there. */
void epk_code_fill(uintptr_t start, size_t len);
/* As the backend's munmap(), of any memory of domains. */
int epk_code_munmap(void *addr, size_t len);
/* As epk_mprotect(); on error nothing of it runs. */
int epk_code_protect(uintptr_t start, uintptr_t end, int prot);

#endif /* EPK_CODE_H */
