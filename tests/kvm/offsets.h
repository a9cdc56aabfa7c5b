/* SPDX-License-Identifier: MIT */
/* What C and assembly share. */
#ifndef EPK_TEST_OFFSETS_H
#define EPK_TEST_OFFSETS_H

/* Offsets into struct guest_cpu, which %gs points to. */
#define CPU_KERNEL_STACK	8
#define CPU_RECOVER		16
#define CPU_OUTCOME		24
#define CPU_USER_STACK		32

/* Selectors; the tables are made in vcpu.c. */
#define SEL_CODE64		0x08
#define SEL_DATA		0x10
#define SEL_USER_DATA		0x1b
#define SEL_USER_CODE64		0x23
#define SEL_CODE32		0x28
#define SEL_TSS			0x30

/* User code comes back by this interrupt. */
#define USER_RETURN_VECTOR	0x80

#endif /* EPK_TEST_OFFSETS_H */
