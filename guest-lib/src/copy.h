/* SPDX-License-Identifier: MIT */
#ifndef EPK_COPY_H
#define EPK_COPY_H

/* Says that this copy of the library is the process's.  -EBUSY: another is. */
int epk_copy_claim(void **claim);
void epk_copy_release(void *claim);

#endif /* EPK_COPY_H */
