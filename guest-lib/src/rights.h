/* SPDX-License-Identifier: MIT */
/* What a thread may do, by its PKRU. */
#ifndef EPK_RIGHTS_H
#define EPK_RIGHTS_H

#include "thread.h"

void rights_close_all(void);
uint32_t rights_open_held(struct epk_thread *t, uint32_t pkru);
void rights_note(struct epk_thread *t, int id, int prot);
bool rights_adopt(struct epk_thread *t, const struct epk_held *held);
int rights_end(struct epk_thread *t, unsigned int slot);
int rights_settle(struct epk_thread *t, bool alone);

#endif /* EPK_RIGHTS_H */
